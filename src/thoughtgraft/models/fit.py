"""Whether a checkpoint's tensors are the model's: sizes, keys, shapes, types and copies, before anything is filled."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from thoughtgraft.errors import CheckpointError
from thoughtgraft.models.bases import Base
from thoughtgraft.models.families import SPECIAL_ROWS, Family
from thoughtgraft.models.keys import Parts, StateKeys
from thoughtgraft.models.lora import check_shapes
from thoughtgraft.models.tensors import StoredTensor

_SHOWN = 4
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
    """Compares the weights with the base config before anything is built from it."""
    rows, width = keys.embedding.shape if len(keys.embedding.shape) == 2 else (0, 0)
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
    if rows != config.vocab_size + SPECIAL_ROWS:
        fix = f"pass --base with the model that the checkpoint was trained on ({base.name} is not it)"
        raise rows_error("the checkpoint", rows, config.vocab_size, keys.family, fix)


def tied_head(lm: PreTrainedModel) -> str | None:
    """The state-dict name of the output matrix where the config ties it to the embedding, else None."""
    head = lm.get_output_embeddings()
    if head is None or not lm.config.tie_word_embeddings:
        return None
    return next(f"{name}.weight" for name, module in lm.named_modules() if module is head)


def check_keys(keys: StateKeys, lm: PreTrainedModel, feeder: nn.Module, origin: str) -> None:
    """Every parameter has its tensor of the right shape, and every tensor its parameter."""
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
    if keys.family.duplicate is not None:
        if keys.duplicate is None:
            missing.append(keys.family.duplicate)
        elif keys.duplicate.shape != keys.embedding.shape:
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
            fix="download the checkpoint again, or pass --base with the model that it was trained on",
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
    return other.dtype != embedding.dtype or not torch.equal(other.read(), embedding.read())


def _wrapped(name: str, wrapper: str) -> str:
    module, _, parameter = name.rpartition(".")
    return f"{module}.{wrapper}.{parameter}"


def _any_name(parts: Parts) -> str:
    return next(part.name for part in (parts.weight, parts.lora_a, parts.lora_b) if part is not None)
