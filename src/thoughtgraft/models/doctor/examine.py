"""Examines a checkpoint: opens what can be opened, asks every check, and lets the loader itself give the verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from thoughtgraft.errors import CheckpointError, ThoughtgraftError
from thoughtgraft.models.checkpoint.adapter import assemble, is_adapter
from thoughtgraft.models.checkpoint.assembly import build_lm, empty_feeder
from thoughtgraft.models.checkpoint.assumed import Beside
from thoughtgraft.models.checkpoint.bases import Base, find_base
from thoughtgraft.models.checkpoint.files import WEIGHT_NAMES, Source, find_checkpoint, shard_names
from thoughtgraft.models.checkpoint.fit import check_copies, check_keys, check_sizes, fit_vocabulary, share_tied
from thoughtgraft.models.checkpoint.format import SPECIAL_ROWS
from thoughtgraft.models.checkpoint.keys import StateKeys, canonical, sort_keys
from thoughtgraft.models.checkpoint.tensors import StoredTensor, open_tensors
from thoughtgraft.models.checkpoint.twin import check_base
from thoughtgraft.models.doctor import rules
from thoughtgraft.models.doctor.rules import ADAPTER_FILES, Diagnosis, Facts, Finding, published_for, read_facts
from thoughtgraft.models.lm import check_tokenizer, count_base_tokens, load_tokenizer, own_tokens
from thoughtgraft.models.load import LoadOptions, make_model
from thoughtgraft.models.names import EMBEDDED, model_folder
from thoughtgraft.models.reasoner import LatentReasoner

_Result = TypeVar("_Result")


def diagnose(
    name_or_path: str | Path,
    *,
    base: str | Path | None = None,
    tokenizer: str | None = None,
    lora_alpha: float | None = None,
    prompt_suffix: str | None = None,
    num_latents: int | None = None,
) -> Diagnosis:
    """Says what a checkpoint is, whether `load_model` would load it, and what is wrong with it.

    Names and shapes tell most of it; every number is read once, to be finite, and none is kept. A hub id that is not in
    the cache is downloaded, as loading it would.

    Args:
        name_or_path: What `--model` takes.
        base: What `--base` takes.
        tokenizer: What `--tokenizer` takes.
        lora_alpha: What `--lora-alpha` takes.
        prompt_suffix: What `--prompt-suffix` takes.
        num_latents: What `--num-latents` takes.

    Returns:
        The diagnosis; whatever is wrong with the checkpoint is a finding in it and not an exception.
    """
    name = str(name_or_path)
    visit = _Visit(name, model_folder(name) if name in EMBEDDED else Path(name), base, tokenizer)
    visit.examine()
    model, refusal = visit.verdict(lora_alpha=lora_alpha, prompt_suffix=prompt_suffix, num_latents=num_latents)
    findings = visit.findings
    if refusal is None:
        # The loader has the last word: what is no obstacle to it is not called an error here.
        findings = [f if f.level != "error" else Finding("warning", f.what, f.got, f.expected, f.fix) for f in findings]
    else:
        first = Finding.refusal(refusal)
        findings = [first, *(f for f in findings if f.what != first.what)]
    if model is not None:
        told = {finding.what for finding in findings}
        findings += [Finding("note", note) for note in model.read[1:] if note not in told]
    order = ("error", "warning", "note")
    findings.sort(key=lambda finding: order.index(finding.level))
    return Diagnosis(
        name=name,
        loads=refusal is None,
        family=visit.facts.family,
        facts=visit.summary(),
        findings=tuple(findings),
        published=published_for(visit.facts.family, visit.facts.sizes),
        assumptions=() if model is None else model.assumptions,
    )


@dataclass
class _Visit:
    """One examination: what was found so far."""

    name: str
    place: Path
    base: str | Path | None
    tokenizer: str | PreTrainedTokenizerBase | None
    findings: list[Finding] = field(default_factory=list)
    facts: Facts = field(default_factory=lambda: Facts("unknown"))
    directory: Path | None = None
    weights: tuple[Path, ...] = ()
    found_base: Base | None = None
    found_tokenizer: PreTrainedTokenizerBase | None = None

    def attempt(self, step: Callable[[], _Result]) -> _Result | None:
        """What a step gives; None where it refuses, which becomes a finding."""
        try:
            return step()
        except ThoughtgraftError as error:
            self.findings.append(Finding.refusal(error))
            return None

    def passes(self, check: Callable[[], None]) -> bool:
        """Whether a check has nothing to say."""
        try:
            check()
        except ThoughtgraftError as error:
            self.findings.append(Finding.refusal(error))
            return False
        return True

    def examine(self) -> None:
        """Look at everything that can be looked at, whatever is wrong with the rest."""
        self.directory = self.place if self.place.is_dir() else self.place.parent
        source = self.attempt(lambda: find_checkpoint(self.place)) or self._partial()
        if source is None:
            return
        self.directory, self.weights = source.directory, source.weights
        stored: dict[str, StoredTensor] = {}
        if is_adapter(source.weights):
            whole = self.attempt(lambda: assemble(source.weights[0], self.base))
            if whole is None:
                return
            self.found_base, self.tokenizer = whole.base, self.tokenizer or whole.model.tokenizer
            stored |= whole.stored
        for path in () if stored else source.weights:
            stored |= self.attempt(lambda path=path: open_tensors([path])) or {}  # type: ignore[misc]
        if not stored:
            return
        named = self.attempt(lambda: canonical(stored, self.name))
        self.facts = read_facts(stored if named is None else named[1], self.name)
        self.findings += rules.projection_rules(self.facts, source.weights[0])
        self.findings += rules.lora_rules(self.facts)
        self.findings += rules.extra_rules(self.facts)
        if self.facts.layout is not None:
            self._fit(stored, source.directory)

    def _partial(self) -> Source | None:
        """What is left of a checkpoint that is not whole: the shards that are there, or an adapter's file."""
        if not self.place.is_dir():
            return None
        adapters = [self.place / name for name in ADAPTER_FILES[:2] if (self.place / name).is_file()]
        if adapters:
            return Source(self.place, (adapters[0],))
        for index in (self.place / name for name in WEIGHT_NAMES if name.endswith(".index.json")):
            try:
                names = shard_names(index)
            except (CheckpointError, OSError):
                continue
            there = tuple(index.parent / name for name in names if (index.parent / name).is_file())
            return Source(self.place, there) if there else None
        return None

    def _fit(self, stored: dict[str, StoredTensor], directory: Path) -> None:
        """Compare with the base, its config and its tokenizer."""
        keys = self.attempt(lambda: sort_keys(stored, self.name))
        if keys is None:
            return
        base = self.found_base or self.attempt(lambda: find_base(self.base, directory, keys))
        if base is None:
            return
        self.found_base = base
        vocab = base.config.vocab_size
        fits = self.passes(lambda: check_sizes(keys, base))
        loaded = self.attempt(lambda: load_tokenizer(self.tokenizer, directory, base))
        if loaded is not None:
            self.found_tokenizer = loaded[0]
            self.findings += rules.stop_rules(self.found_tokenizer, base.config.eos_token_id, vocab)
        if loaded is None or not fits:
            self.findings += rules.row_rules(self.facts, vocab)
            self.findings += () if fits else rules.base_rules(self.facts, base.name)
            return
        self._fit_rows(keys, base, *loaded)

    def _fit_rows(self, keys: StateKeys, base: Base, tokenizer: PreTrainedTokenizerBase, origin: str) -> None:
        """Compare rows, tokens and every tensor with a base whose layers and width fit."""
        tokens = count_base_tokens(tokenizer, own_tokens(tokenizer, keys.embedding.shape[0], keys.family))
        grown = self.attempt(lambda: fit_vocabulary(keys, base, tokens))
        if grown is None:
            self.findings += rules.row_rules(self.facts, base.config.vocab_size)
            return
        self.passes(lambda: check_tokenizer(origin, tokens, grown, keys.family))
        faithful = self.passes(lambda: check_base(grown.config, grown.name))
        lm = self.attempt(lambda: build_lm(grown.config)) if faithful else None
        if lm is not None:
            feeder = empty_feeder(keys, grown.config.hidden_size)
            share_tied(keys, lm)
            if self.passes(lambda: check_keys(keys, lm, feeder, self.name)):
                self.passes(lambda: check_copies(keys, lm))

    def verdict(self, **options: Any) -> tuple[LatentReasoner | None, ThoughtgraftError | None]:
        """What `load_model` makes, asked for everything but the weights, or why it refuses."""
        try:
            asked = LoadOptions(base=self.base, tokenizer=self.tokenizer, device="cpu", **options)
            model = make_model(self.name, asked, weights=False)
        except ThoughtgraftError as error:
            return None, error
        return model, None

    def summary(self) -> dict[str, Any]:
        """The facts in the order in which people read them."""
        facts = self.facts
        if not facts.tensors:
            return {}
        tokenizer = self.found_tokenizer
        return {
            "base": self._base_name(),
            "layers": facts.layers,
            "width": facts.width,
            "parameters": facts.parameters,
            "dtype": dict(facts.dtypes),
            "embedding_rows": facts.rows,
            "special_tokens": self._special_tokens(),
            "thoughts": self._thoughts(),
            "prj": self._projection(),
            "lora": self._lora(),
            "simcot_decoder": dict(facts.extras),
            "tokenizer": None
            if tokenizer is None
            else {"size": len(tokenizer), "eos": tokenizer.eos_token, "eos_id": tokenizer.eos_token_id},
            "files": [path.name for path in self.weights],
            "tensors": facts.tensors,
        }

    def _base_name(self) -> str:
        if self.found_base is not None:
            return self.found_base.name
        return rules.known_base(self.facts) or "unknown"

    def _thoughts(self) -> str | None:
        if self.facts.layout is None or self.directory is None:
            return None
        said = Beside.read(self.directory).num_latents
        return ", ".join(f"{number} ({file})" for file, number in said.items()) or "no file says it"

    def _lora(self) -> dict[str, Any]:
        ranks = self.facts.ranks
        state = "unmerged, to be merged at load" if ranks else "none stored: merged, or trained without"
        return {"state": state, "modules_by_rank": {str(rank): count for rank, count in ranks.items()}}

    def _special_tokens(self) -> dict[str, int] | None:
        facts = self.facts
        if facts.layout is None or facts.rows is None:
            return None
        first = facts.rows - SPECIAL_ROWS
        return {name: first + place for place, name in enumerate(facts.layout.rows)}

    def _projection(self) -> dict[str, Any]:
        shapes = self.facts.projection
        inner = shapes.get("1.weight", ())
        return {"present": bool(shapes), "width": inner[0] if len(inner) == 2 else None, "ln": "ln.weight" in shapes}
