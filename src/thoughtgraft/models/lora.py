"""Merges LoRA weights into the matrix that they adapt, exactly."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from thoughtgraft.errors import CheckpointError


def merge_lora(
    weight: torch.Tensor, lora_a: torch.Tensor, lora_b: torch.Tensor, *, alpha: float, transposed: bool, name: str
) -> torch.Tensor:
    """Returns `weight + (alpha / r) * B @ A` in float32, correctly rounded.

    The product is taken in float64 and rounded once: the result then depends neither on the number of threads nor on
    the float32 matmul precision (TF32, bf16) that a notebook may have switched on.

    Args:
        weight: The base matrix: [out, in] of a Linear, [in, out] of GPT-2's Conv1D.
        lora_a: `lora_A`, [r, in].
        lora_b: `lora_B`, [out, r].
        alpha: LoRA's alpha; the scale is alpha / r.
        transposed: Whether `weight` is stored [in, out] (Conv1D).
        name: The weight's name, for the error.

    Raises:
        CheckpointError: The three shapes do not fit each other.

    Source: Hu et al. 2021, "LoRA", equation 3; `peft`'s `fan_in_fan_out` for Conv1D.
    """
    check_shapes(weight.shape, lora_a.shape, lora_b.shape, transposed=transposed, name=name)
    rank = lora_a.shape[0]
    a, b = lora_a.double(), lora_b.double() * (alpha / rank)
    # For Conv1D the transposed product is taken directly: adding a transposed view is several times slower.
    return (a.T @ b.T if transposed else b @ a).add_(weight).float()


def check_shapes(
    weight: Sequence[int], lora_a: Sequence[int], lora_b: Sequence[int], *, transposed: bool, name: str
) -> None:
    """Refuses a LoRA pair that does not fit the matrix that it adapts.

    Args:
        weight: The matrix's shape: [out, in], or [in, out] if `transposed`.
        lora_a: [r, in].
        lora_b: [out, r].
        transposed: Whether the matrix is a Conv1D's.
        name: The matrix's name, for the error.

    Raises:
        CheckpointError: The three shapes do not fit each other.
    """
    if len(weight) == len(lora_a) == len(lora_b) == 2 and lora_a[0] == lora_b[1] > 0:
        shape = (lora_b[0], lora_a[1])
        if tuple(weight) == (shape[::-1] if transposed else shape):
            return
    raise CheckpointError(
        f"the LoRA weights of {name} do not fit it",
        got=f"lora_A {tuple(lora_a)}, lora_B {tuple(lora_b)}, weight {tuple(weight)}",
        expected="lora_A [r, in], lora_B [out, r], weight " + ("[in, out]" if transposed else "[out, in]"),
        fix="download the checkpoint again",
    )
