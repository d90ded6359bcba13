"""An arm spelled out slot by slot: C clean, L live, E edit, R replay (of its own slot, or Rn of slot n), - absent."""

from __future__ import annotations

import pytest

from thoughtgraft.edits.arm import Arm, schedule
from thoughtgraft.edits.schedule import Action, Feed

LETTER = {Feed.CLEAN: "C", Feed.LIVE: "L", Feed.EDIT: "E", Feed.REPLAY: "R", Feed.ABSENT: "-"}
EDITS = ("self", "swap", "mean", "zero", "noise", "shuffle")


def spelled(arm: Arm, num_latents: int = 6) -> str:
    actions = schedule(arm, num_latents)
    assert len(actions) == num_latents
    assert all((a.slot is not None) == (a.feed is Feed.REPLAY or arm.change.name == "skip") for a in actions if a.runs)
    return " ".join(LETTER[a.feed] + (str(a.slot) if a.slot is not None else "") for a in actions)


def test_baseline_runs_nothing_and_noop_everything() -> None:
    assert spelled(Arm("baseline")) == "C C C C C C"
    assert spelled(Arm("noop")) == "L L L L L L"


@pytest.mark.parametrize("method", EDITS)
@pytest.mark.parametrize(
    ("slots", "downstream", "wanted"),
    [
        ((0,), "recompute", "E L L L L L"),
        ((2,), "recompute", "C C E L L L"),
        ((5,), "recompute", "C C C C C E"),
        ((1, 4), "recompute", "C E L L E L"),
        (tuple(range(6)), "recompute", "E E E E E E"),
        ((0,), "freeze_input", "E R1 R2 R3 R4 R5"),
        ((2,), "freeze_input", "C C E R3 R4 R5"),
        ((5,), "freeze_input", "C C C C C E"),
        ((1, 4), "freeze_input", "C E R2 R3 E R5"),
        ((0,), "freeze_kv", "E C C C C C"),
        ((2,), "freeze_kv", "C C E C C C"),
        ((5,), "freeze_kv", "C C C C C E"),
        ((1, 4), "freeze_kv", "C E C C E C"),
    ],
)
def test_edits_by_slots_and_downstream_rule(method: str, slots: tuple[int, ...], downstream: str, wanted: str) -> None:
    assert spelled(Arm(method, slots, downstream)) == wanted
    assert spelled(Arm("mine", slots, downstream, op=lambda live, context: live)) == wanted


@pytest.mark.parametrize(
    ("slot", "num_latents", "wanted"),
    [
        (0, 6, "R1 L2 L3 L4 L5 -"),
        (2, 6, "C C R3 L4 L5 -"),
        (4, 6, "C C C C R5 -"),
        (5, 6, "C C C C C -"),
        (0, 1, "-"),
        (0, 2, "R1 -"),
    ],
)
def test_skip_replays_the_next_thought_once_and_then_goes_on_live(slot: int, num_latents: int, wanted: str) -> None:
    assert spelled(Arm("skip", (slot,)), num_latents) == wanted


@pytest.mark.parametrize("num_latents", [0, 1, 7])
def test_unedited_arms_exist_for_any_number_of_latents(num_latents: int) -> None:
    assert set(spelled(Arm("baseline"), num_latents)) <= {"C", " "}
    assert set(spelled(Arm("noop"), num_latents)) <= {"L", " "}


def test_only_live_edit_and_replay_compute_anything() -> None:
    runs = {feed for feed in Feed if Action(feed, 0).runs}
    assert runs == {Feed.LIVE, Feed.EDIT, Feed.REPLAY}


def test_truncate_ends_the_thoughts_before_its_slot() -> None:
    assert [spelled(Arm("truncate", (k,)), 3) for k in range(3)] == ["- - -", "C - -", "C C -"]
