"""Reads a checkpoint of any family strictly into a plain Hugging Face model, and writes one that reads back."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from thoughtgraft.models.checkpoint.adapter import assemble, is_adapter
from thoughtgraft.models.checkpoint.assembly import build_lm, empty_feeder, fill_feeder, fill_lm, read_through
from thoughtgraft.models.checkpoint.assumed import Assumption, Beside, Training, trained_how
from thoughtgraft.models.checkpoint.bases import Base, find_base
from thoughtgraft.models.checkpoint.files import Source, find_checkpoint, write_folder
from thoughtgraft.models.checkpoint.fit import (
    check_copies,
    check_keys,
    check_sizes,
    fit_vocabulary,
    rows_error,
    share_tied,
    tied_head,
)
from thoughtgraft.models.checkpoint.format import BOCOT, FAMILIES, SPECIAL_ROWS, Family, is_named_simcot
from thoughtgraft.models.checkpoint.keys import StateKeys, sort_keys
from thoughtgraft.models.checkpoint.lora import LoraScale
from thoughtgraft.models.checkpoint.tensors import TensorHasher, open_tensors
from thoughtgraft.models.checkpoint.twin import check_base
from thoughtgraft.models.lm import check_tokenizer, count_base_tokens, load_tokenizer, own_tokens, read_suffix


@dataclass(frozen=True)
class Checkpoint:
    """Everything that an adapter needs; nothing has run yet.

    Attributes:
        name: The checkpoint as the user named it.
        lm: A plain Hugging Face causal LM with V + 3 embedding rows, LoRA merged, in eval mode, parameters frozen.
        feeder: What makes the fed vectors, in eval mode, parameters frozen: `prj`, [..., d_model] -> [..., d_model];
            `pause`, an embedding [K, d_model]; the identity where there is neither.
        tokenizer: The base model's tokenizer; it need not know the three rows after the base vocabulary.
        base_vocab: V, the base vocabulary.
        weight_hash: sha256 over (name, dtype, shape, bytes) of the tensors read, the same for .bin, .safetensors and
            shards. LoRA enters unmerged, so `lora` belongs beside it wherever a model is identified.
        lora: What LoRA was merged with; None where the checkpoint holds none.
        base: Where the base config came from.
        notes: What was passed over while reading, in words.
        assumptions: What changes answers and was taken for granted, since neither the user nor a file says it.
        family: The kind of latent reasoning, a name in `FAMILIES`; it says what the three added rows are.
        files: The weight files.
        num_latents: How many thoughts were trained, as a file says or as assumed; 0 where the family leaves no choice.
        prompt_suffix: The text between a question and begin-of-thought.
    """

    name: str
    lm: PreTrainedModel
    feeder: nn.Module
    tokenizer: PreTrainedTokenizerBase
    base_vocab: int
    weight_hash: str
    lora: LoraScale | None = None
    base: str = ""
    notes: tuple[str, ...] = ()
    assumptions: tuple[Assumption, ...] = ()
    family: str = "codi"
    files: tuple[Path, ...] = ()
    num_latents: int = 6
    prompt_suffix: str = ""

    @property
    def lora_alpha(self) -> float | None:
        """LoRA's alpha; None where the checkpoint holds no LoRA."""
        return None if self.lora is None else self.lora.alpha

    @property
    def pad_id(self) -> int:
        """The embedding row of padding: V for CODI, the end of sequence for Coconut."""
        row = FAMILIES[self.family].pad
        return int(self.tokenizer.eos_token_id) if row is None else self.base_vocab + row

    @property
    def bot_id(self) -> int:
        """The embedding row of the begin-of-thought token: V + 1 for CODI, V for Coconut."""
        return self.base_vocab + FAMILIES[self.family].bot

    @property
    def eot_id(self) -> int:
        """The embedding row of the end-of-thought token: V + 2 for CODI, V + 1 for Coconut."""
        return self.base_vocab + FAMILIES[self.family].eot


def read_checkpoint(
    name_or_path: str | Path,
    *,
    base: str | Path | None = None,
    tokenizer: str | Path | PreTrainedTokenizerBase | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    lora_alpha: float | None = None,
    prompt_suffix: str | None = None,
    weights: bool = True,
) -> Checkpoint:
    """Reads a CODI, Coconut or SIM-CoT checkpoint: every parameter comes from the file, or this raises.

    Args:
        name_or_path: A directory, a single weight file, or a hub id.
        base: Folder or hub id with the base model's config.json and tokenizer; None looks for a config.json beside
            the weights, then among the known bases.
        tokenizer: A tokenizer, or a folder or hub id with one; None looks beside the weights, then at the base.
        dtype: What to cast to after LoRA is merged in float32; None means float32, or bfloat16 for a bfloat16
            checkpoint on a GPU.
        device: Where the model goes.
        lora_alpha: LoRA's alpha, which raw checkpoints do not store; None takes what a file beside the weights says,
            else assumes the published ones' 32.
        prompt_suffix: The text between a question and begin-of-thought; None takes what a file says, else assumes what
            the family's published weights were trained with.
        weights: False makes every check, reads every number once and keeps none: the parameters stay empty.

    Raises:
        CheckpointError: Files are missing, damaged or unsafe, or keys, shapes, rows or tokenizer do not fit.
    """
    # 1. What it is, by names, shapes and the files beside it; nothing large has been read.
    name = str(name_or_path)
    plan = _plan(name, base, tokenizer, lora_alpha, prompt_suffix)
    keys, config = plan.keys, plan.base.config
    check_base(config, plan.base.name)
    # 2. The empty model, and every tensor against it.
    lm = build_lm(config)
    feeder = empty_feeder(keys, config.hidden_size)
    share_tied(keys, lm)
    check_keys(keys, lm, feeder, name)
    check_copies(keys, lm)
    # 3. The numbers.
    device, stored, hasher = torch.device(device), keys.embedding.dtype, TensorHasher()
    computed = dtype or (torch.bfloat16 if device.type == "cuda" and stored == torch.bfloat16 else torch.float32)
    if weights:
        fill_lm(lm, keys, hasher, dtype=computed, device=device, scale=plan.training.lora)
        fill_feeder(feeder, keys, hasher, dtype=computed, device=device)
        lm, feeder = lm.to(device), feeder.to(device)
    else:
        read_through(keys, lm, feeder, hasher)
    lm.config.dtype = computed
    chosen = dtype is not None or stored == computed or plan.own
    return _described(name, plan, lm, feeder, hasher.hexdigest(), [] if chosen else [_precision(stored, computed)])


def _described(
    name: str, plan: _Plan, lm: PreTrainedModel, feeder: nn.Module, weight_hash: str, more: Sequence[Assumption]
) -> Checkpoint:
    """A model whose numbers are read, with what is known of it, and `more` that was assumed."""
    keys, training, config = plan.keys, plan.training, plan.base.config
    endings = _ending(plan.tokenizer, config.eos_token_id)
    return Checkpoint(
        name=name,
        lm=lm.eval().requires_grad_(False),
        feeder=feeder.eval().requires_grad_(False),
        tokenizer=plan.tokenizer,
        base_vocab=config.vocab_size,
        weight_hash=weight_hash,
        lora=training.lora,
        base=plan.base.name,
        notes=(*plan.source.notes, *plan.base.notes, *keys.notes, *training.notes, *plan.notes),
        assumptions=(*training.assumptions, *endings, *_rival(plan.source), *more, *plan.base.assumptions),
        family=keys.family.name,
        files=tuple(plan.source.weights),
        num_latents=training.num_latents,
        prompt_suffix=training.prompt_suffix,
    )


@dataclass(frozen=True)
class _Plan:
    """What a checkpoint is, before its numbers are read.

    Attributes:
        source: Its files.
        keys: Its tensors, sorted.
        base: Its base, with the vocabulary that the embedding follows.
        tokenizer: Its tokenizer.
        training: How it was trained.
        own: Whether this project trained it.
        notes: What else was passed over, in words.
    """

    source: Source
    keys: StateKeys
    base: Base
    tokenizer: PreTrainedTokenizerBase
    training: Training
    own: bool
    notes: tuple[str, ...]


def _plan(
    name: str,
    base: str | Path | None,
    tokenizer: str | Path | PreTrainedTokenizerBase | None,
    lora_alpha: float | None,
    prompt_suffix: str | None,
) -> _Plan:
    """Find a checkpoint's files, base, tokenizer and training; refuse what does not fit together."""
    source, notes = find_checkpoint(name), list[str]()
    if is_adapter(source.weights):
        whole = assemble(source.weights[0], base)
        keys, found = sort_keys(whole.stored, name), whole.base
        tokenizer = tokenizer or whole.model.tokenizer
    else:
        keys = sort_keys(open_tensors(source.weights, notes), name)
        found = find_base(base, source.directory, keys)
    check_sizes(keys, found)
    loaded, origin = load_tokenizer(tokenizer, source.directory, found)
    own = own_tokens(loaded, keys.embedding.shape[0], keys.family)
    tokens = count_base_tokens(loaded, own)
    found = fit_vocabulary(keys, found, tokens)
    check_tokenizer(origin, tokens, found, keys.family)
    beside = Beside.read(source.directory)
    training = trained_how(
        beside,
        keys.family,
        simcot=keys.simcot or is_named_simcot(name),
        bocot=all(token in own for token in BOCOT),
        ranks=keys.ranks,
        end=loaded.eos_token,
        lora_alpha=lora_alpha,
        prompt_suffix=prompt_suffix,
    )
    if prompt_suffix is not None:
        notes.append(read_suffix(loaded, prompt_suffix))
    return _Plan(source, keys, found, loaded, training, beside.own, tuple(notes))


def _ending(tokenizer: PreTrainedTokenizerBase, config: int | list[int] | None) -> list[Assumption]:
    """What ends answers, where the base config names another token than the tokenizer."""
    listed = config if isinstance(config, list) else [] if config is None else [config]
    if not listed or tokenizer.eos_token_id in listed:
        return []
    value = f"{tokenizer.eos_token} ({tokenizer.eos_token_id})"
    why = f"it is the tokenizer's, while the base config names {', '.join(map(str, listed))}"
    return [Assumption("end of answers", value, why, "--tokenizer")]


def _rival(source: Source) -> list[Assumption]:
    """Which of several checkpoints in one folder is read."""
    if not source.rivals:
        return []
    why = f"in the same folder there is also {' and '.join(source.rivals)}, which holds a latent reasoner too"
    return [Assumption("weight file", source.weights[0].name, why, "--model with the file itself")]


def _precision(stored: torch.dtype, computed: torch.dtype) -> Assumption:
    """What is computed in, where the weights are stored in something else."""
    names = [str(dtype).removeprefix("torch.") for dtype in (stored, computed)]
    why = f"the weights are stored as {names[0]}, and no file says what they were run in"
    return Assumption("dtype", names[1], why, "--dtype")


def write_checkpoint(
    directory: str | Path,
    lm: PreTrainedModel,
    feeder: nn.Module | None,
    tokenizer: PreTrainedTokenizerBase,
    config: PretrainedConfig,
    *,
    dtype: torch.dtype | None = None,
    family: str = "codi",
) -> Path:
    """Writes a model as `read_checkpoint(directory)` reads it without a base: weights, base config, tokenizer.

    Args:
        directory: Made if it does not exist.
        lm: A causal LM with V + 3 embedding rows.
        feeder: `prj` or `pause`; None for a family without.
        tokenizer: The tokenizer of the base vocabulary.
        config: The base config; its `vocab_size` is V.
        dtype: What the weights are cast to; None keeps theirs.
        family: A name in `FAMILIES`.

    Returns:
        The directory.

    Raises:
        CheckpointError: The rows are not V + 3, or the directory cannot be written.
    """
    layout = FAMILIES[family]
    state = _named(lm, layout, config)
    if feeder is not None:
        state |= {f"{layout.feeder}.{name}": value for name, value in feeder.state_dict().items()}
    if layout.duplicate is not None:
        state[layout.duplicate] = lm.get_input_embeddings().weight
    return _write(Path(directory), state, lm, tokenizer, config, dtype)


def _named(lm: PreTrainedModel, family: Family, config: PretrainedConfig) -> dict[str, torch.Tensor]:
    """The language model's parameters under the family's names; a tied head is left out."""
    rows = lm.get_input_embeddings().weight.shape[0]
    if rows != config.vocab_size + SPECIAL_ROWS:
        raise rows_error("the model", rows, config.vocab_size, family, "pass the base config, with vocab_size V")
    tied = tied_head(lm)
    return {f"{family.prefixes[0]}{name}": value for name, value in lm.state_dict().items() if name != tied}


def _write(
    folder: Path,
    state: dict[str, torch.Tensor],
    lm: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: PretrainedConfig,
    dtype: torch.dtype | None,
) -> Path:
    tensors = {
        name: value.detach().to("cpu", dtype if value.is_floating_point() else None).clone().contiguous()
        for name, value in state.items()
    }
    base = copy.deepcopy(config)
    base.dtype = dtype or lm.dtype
    base.tie_word_embeddings = tied_head(lm) is not None
    base.architectures = [type(lm).__name__]
    return write_folder(folder, tensors, base, tokenizer)
