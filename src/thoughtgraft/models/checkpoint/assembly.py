"""Plain Hugging Face models and projections, built empty and filled with stored tensors."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from thoughtgraft.errors import CheckpointError
from thoughtgraft.models.checkpoint.fit import embedding_name, is_transposed, tied_head
from thoughtgraft.models.checkpoint.format import SPECIAL_ROWS
from thoughtgraft.models.checkpoint.keys import StateKeys
from thoughtgraft.models.checkpoint.lora import LoraScale, merge_lora
from thoughtgraft.models.checkpoint.tensors import StoredTensor, TensorHasher


def build_projection(d_model: int, prj_dim: int, *, dropout: float = 0.0, norm: bool = True) -> nn.Sequential:
    """Builds `prj`: [..., d_model] -> [..., d_model], with the official code's parameter names.

    Args:
        d_model: Width of the language model.
        prj_dim: Width of the inner layer.
        dropout: Rate of the dropout at index 0; it acts in training only.
        norm: Whether it ends with a LayerNorm.

    Source: CODI, `src/model.py`: Dropout, Linear, GELU, Linear, LayerNorm under the keys `1`, `3` and `ln`; the last
    one is left out with `prj_no_ln`.
    """
    parts: dict[str, nn.Module] = {
        "0": nn.Dropout(dropout),
        "1": nn.Linear(d_model, prj_dim),
        "2": nn.GELU(),
        "3": nn.Linear(prj_dim, d_model),
    }
    if norm:
        parts["ln"] = nn.LayerNorm(d_model)
    return nn.Sequential(OrderedDict(parts))


def pause_vectors(num_latents: int, d_model: int) -> nn.Embedding:
    """Builds K learned vectors [K, d_model] that are fed to every problem alike, as small as a model's embeddings."""
    vectors = nn.Embedding(num_latents, d_model)
    nn.init.normal_(vectors.weight, std=0.02)
    return vectors


class _EmptyOnMeta(TorchFunctionMode):
    """Leaves the big parameters unallocated while buffers such as the rotary frequencies are computed for real."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:  # how Linear, Embedding, LayerNorm and Conv1D make their weights
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def empty_lm(config: PretrainedConfig, attention: str) -> PreTrainedModel:
    """A causal LM whose parameters are empty and whose buffers are real; whatever its class raises goes through."""
    with _EmptyOnMeta():
        return AutoModelForCausalLM.from_config(config, attn_implementation=attention, trust_remote_code=False)


def build_lm(base_config: PretrainedConfig) -> PreTrainedModel:
    """Builds the causal LM of a base config with V + 3 rows; its parameters are empty, its buffers real."""
    config = copy.deepcopy(base_config)
    config.vocab_size = base_config.vocab_size + SPECIAL_ROWS
    config.dtype = torch.float32  # so that no buffer is rounded; the parameters are cast when they are assigned
    try:
        return empty_lm(config, "sdpa")
    except Exception as error:  # model classes check their configs with every kind of exception
        raise CheckpointError(
            f"no language model can be built from the base config (model_type {config.model_type!r})",
            got=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}",
            expected="the config.json of a Llama, GPT-2 or similar causal language model",
            fix="pass --base with the model that the checkpoint was trained on",
        ) from error


def empty_feeder(keys: StateKeys, d_model: int) -> nn.Module:
    """Builds `prj` or `pause` without values, as the file's tensors say it is; else the identity.

    A `prj` of which neither `ln.weight` nor `ln.bias` is stored was trained without its LayerNorm.
    """
    if keys.family.feeder is None:
        return nn.Identity()
    first = keys.feeder.get("1.weight" if keys.family.feeder == "prj" else "weight")
    size = first.shape[0] if first is not None and len(first.shape) == 2 else d_model
    norm = not keys.feeder or any(name.startswith("ln.") for name in keys.feeder)
    if keys.family.feeder == "prj" and not norm:
        keys.notes.append("prj ends without a LayerNorm, since neither prj.ln.weight nor prj.ln.bias is stored")
    with torch.device("meta"):
        if keys.family.feeder == "prj":
            return build_projection(d_model, size, norm=norm)
        return pause_vectors(size, d_model)


def fill_lm(
    lm: PreTrainedModel,
    keys: StateKeys,
    hasher: TensorHasher,
    *,
    dtype: torch.dtype,
    device: torch.device,
    scale: LoraScale | None,
) -> None:
    """Merges, casts and assigns one parameter after the other, so that memory holds the weights about once.

    Args:
        lm: From `build_lm`; filled in place.
        keys: The checkpoint's keys, passed by `check_keys`.
        hasher: Takes in every tensor read.
        dtype: What the parameters are cast to, after the merge.
        device: Where they go.
        scale: What LoRA pairs are multiplied by; None where there are none.

    Raises:
        CheckpointError: Something is left without a value.
    """
    tied, embedding = tied_head(lm), embedding_name(lm)
    state: dict[str, torch.Tensor] = {}
    for name in lm.state_dict():
        if name == tied:
            continue
        parts = keys.lm[name]
        assert parts.weight is not None  # _check_keys has seen to it
        value = _take(parts.weight, hasher)
        if parts.lora_a is not None and parts.lora_b is not None:
            assert scale is not None  # where there are pairs, something says their scale
            value = merge_lora(
                value.float(),
                _take(parts.lora_a, hasher).float(),
                _take(parts.lora_b, hasher).float(),
                scale=scale.of(name.removesuffix(".weight"), parts.lora_a.shape[0]),
                transposed=is_transposed(lm, name),
                name=parts.weight.name,
            )
        state[name] = _own(value, dtype, device, parts.weight.name)
    if tied is not None:
        state[tied] = state[embedding]
    lm.load_state_dict(state, strict=True, assign=True)
    lm.tie_weights()
    left = [n for n, t in chain(lm.named_parameters(), lm.named_buffers()) if t.is_meta]
    if left:
        raise CheckpointError(
            f"the architecture {type(lm).__name__} leaves {left[0]} without a value",
            expected="parameters from the file and buffers from the config",
            fix="use a Llama or GPT-2 checkpoint",
        )


def fill_feeder(
    feeder: nn.Module, keys: StateKeys, hasher: TensorHasher, *, dtype: torch.dtype, device: torch.device
) -> None:
    """Fills `prj` or `pause` as `fill_lm` fills the language model."""
    state = {name: _own(_take(keys.feeder[name], hasher), dtype, device, name) for name in feeder.state_dict()}
    feeder.load_state_dict(state, strict=True, assign=True)


def read_through(keys: StateKeys, lm: PreTrainedModel, feeder: nn.Module, hasher: TensorHasher) -> None:
    """Reads every number that `fill_lm` and `fill_feeder` would take, and keeps none.

    Raises:
        CheckpointError: One of them is not finite.
    """
    tied = tied_head(lm)
    parts = [keys.lm[name] for name in lm.state_dict() if name != tied]
    used = [part for p in parts for part in (p.weight, p.lora_a, p.lora_b)]
    for stored in (*used, *(keys.feeder[name] for name in feeder.state_dict())):
        if stored is not None:
            _take(stored, hasher)


def _take(stored: StoredTensor, hasher: TensorHasher) -> torch.Tensor:
    value = stored.read()
    hasher.add(stored.name, value)
    if not _is_finite(value):
        raise CheckpointError(
            f"the checkpoint's tensor {stored.name} is damaged: it holds numbers that are not finite",
            got=f"NaN or infinity in {int((~value.isfinite()).sum()):,} of {value.numel():,} numbers",
            expected="finite weights",
            fix="take an earlier checkpoint, saved before the training diverged, or download it again",
        )
    return value


def _own(value: torch.Tensor, dtype: torch.dtype, device: torch.device, name: str) -> torch.Tensor:
    # Always a copy: a view of the mapped file would change, or crash, when the file does.
    own = value.to(device=device, dtype=dtype if value.is_floating_point() else None, copy=True)
    if torch.finfo(dtype).max < torch.finfo(value.dtype).max and not _is_finite(own):
        raise CheckpointError(
            f"{name} does not fit into {str(dtype).removeprefix('torch.')}",
            got=f"numbers up to {float(value.abs().max()):.3g}",
            expected=f"at most {torch.finfo(dtype).max:.3g}",
            fix="--dtype float32 or bfloat16",
        )
    return own


def _is_finite(value: torch.Tensor) -> bool:
    low, high = value.aminmax()  # NaN wins both; no copy of the tensor is made
    return bool(low.isfinite() and high.isfinite())
