"""The resampling study: swap each continuous thought for a donor's, beside every ablation, and see what it does."""

from __future__ import annotations

from dataclasses import dataclass

from thoughtgraft.errors import PlanError
from thoughtgraft.interventions.plan import Arm, Plan


@dataclass(frozen=True)
class Preset:
    """How large a study is.

    Attributes:
        n_hosts: Problems; each is a host and may be a donor.
        n_donors: Donors of each host.
        first: Where the block begins in the seeded permutation of the split.
        full: Whether cumulative and frozen arms run as well.
    """

    n_hosts: int
    n_donors: int
    first: int = 0
    full: bool = True


PRESETS = {
    "demo": Preset(100, 10, full=False),
    "pilot": Preset(20, 5),
    "full": Preset(100, 10, first=20),
}
"""Pilot = positions 0..19 of the permutation, full = positions 20..119: they share no problem."""

_ABLATIONS = ("mean", "zero", "skip")


def resampling_plan(num_latents: int, n_donors: int, seed: int, *, full: bool = True) -> Plan:
    """The plan of the study.

    Args:
        num_latents: Thoughts that the model is fed, K >= 1.
        n_donors: Donors of each host, D.
        seed: Seeds donors and random edits.
        full: Also the cumulative doses (0..k and k..K-1), noise, shuffle and both freezes.

    Raises:
        PlanError: The model is fed no thought.
    """
    if num_latents == 0:
        raise PlanError("the model is fed no thought, so there is nothing to swap", fix="use num_latents of 1 or more")
    slots = range(num_latents)
    every = tuple(slots)
    arms = [Arm("baseline"), Arm("noop")]
    arms += [Arm(method, (k,)) for method in ("self", "swap", *_ABLATIONS) for k in slots]
    if num_latents > 1:
        arms += [Arm(method, every) for method in ("self", "swap", "mean", "zero")]
    if full:
        doses = [every[: k + 1] for k in slots if 0 < k < num_latents - 1]
        doses += [every[k:] for k in slots if 0 < k < num_latents - 1]
        arms += [Arm("swap", dose) for dose in doses]
        arms += [
            Arm(method, (k,)) for method in ("noise", "shuffle") for k in slots if num_latents > 1 or method == "noise"
        ]
        arms += [Arm("swap", (k,), rule) for rule in ("freeze_input", "freeze_kv") for k in slots]
    return Plan(tuple(arms), n_donors=n_donors, seed=seed)
