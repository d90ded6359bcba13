"""Checks at the model's input: how many thoughts it is fed, made from what, and whether edits arrive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thoughtgraft.engine.verify.bench import Bench, slot_name
from thoughtgraft.engine.verify.certificate import Check, at_most, exactly
from thoughtgraft.engine.verify.listen import Call, after_questions, listening

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
        bench.roll(bench.rows("noop"))
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
            bench.roll(bench.rows("swap", slot))
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
