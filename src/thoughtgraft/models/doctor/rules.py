"""What a checkpoint is: facts read from names and shapes, known mistakes with their fixes, published accuracies."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from thoughtgraft.errors import ThoughtgraftError
from thoughtgraft.models.checkpoint.assumed import Assumption
from thoughtgraft.models.checkpoint.bases import KNOWN_BASES
from thoughtgraft.models.checkpoint.format import COCONUT, CODI, FAMILIES, SPECIAL_ROWS, Family, is_named_simcot
from thoughtgraft.models.checkpoint.tensors import StoredTensor

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing about a checkpoint.

    Attributes:
        level: `error`: it does not load; `warning`: it loads, and may mislead; `note`: good to know.
        what: What was found.
        got: What is there.
        expected: What would be right.
        fix: What to do, a command where there is one.
    """

    level: Level
    what: str
    got: str = ""
    expected: str = ""
    fix: str = ""

    @classmethod
    def refusal(cls, error: ThoughtgraftError) -> Finding:
        """The finding for what loading raises."""
        got, expected = ("" if x is None else str(x) for x in (error.got, error.expected))
        return cls("error", error.what, got, expected, error.fix or "")


@dataclass(frozen=True)
class Diagnosis:
    """The whole examination.

    Attributes:
        name: The checkpoint as the user named it.
        loads: Whether `load_model` would load it with the same base and tokenizer.
        family: What kind of checkpoint its names make it.
        facts: What was read, by name; a fact that cannot be known says so.
        findings: Errors, warnings and notes, the first error being what `load_model` says.
        published: Accuracies published for such a checkpoint, to compare with.
        assumptions: What a run would take for granted, since no file says it.
    """

    name: str
    loads: bool
    family: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    published: tuple[str, ...] = ()
    assumptions: tuple[Assumption, ...] = ()

    def __post_init__(self) -> None:
        errors = any(finding.level == "error" for finding in self.findings)
        if errors == self.loads:
            raise ValueError(f"loads={self.loads} beside {'an' if errors else 'no'} error")

    def to_json(self) -> dict[str, Any]:
        """As plain values, for `--json`."""
        return {**asdict(self), "facts": dict(self.facts)}


_LLAMA3_VOCAB, _BASE_EOS, _INSTRUCT_EOS = 128256, "<|end_of_text|>", "<|eot_id|>"
# prj without its Dropout counts one less: Linear, GELU, Linear (, LayerNorm).
_SHIFTED = {"0": "1", "2": "3"}
_NORM_NAMES = ("3", "4", "norm")
_SHOWN = 4


def known_base(facts: Facts) -> str | None:
    """The known base whose width, layers and kind of names the weights have; None if there is none."""
    for name, values in KNOWN_BASES.items():
        llama = values["model_type"] == "llama"
        sizes = (values["hidden_size"], values["num_hidden_layers"]) if llama else (values["n_embd"], values["n_layer"])
        if (llama, sizes) == (facts.llama, facts.sizes):
            return name
    return None


def projection_rules(facts: Facts, weights: Path) -> Iterator[Finding]:
    """Prj whose keys are counted from another start."""
    have = set(facts.projection) if facts.layout is CODI else set()
    if "0.weight" in have and "1.weight" not in have:
        renamed = dict(_SHIFTED)
        norm = next((name for name in _NORM_NAMES if f"{name}.weight" in have), None)
        if norm is not None and "ln.weight" not in have:
            renamed[norm] = "ln"
        yield Finding(
            "error",
            "the keys of prj are shifted: they count from its first Linear, and the official ones from the Dropout "
            "before it",
            got=", ".join(sorted(f"prj.{name}" for name in have)),
            expected="prj.1.*, prj.3.*, prj.ln.*",
            fix=_rename(weights, {f"prj.{old}.": f"prj.{new}." for old, new in renamed.items()}),
        )


def _rename(weights: Path, renamed: Mapping[str, str]) -> str:
    """A command that writes the weights under other key prefixes into a new folder."""
    safe = weights.suffix == ".safetensors"
    code = "; ".join(
        (
            "import os, torch",
            "from safetensors.torch import load_file",
            f"old = {f'load_file({str(weights)!r})' if safe else f'torch.load({str(weights)!r}, weights_only=True)'}",
            f"names = {dict(renamed)}",
            "new = lambda k: next((names[a] + k[len(a):] for a in names if k.startswith(a)), k)",
            "os.makedirs('renamed', exist_ok=True)",
            "torch.save({new(k): v for k, v in old.items()}, 'renamed/pytorch_model.bin')",
        )
    )
    return f"python -c {shlex.quote(code)}, then copy config and tokenizer files into the folder `renamed` and use it"


def lora_rules(facts: Facts) -> Iterator[Finding]:
    """LoRA of which one side is missing."""
    if facts.halves and facts.layout:
        shown = ", ".join(facts.halves[:_SHOWN]) + (", ..." if len(facts.halves) > _SHOWN else "")
        yield Finding(
            "error",
            f"{len(facts.halves)} LoRA pairs are halves: one of lora_A and lora_B is missing",
            got=shown,
            expected="both, or neither after a merge",
            fix="download the checkpoint again, or save it again with both",
        )


def row_rules(facts: Facts, vocab: int | None) -> Iterator[Finding]:
    """An embedding whose rows are not V + 3, where V is known."""
    if facts.layout is None or facts.rows is None or vocab is None or facts.rows == vocab + SPECIAL_ROWS:
        return
    extra = facts.rows - vocab
    names = ", ".join(facts.layout.rows)
    if extra == 0:
        what = f"the rows of {names} are missing: the embedding has the base vocabulary and nothing more"
    elif 0 < extra < SPECIAL_ROWS:
        what = f"{SPECIAL_ROWS - extra} of the rows of {names} are missing"
    else:
        what = "the embedding is another vocabulary's, or was padded to a round number of rows"
    yield Finding(
        "error",
        what,
        got=f"{facts.rows:,} rows",
        expected=f"{vocab:,} + {SPECIAL_ROWS}",
        fix="save the embedding as it was trained, without resize_token_embeddings or pad_to_multiple_of; or name the "
        "right base with --base",
    )


def base_rules(facts: Facts, base: str | None) -> Iterator[Finding]:
    """Weights that are another base's than the one in use, and fit a known one."""
    fits = known_base(facts)
    if base is not None and fits is not None:
        yield Finding(
            "note",
            f"the weights have the shapes of {fits}",
            got=f"compared with {base}",
            fix=f"--base {fits}, where {base} does not fit",
        )


def extra_rules(facts: Facts) -> Iterator[Finding]:
    """SIM-CoT's training-only parts."""
    if facts.extras:
        listed = ", ".join(f"{name}.* ({count})" for name, count in facts.extras.items())
        yield Finding(
            "note",
            f"SIM-CoT's auxiliary decoder is in the file and is ignored: {listed}",
            got=f"{facts.extra_bytes / 1e9:.2f} GB that inference never reads",
        )


def stop_rules(tokenizer: PreTrainedTokenizerBase | None, config_eos: object, vocab: int | None) -> Iterator[Finding]:
    """A tokenizer that ends answers with another token than the model was trained to write."""
    if tokenizer is None:
        return
    token, number = tokenizer.eos_token, tokenizer.eos_token_id
    listed = config_eos if isinstance(config_eos, list) else [config_eos]
    if vocab == _LLAMA3_VOCAB and token == _BASE_EOS:
        yield Finding(
            "warning",
            "the tokenizer ends answers as Llama's base model does, and the published checkpoints were trained on the "
            "Instruct one: every answer would run to the token limit",
            got=f"{token} ({number})",
            expected=f"{_INSTRUCT_EOS} (128009)",
            fix="--tokenizer unsloth/Llama-3.2-1B-Instruct, unless it was trained on the base model",
        )
    elif config_eos is not None and number not in listed:
        yield Finding(
            "warning",
            "the tokenizer and the base config disagree about the end of an answer",
            got=f"the tokenizer's {token} ({number}); the config's {', '.join(map(str, listed))}",
            expected="the token that ended the training answers",
            fix="check with `thoughtgraft evaluate --limit 20` that answers stop, or pass --tokenizer or --base",
        )


ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin", "adapter_config.json")
_EXTRA = re.compile(f"{CODI.auxiliary.pattern}|{COCONUT.auxiliary.pattern}")
_NAMES_SHOWN = {"codi": "CODI", "coconut": "Coconut"}
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|wte|embed_in|word_embeddings)(?:\.base_layer)?\.weight$")
_LORA = re.compile(r"(?P<module>.+)\.lora_(?:embedding_)?(?P<side>[AB])(?:\.[^.]+)?(?:\.weight)?$")
_PLAIN = re.compile(r"(?:model\.|transformer\.)?(?:(?:layers|h)\.\d+\.|embed_tokens\.|wte\.)")


@dataclass(frozen=True)
class Facts:
    """What the names and shapes of a checkpoint say.

    Attributes:
        family: CODI, SIM-CoT CODI, Coconut, SIM-CoT Coconut, a control's name, plain base model, PEFT adapter only, or
            unknown.
        layout: The family whose names it has; None where it has no latent reasoner's.
        layers: Transformer blocks of the language model that thinks.
        rows: Rows of its embedding; None where none is stored.
        width: Its width; None where no embedding is stored.
        llama: Whether its names are Llama's; False for GPT-2's and others.
        projection: Keys inside `prj` -> shape.
        ranks: LoRA ranks -> modules that have them.
        halves: LoRA modules of which only one side is stored.
        extras: SIM-CoT's training-only parts -> number of tensors.
        extra_bytes: Bytes that these parts take.
        dtypes: Dtype -> number of tensors.
        parameters: Numbers stored, extras left out.
        tensors: Tensors stored.
    """

    family: str
    layout: Family | None = None
    layers: int = 0
    rows: int | None = None
    width: int | None = None
    llama: bool = False
    projection: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ranks: Mapping[int, int] = field(default_factory=dict)
    halves: tuple[str, ...] = ()
    extras: Mapping[str, int] = field(default_factory=dict)
    extra_bytes: int = 0
    dtypes: Mapping[str, int] = field(default_factory=dict)
    parameters: int = 0
    tensors: int = 0

    @property
    def sizes(self) -> tuple[int, int]:
        """Width and layers; a width of 0 where no embedding is stored."""
        return self.width or 0, self.layers


def read_facts(stored: Mapping[str, StoredTensor], name: str) -> Facts:
    """Reads what can be known from names and shapes; nothing here fails.

    Args:
        stored: The file's tensors by name.
        name: The checkpoint as the user named it: SIM-CoT's published ids say so even where the decoder is stripped.
    """
    own = {key: tensor for key, tensor in stored.items() if not _EXTRA.match(key)}
    extra = [tensor for key, tensor in stored.items() if key not in own]
    pairs: dict[str, dict[str, StoredTensor]] = {}
    for key, tensor in own.items():
        if match := _LORA.fullmatch(key):
            pairs.setdefault(match["module"], {})[match["side"]] = tensor
    embedding = next((t for key, t in own.items() if _EMBEDDING.search(key) and len(t.shape) == 2), None)
    found = [int(match.group(1)) for key in own if (match := _LAYER.search(key))]
    layout = next((family for family in FAMILIES.values() if any(key.startswith(family.prefixes) for key in own)), None)
    return Facts(
        family=_kind(own, set(pairs)) if layout is None else _family(layout, bool(extra) or is_named_simcot(name)),
        layout=layout,
        layers=max(found, default=-1) + 1,
        rows=None if embedding is None else embedding.shape[0],
        width=None if embedding is None else embedding.shape[1],
        llama=any(".self_attn.q_proj." in key for key in own),
        projection={key.removeprefix("prj."): tensor.shape for key, tensor in own.items() if key.startswith("prj.")},
        ranks=Counter(pair["A"].shape[0] for pair in pairs.values() if "A" in pair and pair["A"].shape),
        halves=tuple(module for module, pair in pairs.items() if len(pair) == 1),
        extras=Counter(key.partition(".")[0] for key in stored if _EXTRA.match(key)),
        extra_bytes=sum(prod(tensor.shape) * tensor.dtype.itemsize for tensor in extra),
        dtypes=Counter(str(tensor.dtype).removeprefix("torch.") for tensor in stored.values()),
        parameters=sum(prod(tensor.shape) for tensor in own.values()),
        tensors=len(stored),
    )


def _family(layout: Family, simcot: bool) -> str:
    if layout.name not in _NAMES_SHOWN:
        return f"control: {layout.name}"
    return f"SIM-CoT {_NAMES_SHOWN[layout.name]}" if simcot else _NAMES_SHOWN[layout.name]


def _kind(names: Iterable[str], lora: set[str]) -> str:
    """What a checkpoint of no family is."""
    listed = list(names)
    if lora and all("lora_" in name or "modules_to_save" in name for name in listed):
        return "PEFT adapter only"
    return "plain base model" if any(_PLAIN.match(name) for name in listed) else "unknown"


@dataclass(frozen=True)
class Published:
    """One published figure.

    Attributes:
        family: The family that the figure is of.
        sizes: Width and layers of the base.
        base: The base model, in words.
        accuracy: GSM8K test accuracy in percent, as published.
        source: Who published it.
    """

    family: str
    sizes: tuple[int, int]
    base: str
    accuracy: float
    source: str


_GPT2, _LLAMA_1B, _LLAMA_3B = (768, 12), (2048, 16), (3072, 28)
_CODI_SOURCE, _SIMCOT_SOURCE = "Shen et al. 2025, arXiv 2502.21074", "Wei et al. 2025, arXiv 2509.20317"
PUBLISHED = (
    Published("CODI", _GPT2, "GPT-2", 43.7, _CODI_SOURCE),
    Published("CODI", _LLAMA_1B, "Llama-3.2-1B", 55.6, _CODI_SOURCE),
    Published("SIM-CoT CODI", _LLAMA_1B, "Llama-3.2-1B", 56.0, _SIMCOT_SOURCE),
    Published("SIM-CoT CODI", _LLAMA_3B, "Llama-3.2-3B", 62.0, _SIMCOT_SOURCE),
)


def published_for(family: str, sizes: tuple[int, int]) -> tuple[str, ...]:
    """The published figures of a family and size, as sentences; none for sizes that nobody published."""
    return tuple(
        f"{p.family} on {p.base}: {p.accuracy:g}% of GSM8K's test problems, as published ({p.source}); measure yours "
        "with: thoughtgraft evaluate --model ... --problems gsm8k:test"
        for p in PUBLISHED
        if p.family == family and p.sizes == sizes
    )
