"""Where the engine's time goes: CPU seconds inside the parts of one plain sweep (a part includes what it calls)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers.models.llama import modeling_llama as llama

from benchmarks.ours import Sweep
from thoughtgraft.engine import answer as decode
from thoughtgraft.engine import rollout as engine
from thoughtgraft.models import attention as prefix

_PARTS: tuple[tuple[Any, str, str], ...] = (
    (torch.nn.Linear, "forward", "matrix products with weights"),
    (prefix, "_normalised", "softmax and weighted values of both attention parts"),
    (prefix.ColumnCache, "update", "writing keys and values"),
    (llama, "apply_rotary_pos_emb", "rotary positions (library)"),
    (llama.LlamaRMSNorm, "forward", "norms (library)"),
    (llama.LlamaAttention, "forward", "attention blocks, with their products"),
    (llama.LlamaMLP, "forward", "MLP blocks, with their products"),
    (decode, "next_token", "unembedding and argmax"),
    (engine, "think_clean", "stage: questions and clean thoughts"),
    (engine, "think_forked", "stage: forked thoughts"),
    (engine, "finish", "stage: answers"),
)


def breakdown(sweep: Sweep) -> list[tuple[str, str, str]]:
    """Part, seconds and share of the whole, after one untimed run; timing itself adds a few percent."""
    sweep()
    spent = dict.fromkeys((label for _, _, label in _PARTS), 0.0)
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in _PARTS]

    def timed(function: Callable[..., Any], label: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            begin = time.process_time()
            try:
                return function(*args, **options)
            finally:
                spent[label] += time.process_time() - begin

        return call

    try:
        for (owner, name, label), (_, _, function) in zip(_PARTS, originals, strict=True):
            setattr(owner, name, timed(function, label))
        begin = time.process_time()
        sweep()
        whole = time.process_time() - begin
    finally:
        for owner, name, function in originals:
            setattr(owner, name, function)
    return [(label, f"{t:.3f}", f"{t / whole:.0%}") for label, t in (*spent.items(), ("all", whole))]
