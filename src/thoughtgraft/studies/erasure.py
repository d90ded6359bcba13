"""The erasure study: take a label's directions out of the residual stream, and random ones; do the answers change?

Directions are fitted on one half of the problems and taken out on the other, at each slot and at all of them together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from thoughtgraft.analysis.erased import Condition
from thoughtgraft.arguments import shown, typed_number
from thoughtgraft.errors import PlanError
from thoughtgraft.interventions.arms import Arm
from thoughtgraft.interventions.plan import Plan
from thoughtgraft.interventions.site import Resid

DRAWS = 20
"""Random draws. Fewer than 19 cannot reach 5% as a rank among them."""

MakeOp = Callable[[int, tuple[int, ...], int | None], Callable[..., Any]]
"""`make_op(layer, slots, draw)`: the edit that erases the label (draw None), or the numbered random one."""


@dataclass(frozen=True)
class ErasurePlan:
    """The plan, the sets of slots that are edited, and what each recorded method means."""

    plan: Plan
    slot_sets: tuple[tuple[int, ...], ...]
    conditions: dict[str, Condition]


def slot_sets(asked: str | None, num_latents: int) -> tuple[tuple[int, ...], ...]:
    """The sets of slots to edit: each slot asked for (`0,2`; None or `each`: every one), then all of those together.

    Raises:
        PlanError: There is no such slot.
    """
    names = [str(k) for k in range(num_latents)] if asked in (None, "each") else str(asked).replace(" ", "").split(",")
    for name in names:
        if (slot := typed_number(name)) is None or slot >= num_latents:
            raise PlanError(
                "the model has no such slot", got=shown(name), expected=f"each, or numbers in 0..{num_latents - 1}"
            )
    slots = sorted({int(name) for name in names})
    return (*((k,) for k in slots), *([tuple(slots)] if len(slots) > 1 else []))


def erasure_plan(
    layers: Sequence[int], sets: Sequence[tuple[int, ...]], make_op: MakeOp, *, draws: int = DRAWS, seed: int = 0
) -> ErasurePlan:
    """Baseline, and at each layer and set of slots the erasure and so many random edits of its rank and size."""
    arms, conditions = [Arm("baseline")], {}
    for layer in layers:
        for slots in sets:
            for draw in (None, *range(draws)):
                method = "erase" if draw is None else f"random {draw}"
                arm = Arm(method, slots, op=make_op(layer, slots, draw), site=Resid(layer))
                conditions[arm.name] = Condition(layer, draw)
                arms.append(arm)
    return ErasurePlan(Plan(tuple(arms), seed=seed), tuple(sets), conditions)


def halves(texts: Sequence[str], labels: Sequence[str], seed: int) -> tuple[list[int], list[int]]:
    """Row numbers of the problems to fit on and of those to edit: half of each class, by a seeded hash of the text.

    Problems with one text are on one side, so that nothing is edited that was fitted on.
    """
    fit: list[int] = []
    for label in sorted(set(labels)):
        rows = [i for i, name in enumerate(labels) if name == label]
        order = sorted({texts[i] for i in rows}, key=lambda text: hashlib.sha256(f"{seed} {text}".encode()).digest())
        chosen = set(order[: (len(order) + 1) // 2])
        fit += [i for i in rows if texts[i] in chosen]
    taken = {texts[i] for i in fit}
    return sorted(fit), [i for i, text in enumerate(texts) if text not in taken]
