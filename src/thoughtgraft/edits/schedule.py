"""What each slot of an edited run is fed, slot by slot: clean, live, edited, replayed or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, get_args

After = Literal["recompute", "freeze_input", "freeze_kv"]
"""What the unedited slots after the first edited one receive: a thought computed anew; their own clean vector again;
or nothing, their clean keys and values standing there."""
AFTER: tuple[After, ...] = get_args(After)


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


Actions = tuple[Action, ...]
CLEAN, LIVE, EDIT, ABSENT = (Action(feed) for feed in (Feed.CLEAN, Feed.LIVE, Feed.EDIT, Feed.ABSENT))

_AFTER: dict[After, Callable[[int], Action]] = {
    "recompute": lambda k: LIVE,
    "freeze_input": lambda k: Action(Feed.REPLAY, k),
    "freeze_kv": lambda k: CLEAN,
}


def edited(steps: Sequence[int], num_latents: int, after: After) -> Actions:
    """Everything is clean before the first edited step; unedited ones after it are fed by the rule `after`.

    Args:
        steps: The steps that are edited, at least one.
        num_latents: Steps of the latent loop, K.
        after: The rule.
    """
    rule = _AFTER[after]
    return tuple(CLEAN if k < steps[0] else EDIT if k in steps else rule(k) for k in range(num_latents))


def without(step: int, num_latents: int) -> Actions:
    """One step is left out: the next clean vector is replayed one position earlier, then the row goes on live.

    The row is one thought short.
    """
    middle = [Action(Feed.REPLAY, step + 1)] if step + 1 < num_latents else []
    live = [Action(Feed.LIVE, k + 1) for k in range(step + len(middle), num_latents - 1)]
    return (*[CLEAN] * step, *middle, *live, ABSENT)


def cut_before(step: int, num_latents: int) -> Actions:
    """The thoughts end before a step: so many are fed."""
    return tuple(CLEAN if k < step else ABSENT for k in range(num_latents))
