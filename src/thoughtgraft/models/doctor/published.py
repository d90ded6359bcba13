"""Accuracies that were published for known checkpoints, to compare a measurement with."""

from __future__ import annotations

from dataclasses import dataclass


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
