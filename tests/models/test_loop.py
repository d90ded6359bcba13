"""Loops: which ids stand before the first step, what steps are fed, whose edit acts where, and what is recorded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from thoughtgraft.models.loop import ONE_BY_ONE, BeginFirst, Loop
from thoughtgraft.models.protocols import PROTOCOLS

EARLY, LATE = BeginFirst(delay=0), BeginFirst(delay=1)
EVERY = pytest.mark.parametrize("loop", [ONE_BY_ONE, EARLY, LATE])
K = 4


class Counting:
    """A thought is its state plus 100 times one more than the slot; a step gives one more than it is fed."""

    begin_of_thought = 7

    def embed_token(self, token: int, like: Tensor) -> Tensor:
        return torch.full_like(like, token)

    def project(self, hidden: Tensor, slot: int) -> Tensor:
        return hidden + 100 * (slot + 1)


def run(loop: Loop) -> tuple[list[float], list[Tensor], list[Tensor]]:
    """What K steps are fed after a state of 1, and the thoughts and states that are recorded."""
    steps, hidden = list[Tensor](), [torch.ones(1, 1)]
    for step in range(K):
        steps.append(loop.feed(Counting(), hidden[-1], step))
        hidden.append(steps[-1] + 1)
    return [float(x) for x in steps], *loop.thoughts(Counting(), steps, hidden)


def test_one_by_one_is_fed_a_thought_of_each_state_but_the_last() -> None:
    steps, fed, hidden = run(ONE_BY_ONE)
    assert steps == [101, 302, 603, 1004]
    assert [float(x) for x in fed] == steps
    assert [float(x) for x in hidden] == [1, 102, 303, 604, 1005]
    assert ONE_BY_ONE.shown([5, 6, 7]) == (5, 6, 7)
    assert ONE_BY_ONE.aligned and ONE_BY_ONE.thoughts_fed(K) == K


@pytest.mark.parametrize("loop", [EARLY, LATE])
def test_where_begin_of_thought_is_a_step_the_last_thought_is_made_and_never_fed(loop: BeginFirst) -> None:
    steps, fed, hidden = run(loop)
    assert steps == [7, 208, 509, 910]
    assert [float(x) for x in hidden] == [8, 209, 510, 911]
    assert [float(x) for x in fed] == [208, 509, 910, 1311]
    assert loop.shown([5, 6, 7]) == (5, 6)
    assert not loop.aligned
    assert (loop.thoughts_fed(K), loop.thoughts_fed(0)) == (K - 1, 0)
    assert loop.thoughts(Counting(), [], [torch.ones(1, 1)]) == ([], [])


@EVERY
def test_a_step_is_that_of_the_slot_whose_edit_acts_there(loop: Loop) -> None:
    assert [loop.slot_of(loop.step_of(slot)) for slot in range(K)] == list(range(K))
    assert loop.step_of(K - 1) == (K if loop is LATE else K - 1), "past the last step nothing can be edited"


def test_protocols_name_their_loop_or_leave_it_to_the_model() -> None:
    named = {name: protocol.loop for name, protocol in PROTOCOLS.items() if protocol.loop is not None}
    assert named == {"cot-exploration-original": LATE, "cot-exploration-fixed": EARLY}
