"""Checks of the path that edits take: what is fed, that edits arrive, that an own thought changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thoughtgraft.edits.known import Noop, Self, Swap
from thoughtgraft.engine.verify.bench import (
    NUDGE,
    Bench,
    Call,
    after_questions,
    disturbing,
    gap,
    listening,
    logits_of,
    slot_name,
)
from thoughtgraft.engine.verify.statements import at_least, at_most, exactly
from thoughtgraft.records.certificate import Check

_SAME = 1e-4
"""Relative distance at which two vectors are the same one; copies are equal bit for bit, other thoughts far away."""


@dataclass(frozen=True)
class _Heard:
    """One vector that the model was fed, for H hosts: `vector` [H, d], and the `state` [H, d] that came out before."""

    vector: Tensor
    state: Tensor


def thoughts_fed(bench: Bench) -> Check:
    """Count the vectors between question and end of thought, in the clean path and in the one that edits take."""
    model, wanted = bench.model, bench.model.num_latents
    with listening(model) as calls:
        bench.roll(bench.rows(Noop()))
    counts, details = [], []
    for name, path in zip(("clean", "edited"), _paths(bench, calls), strict=True):
        made = [_distance(heard.vector, model.project(heard.state, k)) <= _SAME for k, heard in enumerate(path)]
        counts.append(sum(made) if len(path) == wanted else len(path))
        if len(path) != wanted:
            details.append(f"the {name} path is fed {len(path)} vectors")
        elif not all(made):
            slot = made.index(False)
            token = _token(bench, path[slot].vector)
            what = f"token {token}, not a thought" if token is not None else "not made from the state before it"
            details.append(f"in the {name} path, what is fed at {slot_name(slot)} is {what}")
    worst = max(counts, key=lambda n: abs(n - wanted))
    return exactly("thoughts fed", float(worst), wanted, "; ".join(details))


def edits_arrive(bench: Bench) -> Check:
    """Compare what a swapped slot receives with what the donor was fed there, both heard at the model's input."""
    model, donors = bench.model, torch.tensor(bench.donors, device=bench.model.device)
    worst, detail = 0.0, ""
    for slot in bench.slots:
        with listening(model) as calls:
            bench.roll(bench.rows(Swap(), slot))
        clean, edited = _paths(bench, calls)
        if not edited:
            return at_most("edits arrive", torch.inf, _SAME, f"an edit of {slot_name(slot)} is never fed to the model")
        step = len(clean) - len(edited)
        if step < 0:
            return at_most("edits arrive", torch.inf, _SAME, "the clean path was not run for these problems")
        distances = [_distance(edited[0].vector, clean[step].vector[donors])]
        distances += [
            _distance(after.vector, model.project(after.state, k)) for k, after in enumerate(edited[1:], start=step + 1)
        ]
        if max(distances) <= worst:
            continue
        worst = max(distances)
        if distances[0] > _SAME:
            detail = f"an edit of {slot_name(slot)} feeds {_recognise(edited[0].vector, clean, step, donors)}"
        elif worst > _SAME:
            detail = f"what follows an edit of {slot_name(slot)} is not made from the edited state"
    return at_most("edits arrive", worst, _SAME, detail)


def _paths(bench: Bench, calls: Sequence[Call]) -> tuple[list[_Heard], list[_Heard]]:
    """The vectors fed to the hosts between question and end of thought: in the clean path, and in the forked one."""
    model = bench.model
    end = model.embed(torch.tensor([model.end_of_thought], device=model.device))
    state, rest = after_questions(calls, len(bench.prompts))
    paths: tuple[list[_Heard], list[_Heard]] = ([], [])
    states = [state, state]
    for call in rest:
        if not call.one or _distance(call.embeds[:, 0], end.expand_as(call.embeds[:, 0])) == 0:
            break
        which = int(call.forked)
        paths[which].append(_Heard(call.embeds[:, 0], states[which]))
        states[which] = call.states[:, 0]
    return paths


def _distance(a: Tensor, b: Tensor) -> float:
    """Largest distance of rows [n, d], relative to the norm of `b`; infinite if undefined."""
    found = ((a - b).norm(dim=-1) / b.norm(dim=-1).clamp_min(torch.finfo(b.dtype).tiny)).max()
    return float(torch.where(found.isnan(), torch.inf, found))


def _token(bench: Bench, vectors: Tensor) -> int | None:
    """The id whose embedding the first of these vectors is."""
    table = bench.model.lm.get_input_embeddings().weight
    same = ((table - vectors[:1]).abs().amax(-1) == 0).nonzero().flatten().tolist()
    return int(same[0]) if same else None


def _recognise(received: Tensor, clean: Sequence[_Heard], step: int, donors: Tensor) -> str:
    """What was fed at a step of the latent loop, in words, where it is not the donor's vector of that step."""
    known = {"the host's own vector, as if nothing were edited": clean[step].vector}
    known |= {f"what the donor is fed {_away(k - step)}": heard.vector[donors] for k, heard in enumerate(clean)}
    known |= {f"what the host is fed {_away(k - step)}": heard.vector for k, heard in enumerate(clean)}
    known["the donor's state without the projection"] = clean[step].state[donors]
    known["zeros"] = torch.zeros_like(received)
    for name, vectors in known.items():
        if float((received - vectors).norm()) <= _SAME * float(received.norm().clamp_min(1.0)):
            return name
    return "something else than the donor's thought"


def _away(steps: int) -> str:
    """How far another step of the latent loop lies."""
    return f"{abs(steps)} step{'s' * (abs(steps) > 1)} {'later' if steps > 0 else 'earlier'}"


def null_edit(bench: Bench) -> Check:
    """Every slot through the edit path, with no edit."""
    return at_most("null edit", gap(logits_of(bench.roll(bench.rows(Noop()))), bench.logits), bench.bound)


def self_swap(bench: Bench) -> Check:
    """Every slot's own saved thought, put back by the path that every edit takes."""
    moved = bench.by_slot(bench.roll(bench.every_slot(Self()))).amax(1)
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
    rows = [replace(row, problem=row.donor) for row in bench.rows(Swap(), *bench.slots) if row.donor is not None]
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
        bench.roll(bench.rows(Self(), slot))
    _, rest = after_questions(calls, len(bench.prompts))
    clean = [call.keys_values for call in rest if call.one and not call.forked]
    edited = [call.keys_values for call in rest if call.one and call.forked]
    # After the thoughts come the end of thought and the answer, which are forked too.
    last = max(len(clean) - bench.model.loop.step_of(slot), 0)
    return clean, edited[:last]


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
    own, donors = (logits_of(bench.roll(bench.every_slot(change))) for change in (Self(), Swap()))
    change = (donors - own).abs().amax(1).view(len(bench.slots), -1)
    moved = (change > bench.floor).float().mean(1)[slots]
    least = int(moved.argmin())
    detail = f"least at {slot_name(slots[least])}" if float(moved[least]) < 0.95 else ""
    return at_least(name, float(moved[least]), 0.95, detail)


def notes(bench: Bench) -> list[str]:
    """What the certificate says of slots that are not like others."""
    said = []
    if not bench.model.num_latents:
        said.append(f"no slot to edit: {bench.model.without_thoughts}; checks of edits do not apply")
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
