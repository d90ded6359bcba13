"""What each slot of one cell is fed: an arm spelled out slot by slot, so that one loop can run them all."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from thoughtgraft.interventions.arms import Arm


class Feed(Enum):
    """Where the vector at a slot comes from.

    CLEAN: nothing runs; the clean run's keys and values stand there.
    LIVE: what the row itself computes, `project` of its latest hidden state.
    EDIT: the arm's edit of the live vector.
    REPLAY: the host's clean `fed` of some slot, run again on this row.
    ABSENT: nothing is fed and nothing stands there.
    """

    CLEAN = "clean"
    LIVE = "live"
    EDIT = "edit"
    REPLAY = "replay"
    ABSENT = "absent"


@dataclass(frozen=True)
class Action:
    """The feed at one step; `slot` is the clean slot that a REPLAY repeats, or whose thought is due after a skip."""

    feed: Feed
    slot: int | None = None

    def due(self, step: int) -> int:
        """The slot whose thought a LIVE step makes: its own, or a later one where a slot was left out."""
        return step if self.slot is None else self.slot

    @property
    def runs(self) -> bool:
        """Whether the row computes anything at this slot."""
        return self.feed in (Feed.LIVE, Feed.EDIT, Feed.REPLAY)


_CLEAN, _LIVE, _EDIT, _ABSENT = (Action(f) for f in (Feed.CLEAN, Feed.LIVE, Feed.EDIT, Feed.ABSENT))


def schedule(arm: Arm, num_latents: int, delay: int = 0) -> tuple[Action, ...]:
    """One action for each of the K slots.

    Before the first edited slot everything is clean. Unedited slots after it are LIVE (`recompute`),
    REPLAY of their own clean vector (`freeze_input`), or CLEAN keys and values (`freeze_kv`).
    `noop` runs every slot live. `skip` of slot k replays clean `fed[k + 1]` one position earlier, then goes
    on live, and is one thought short. `truncate` at slot k ends the thoughts before it: k are fed.

    Args:
        arm: The condition.
        num_latents: Steps of the latent loop, K.
        delay: An edit of slot k acts at step k + delay, as the protocol has it; past the last step nothing is edited.
    """
    edited = [k + delay for k in arm.slots if k + delay < num_latents]
    if arm.method == "noop":
        return (_LIVE,) * num_latents
    if not edited:
        return (_CLEAN,) * num_latents
    first = edited[0]
    if arm.method == "skip":
        middle = [Action(Feed.REPLAY, first + 1)] if first + 1 < num_latents else []
        live = [Action(Feed.LIVE, k + 1) for k in range(first + len(middle), num_latents - 1)]
        return (*[_CLEAN] * first, *middle, *live, _ABSENT)
    if arm.method == "truncate":
        return tuple(_CLEAN if k < first else _ABSENT for k in range(num_latents))
    after = {
        "recompute": lambda k: _LIVE,
        "freeze_input": lambda k: Action(Feed.REPLAY, k),
        "freeze_kv": lambda k: _CLEAN,
    }
    rule = after[arm.downstream]
    return tuple(_CLEAN if k < first else _EDIT if k in edited else rule(k) for k in range(num_latents))
