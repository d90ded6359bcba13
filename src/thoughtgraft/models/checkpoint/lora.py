"""LoRA weights: how strongly they act, and their exact merge into the matrix that they adapt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from thoughtgraft.errors import CheckpointError


@dataclass(frozen=True)
class LoraScale:
    """What the product of a LoRA pair is multiplied by; the pairs themselves do not tell.

    Attributes:
        alpha: LoRA's alpha.
        rank_stabilised: Whether alpha is divided by the root of the rank (rsLoRA) instead of the rank.
        others: Modules with an alpha of their own: the end of the module's name, and that alpha.
    """

    alpha: float = 32.0
    rank_stabilised: bool = False
    others: tuple[tuple[str, float], ...] = ()

    def of(self, module: str, rank: int) -> float:
        """The factor of the pair of `module`, whose rank is `rank`.

        Source: Hu et al. 2021, equation 3; Kalajdzievski 2023 (arXiv 2312.03732) for the root.
        """
        alpha = next((a for end, a in self.others if f".{module}".endswith(f".{end}")), self.alpha)
        return alpha / (rank**0.5 if self.rank_stabilised else rank)

    def __str__(self) -> str:
        parts = [f"{self.alpha:g}", *(f"{alpha:g} for {end}" for end, alpha in self.others)]
        return ", ".join(parts) + (", rank-stabilised" if self.rank_stabilised else "")


def merge_lora(
    weight: torch.Tensor, lora_a: torch.Tensor, lora_b: torch.Tensor, *, scale: float, transposed: bool, name: str
) -> torch.Tensor:
    """Returns `weight + scale * B @ A` in float32, correctly rounded.

    The product is taken in float64 and rounded once: the result then depends neither on the number of threads nor on
    the float32 matmul precision (TF32, bf16) that a notebook may have switched on.

    Args:
        weight: The base matrix: [out, in] of a Linear, [in, out] of GPT-2's Conv1D.
        lora_a: `lora_A`, [r, in].
        lora_b: `lora_B`, [out, r].
        scale: The factor of the pair, from `LoraScale`.
        transposed: Whether `weight` is stored [in, out] (Conv1D).
        name: The weight's name, for the error.

    Raises:
        CheckpointError: The three shapes do not fit each other.

    Source: Hu et al. 2021, "LoRA", equation 3; `peft`'s `fan_in_fan_out` for Conv1D.
    """
    check_shapes(weight.shape, lora_a.shape, lora_b.shape, transposed=transposed, name=name)
    a, b = lora_a.double(), lora_b.double() * scale
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
