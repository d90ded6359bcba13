"""Checks of what must change nothing: no edit, a problem's own thought, a donor moved with its question."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from thoughtgraft.engine.verify.bench import NUDGE, Bench, gap, logits_of, slot_name
from thoughtgraft.engine.verify.certificate import Check, at_least, at_most
from thoughtgraft.engine.verify.listen import after_questions, disturbing, listening


def null_edit(bench: Bench) -> Check:
    """Every slot through the edit path, with no edit."""
    return at_most("null edit", gap(logits_of(bench.roll(bench.rows("noop"))), bench.logits), bench.bound)


def self_swap(bench: Bench) -> Check:
    """Every slot's own saved thought, put back by the path that every edit takes."""
    moved = bench.by_slot(bench.roll(bench.every_slot("self"))).amax(1)
    worst = int(moved.argmax())
    detail = f"most at {slot_name(worst)}" if float(moved[worst]) > bench.bound else ""
    return at_most("self-swap identity", float(moved[worst]), bench.bound, detail)


def can_fail(bench: Bench) -> Check:
    """The same with a small error; seen at every slot that is not dead."""
    if not bench.live_slots:
        return at_least("the checks can fail", 0.0, bench.bound, "no slot reaches the output")
    moved = bench.nudged.amax(1)[list(bench.live_slots)]
    least = int(moved.argmin())
    detail = f"least at {slot_name(bench.live_slots[least])}, {NUDGE:g} of the thought's norm"
    return at_least("the checks can fail", float(moved[least]), bench.bound, detail)


def transplant(bench: Bench) -> Check:
    """The host's row on the donor's question, with every slot swapped for the donor's thought."""
    rows = [replace(row, problem=row.donor) for row in bench.rows("swap", *bench.slots) if row.donor is not None]
    return at_most("transplant", gap(logits_of(bench.roll(rows)), bench.logits[bench.donors]), bench.bound)


def self_swap_keys_values(bench: Bench) -> Check:
    """Keys and values at the edited slot and after it, in every layer, after a self-swap."""
    worst, bound, detail = 0.0, 0.0, ""
    with disturbing(bench.model, bench.touch):
        touched, _ = _keys_values(bench, 0)
    for slot in bench.slots:
        clean, edited = _keys_values(bench, slot)
        ahead = len(clean) - len(edited)
        for step, (a, b) in enumerate(zip(clean[ahead:], edited, strict=True), start=ahead):
            bound = max(bound, *(bench.rounding(x, y) for x, y in zip(a, touched[step], strict=True)))
            if (found := max(map(gap, a, b))) > worst:
                worst, detail = found, f"most at {slot_name(step)} after a self-swap of {slot_name(slot)}"
    return at_most("self-swap identity of keys and values", worst, bound, detail if worst > bound else "")


def _keys_values(bench: Bench, slot: int) -> tuple[list[tuple[Tensor, ...]], list[tuple[Tensor, ...]]]:
    """What every layer wrote at each step of the clean path, and from the edited step on in that of a self-swap."""
    with listening(bench.model, keys_values=True) as calls:
        bench.roll(bench.rows("self", slot))
    _, rest = after_questions(calls, len(bench.prompts))
    clean = [call.keys_values for call in rest if call.one and not call.forked]
    edited = [call.keys_values for call in rest if call.one and call.forked]
    # After the thoughts come the end of thought and the answer, which are forked too.
    last = max(len(clean) - slot - bench.model.protocol.edit_delay, 0)
    return clean, edited[:last]
