"""The drift study: one plan under several protocols."""

from __future__ import annotations

from thoughtgraft.edits.arm import Arm
from thoughtgraft.edits.plan import Plan
from thoughtgraft.errors import PlanError

STANDARD = "official"
PROTOCOLS = (STANDARD, "cot-exploration-original", "cot-exploration-fixed")
"""What is compared unless said otherwise; the first is what the others are measured against."""


def drift_plan(num_latents: int, n_donors: int, seed: int) -> Plan:
    """Baseline and noop; self and swap at every slot and at all of them.

    Swap is what the procedures report. Self is the check that tells whether they report what they say: a problem's own
    thought, put back, may change nothing.

    Args:
        num_latents: Slots, K >= 1.
        n_donors: Donors of each host, D.
        seed: Seeds the donors.

    Raises:
        PlanError: There is no slot.
    """
    if num_latents == 0:
        raise PlanError("the model is fed no thought, so there is nothing to swap", fix="use num_latents of 1 or more")
    every = tuple(range(num_latents))
    slots = [*((k,) for k in every), *([every] if num_latents > 1 else [])]
    arms = [Arm("baseline"), Arm("noop"), *(Arm(method, s) for method in ("self", "swap") for s in slots)]
    return Plan(tuple(arms), n_donors=n_donors, seed=seed)
