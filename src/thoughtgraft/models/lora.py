"""Merges LoRA weights into the matrix that they adapt, exactly."""

from __future__ import annotations

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
    rank, shape = lora_a.shape[0], (lora_b.shape[0], lora_a.shape[-1])
    expected = shape[::-1] if transposed else shape
    if lora_b.shape[-1] != rank or tuple(weight.shape) != expected:
        raise CheckpointError(
            f"the LoRA weights of {name} do not fit it",
            got=f"lora_A {tuple(lora_a.shape)}, lora_B {tuple(lora_b.shape)}, weight {tuple(weight.shape)}",
            expected="lora_A [r, in], lora_B [out, r], weight " + ("[in, out]" if transposed else "[out, in]"),
            fix="download the checkpoint again",
        )
    a, b = lora_a.double(), lora_b.double() * (alpha / rank)
    # For Conv1D the transposed product is taken directly: adding a transposed view is several times slower.
    return (a.T @ b.T if transposed else b @ a).add_(weight).float()
