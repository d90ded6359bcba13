"""Checks of what must change something: a dead slot, and donors' thoughts at slots that differ between problems."""

from __future__ import annotations

from thoughtgraft.engine.verify.bench import Bench, logits_of, slot_name
from thoughtgraft.engine.verify.certificate import Check, at_least, at_most


def no_dead_slot(bench: Bench) -> Check:
    """Count the slots of which nothing reaches the output, whatever is put there."""
    dead = bench.dead_slots
    detail = f"structurally null: {names(dead)}" if dead else ""
    return at_most("no dead slot", float(len(dead)), 0, detail)


def donor_swaps(bench: Bench) -> Check:
    """Share of hosts whose logits a donor's thought changes, at the slot where it is smallest."""
    name = "donor swaps reach the logits"
    slots = [k for k in bench.live_slots if k not in bench.shared_slots]
    if not slots:
        return at_least(name, 1.0, 0.95, "no slot differs between problems: there is nothing to swap")
    # Own and donors' thoughts in the same places of the same batch, where rounding cannot tell them apart.
    own, donors = (logits_of(bench.roll(bench.every_slot(method))) for method in ("self", "swap"))
    change = (donors - own).abs().amax(1).view(len(bench.slots), -1)
    moved = (change > bench.floor).float().mean(1)[slots]
    least = int(moved.argmin())
    detail = f"least at {slot_name(slots[least])}" if float(moved[least]) < 0.95 else ""
    return at_least(name, float(moved[least]), 0.95, detail)


def notes(bench: Bench) -> list[str]:
    """What the certificate says of slots that are not like others."""
    said = []
    if bench.dead_slots:
        said.append(
            f"{names(bench.dead_slots)}: structurally null; no vector put there reaches the answer, so every effect is "
            "0 by construction"
        )
    if bench.shared_slots:
        said.append(
            f"{names(bench.shared_slots)}: carries nothing of the problem; every problem is fed the same vector, so a "
            "swap is the identity. Edits with other content "
            + ("do" if set(bench.shared_slots) <= set(bench.live_slots) else "may")
            + " reach the answer"
        )
    return said


def names(slots: tuple[int, ...]) -> str:
    """`CT0, CT3`."""
    return ", ".join(map(slot_name, slots))
