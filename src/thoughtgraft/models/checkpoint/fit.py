"""Whether a checkpoint's tensors are the model's: sizes, keys, shapes, types and copies, before anything is filled."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from thoughtgraft.errors import CheckpointError
from thoughtgraft.models.checkpoint.assumed import Assumption
from thoughtgraft.models.checkpoint.bases import Base
from thoughtgraft.models.checkpoint.format import SPECIAL_ROWS, Family
from thoughtgraft.models.checkpoint.keys import Parts, StateKeys
from thoughtgraft.models.checkpoint.lora import check_shapes
from thoughtgraft.models.checkpoint.tensors import StoredTensor

_SHOWN = 4
_MERGE = (
    "merge the adapter before saving (peft: merge_and_unload()): LoRA of inner matrices is read, DoRA and LoRA of the "
    "embedding are not"
)
_WEIGHTS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


def rows_error(what: str, rows: int, vocab: int, family: Family, fix: str) -> CheckpointError:
    """The error for an embedding that does not have V + 3 rows."""
    return CheckpointError(
        f"the embedding of {what} has the wrong number of rows",
        got=f"{rows} rows",
        expected=f"{vocab + SPECIAL_ROWS} rows: the base vocabulary of {vocab}, then {', '.join(family.rows)}",
        fix=fix,
    )


def check_sizes(keys: StateKeys, base: Base) -> None:
    """Compares the weights' layers and width with the base config before anything is built from it."""
    _, width = keys.embedding.shape if len(keys.embedding.shape) == 2 else (0, 0)
    config = base.config
    if keys.num_layers > len(keys.lm):  # before a model of that many layers is built
        raise CheckpointError(
            "the checkpoint's keys are numbered past their own count",
            got=f"layer {keys.num_layers - 1:,} among {len(keys.lm):,} parameters",
            expected="every layer from 0 on",
            fix="download the checkpoint again",
        )
    if (keys.num_layers, width) != (config.num_hidden_layers, config.hidden_size):
        raise CheckpointError(
            f"the checkpoint does not fit the base model {base.name}",
            got=f"{keys.num_layers} layers of width {width} in the weights",
            expected=f"{config.num_hidden_layers} layers of width {config.hidden_size}, as its config.json says",
            fix="pass --base with the model that the checkpoint was trained on",
        )


def fit_vocabulary(keys: StateKeys, base: Base, tokens: int) -> Base:
    """The base with the vocabulary that the checkpoint's embedding follows: its config's, or its tokenizer's.

    Configs of some bases (Qwen's) count rows that no token has; code that resizes the embedding to the tokenizer drops
    them, as Coconut's official code does.

    Args:
        keys: The checkpoint's keys.
        base: The base, with V from its config.
        tokens: How many ids its tokenizer has, the family's own tokens left out.

    Raises:
        CheckpointError: The embedding has neither V + 3 rows nor the tokenizer's and 3.
    """
    rows, vocab = keys.embedding.shape[0], base.config.vocab_size
    if rows == vocab + SPECIAL_ROWS:
        return base
    if rows == tokens + SPECIAL_ROWS:
        config = copy.deepcopy(base.config)
        config.vocab_size = tokens
        if (config.pad_token_id or 0) >= tokens:
            config.pad_token_id = None  # it names a row that is gone
        why = (
            f"the embedding has {rows:,} rows, which are the tokenizer's {tokens:,} and {SPECIAL_ROWS}, while the "
            f"base's config.json says {vocab:,}"
        )
        assumption = Assumption("base vocabulary", f"{tokens:,} rows", why, "--base")
        return replace(base, config=config, assumptions=(*base.assumptions, assumption))
    raise rows_error("the checkpoint", rows, vocab, keys.family, _rows_fix(rows, vocab, base))


def _rows_fix(rows: int, vocab: int, base: Base) -> str:
    if rows > vocab + SPECIAL_ROWS and rows % 8 == 0:
        return (
            f"if the embedding was padded to a round number of rows (pad_to_multiple_of), cut it and the output matrix "
            f"to their first {vocab + SPECIAL_ROWS:,} rows and save again; else pass --base with the model that the "
            f"checkpoint was trained on ({base.name} is not it)"
        )
    return f"pass --base with the model that the checkpoint was trained on ({base.name} is not it)"


def share_tied(keys: StateKeys, lm: PreTrainedModel) -> None:
    """Gives a tensor that was stored under one of its names the embedding's name too.

    Writers such as safetensors' keep one name of tensors that share their memory, whichever comes first.
    """
    name, tied = embedding_name(lm), tied_head(lm)
    if (parts := keys.lm.setdefault(name, Parts())).weight is None:
        head = None if tied is None else keys.lm.get(tied, Parts()).weight
        kept = keys.duplicate or head
        if kept is None:
            return
        parts.weight = kept
        keys.notes.append(f"the embedding is read from {kept.name}, the name of it that was stored")


def embedding_name(lm: PreTrainedModel) -> str:
    """The state-dict name of the embedding."""
    embedding = lm.get_input_embeddings()
    return next(f"{name}.weight" for name, module in lm.named_modules() if module is embedding)


def tied_head(lm: PreTrainedModel) -> str | None:
    """The state-dict name of the output matrix where the config ties it to the embedding, else None."""
    head = lm.get_output_embeddings()
    if head is None or not lm.config.tie_word_embeddings:
        return None
    return next(f"{name}.weight" for name, module in lm.named_modules() if module is head)


def check_keys(keys: StateKeys, lm: PreTrainedModel, feeder: nn.Module, origin: str) -> None:
    """Every parameter has its tensor of the right shape, and every tensor its parameter."""
    if keys.family.feeder == "prj" and not keys.feeder:
        raise CheckpointError(
            "there is no prj: the map from a hidden state to the thought that is fed back is not in the file",
            got=f"{len(keys.lm)} parameters of the language model, and nothing else",
            expected="prj.1.*, prj.3.*, prj.ln.*",
            fix="get the checkpoint from its source again; one trained without a projection (use_prj False) is not "
            "supported",
        )
    expected = {name: tuple(value.shape) for name, value in lm.state_dict().items()}
    tied = tied_head(lm)
    missing: list[str] = []
    wrong: list[str] = []
    for name in expected:
        parts = keys.lm.get(name, Parts())
        if parts.weight is None and (name != tied or parts.has_lora):
            missing.append(_wrapped(f"{keys.prefix}{name}", "base_layer") if parts.has_lora else f"{keys.prefix}{name}")
        elif parts.weight is not None and parts.weight.shape != expected[name]:
            wrong.append(f"{parts.weight.name} is {parts.weight.shape}, not {expected[name]}")
        if parts.has_lora:
            pair = {"lora_A.default": parts.lora_a, "lora_B.default": parts.lora_b}
            missing += [_wrapped(f"{keys.prefix}{name}", side) for side, half in pair.items() if half is None]
    unexpected = [_any_name(parts) for name, parts in keys.lm.items() if name not in expected] + keys.unexpected
    for name, value in feeder.state_dict().items():
        stored = keys.feeder.get(name)
        if stored is None:
            missing.append(f"{keys.family.feeder}.{name}")
        elif stored.shape != tuple(value.shape):
            wrong.append(f"{stored.name} is {stored.shape}, not {tuple(value.shape)}")
    if keys.duplicate is not None and keys.duplicate.shape != keys.embedding.shape:
        wrong.append(f"{keys.duplicate.name} is {keys.duplicate.shape}, not {keys.embedding.shape}")
    unexpected += [f"{keys.family.feeder}.{name}" for name in keys.feeder if name not in feeder.state_dict()]
    problems = [
        f"{len(names)} {kind}: {', '.join(names[:_SHOWN])}" + (", ..." if len(names) > _SHOWN else "")
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
        if names
    ]
    if problems:
        raise CheckpointError(
            f"the tensors of {origin} do not match the model",
            got="; ".join(problems),
            expected="every parameter of the model once, and nothing else",
            fix=_MERGE
            if any(".lora_" in name for name in unexpected)
            else "download the checkpoint again, or pass --base with the model that it was trained on",
        )
    for name, parts in keys.lm.items():
        if parts.weight is not None and parts.lora_a is not None and parts.lora_b is not None:
            check_shapes(
                parts.weight.shape,
                parts.lora_a.shape,
                parts.lora_b.shape,
                transposed=is_transposed(lm, name),
                name=parts.weight.name,
            )
    used = [part for parts in keys.lm.values() for part in (parts.weight, parts.lora_a, parts.lora_b)]
    check_values([part for part in [*used, *keys.feeder.values()] if part is not None])


def check_values(used: Iterable[StoredTensor]) -> None:
    """Refuses tensors whose numbers are no weights: integers, 8-bit floats and other packed forms, or none at all."""
    packed = [part for part in used if part.dtype not in _WEIGHTS or 0 in part.shape]
    if packed:
        raise CheckpointError(
            f"the checkpoint holds {len(packed)} tensors that are no plain weights: {packed[0].name}",
            got=f"{str(packed[0].dtype).removeprefix('torch.')} {packed[0].shape}",
            expected="float16, bfloat16, float32 or float64",
            fix="use the unquantised checkpoint",
        )


def is_transposed(lm: PreTrainedModel, name: str) -> bool:
    """Whether a weight is stored [in, out], as GPT-2's Conv1D does."""
    return isinstance(lm.get_submodule(name.removesuffix(".weight")), Conv1D)


def check_copies(keys: StateKeys, lm: PreTrainedModel) -> None:
    """Refuses a second embedding, or an output matrix tied to the embedding, that differs from it; reads them.

    The official code ties the head after loading and so drops it: not to be decided in silence.
    """
    if keys.duplicate is not None and _differs(keys.duplicate, keys.embedding):
        raise CheckpointError(
            "the checkpoint holds two different embeddings where the official code has one under two names",
            got=f"{keys.duplicate.name} differs from {keys.embedding.name}",
            fix="download the checkpoint again, or make the two equal if you know which one was trained",
        )
    tied = tied_head(lm)
    head = None if tied is None else keys.lm.get(tied, Parts()).weight
    if head is not None and _differs(head, keys.embedding):
        raise CheckpointError(
            "the base config ties the output matrix to the embedding, but the checkpoint holds two different ones",
            got=f"{head.name} differs from {keys.embedding.name}",
            fix='pass --base with a config.json that says "tie_word_embeddings": false to use both, '
            "or remove the output matrix from the checkpoint",
        )


def _differs(other: StoredTensor, embedding: StoredTensor) -> bool:
    if other.dtype != embedding.dtype:
        return True
    one, two = other.read(), embedding.read()
    # NaN is no number's equal; that it is damage is told where numbers are read.
    return not (torch.equal(one, two) or torch.equal(one.view(torch.uint8), two.view(torch.uint8)))


def _wrapped(name: str, wrapper: str) -> str:
    module, _, parameter = name.rpartition(".")
    return f"{module}.{wrapper}.{parameter}"


def _any_name(parts: Parts) -> str:
    return next(part.name for part in (parts.weight, parts.lora_a, parts.lora_b) if part is not None)
