"""The resampling study: arms and sizes of its presets."""

from __future__ import annotations

from dataclasses import dataclass

from thoughtgraft.edits.arms import STRATA, Arm
from thoughtgraft.edits.plan import Plan
from thoughtgraft.errors import PlanError


@dataclass(frozen=True)
class Preset:
    """How large a study is.

    Attributes:
        n_hosts: Problems; each is a host and may be a donor.
        n_donors: Donors of each host.
        first: Where the block begins in the seeded permutation of the split.
        full: Whether the whole design runs, or its core.
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

_WHOLE = ("self", "swap", "mean", "zero", "noise", "shuffle")
_FREEZES = ("freeze_input", "freeze_kv")
_FROZEN = ("swap", "mean", "zero")


def resampling_plan(num_latents: int, n_donors: int, seed: int, *, full: bool = True, hosts: int | None = None) -> Plan:
    """The plan of the study.

    The core: baseline, noop, and self, swap, mean, zero, skip at every slot, the first four also at all slots. The
    full design adds noise and shuffle, every method at 0..k and k..K-1, both freezes of swap, mean and zero at single
    slots (after all slots nothing follows that could be frozen), and swaps of the other donor strata at single slots
    and all.

    Args:
        num_latents: Thoughts that the model is fed, K >= 1.
        n_donors: Donors of each host, D.
        seed: Seeds donors and random edits.
        full: The full design, or the core.
        hosts: Only the first so many problems are hosts.

    Raises:
        PlanError: The model is fed no thought.
    """
    if num_latents == 0:
        raise PlanError("the model is fed no thought, so there is nothing to swap", fix="use num_latents of 1 or more")
    every = tuple(range(num_latents))
    single = [(k,) for k in every]
    whole = [every] if num_latents > 1 else []
    doses = [every[: k + 1] for k in every[1:-1]] + [every[k:] for k in every[1:-1]]
    arms = [Arm("baseline"), Arm("noop")]
    if not full:
        arms += [Arm(method, slots) for method in ("self", "swap", "mean", "zero", "skip") for slots in single]
        arms += [Arm(method, slots) for method in ("self", "swap", "mean", "zero") for slots in whole]
        return Plan(tuple(arms), n_donors=n_donors, seed=seed, hosts=hosts)
    # With one slot, there is no other to shuffle from.
    methods = [method for method in _WHOLE if method != "shuffle" or num_latents > 1]
    arms += [Arm(method, slots) for method in methods for slots in (*single, *doses, *whole)]
    arms += [Arm("skip", slots) for slots in single]
    arms += [Arm(method, slots, freeze) for method in _FROZEN for freeze in _FREEZES for slots in single]
    strata = [name for name in STRATA if name != "random"]
    arms += [Arm("swap", slots, stratum=name) for name in strata for slots in (*single, *whole)]
    return Plan(tuple(arms), n_donors=n_donors, seed=seed, hosts=hosts)
