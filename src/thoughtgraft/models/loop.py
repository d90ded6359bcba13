"""Loops: how thoughts are made, step by step, and which of their vectors is whose."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Maker(Protocol):
    """What a loop needs of a model. Shapes: R rows, d = d_model; ids and slots are 0-based."""

    @property
    def begin_of_thought(self) -> int:
        """The id of the token after which thoughts are made."""

    def embed_token(self, token: int, like: Tensor) -> Tensor:
        """The embedding of one id, once for each row of `like` [R, d]."""

    def project(self, hidden: Tensor, slot: int) -> Tensor:
        """`fed[slot]` [R, d] from `hidden[slot]` [R, d]."""


class Loop(ABC):
    """How K thoughts are made: K steps, each of which feeds the model one vector after the prompt.

    A loop knows nothing of attention or caches: whoever runs the model asks it what a step is fed. The vectors of a
    step and those of a slot need not be the same ones; where they are, the loop is `aligned`. What makes a vector of a
    state is the model's own (`project`): CODI and Coconut differ in that alone, so that they share one loop.

    A loop that ends by itself, or that makes several vectors in a step, is another subclass; whoever runs it must then
    know slots that a row does not have.
    """

    @property
    @abstractmethod
    def aligned(self) -> bool:
        """Whether step k is fed the thought k, and edits of slot k act there.

        Only then does position k + 1 belong to slot k, so that residual streams by position mean what they are called.
        """

    @abstractmethod
    def shown(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Those of a prompt's ids, begin-of-thought among them, that the model reads before the first step."""

    @abstractmethod
    def feed(self, model: Maker, hidden: Tensor, step: int) -> Tensor:
        """What a step is fed [R, d], if not edited, after the states `hidden` [R, d] of the position before it."""

    @abstractmethod
    def step_of(self, slot: int) -> int:
        """The step at which an edit of a slot acts; past the last step there is nothing to act on."""

    @abstractmethod
    def slot_of(self, step: int) -> int:
        """The slot whose edit acts at a step."""

    @abstractmethod
    def thoughts(
        self, model: Maker, steps: Sequence[Tensor], hidden: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """What is recorded as `fed` and `hidden`, [R, d] each.

        Args:
            model: The model.
            steps: What each of K steps was fed.
            hidden: The state at the prompt's last token, and that which each step gave, K + 1.
        """

    @abstractmethod
    def thoughts_fed(self, steps: int) -> int:
        """How many thoughts a loop of so many steps feeds to the model."""


@dataclass(frozen=True)
class OneByOne(Loop):
    """Each step is fed the thought that the state before it makes; the first follows begin-of-thought.

    `fed[k]` is made from `hidden[k]`, and step k consumes it; nothing is made of the last state, `hidden[K]`.
    Sources: CODI, `test.py`; Coconut, `coconut.py`.
    """

    @property
    def aligned(self) -> bool:
        """Step k is slot k's."""
        return True

    def shown(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The whole prompt."""
        return tuple(ids)

    def feed(self, model: Maker, hidden: Tensor, step: int) -> Tensor:
        """The thought of the state before it."""
        return model.project(hidden, step)

    def step_of(self, slot: int) -> int:
        """The slot's own."""
        return slot

    def slot_of(self, step: int) -> int:
        """The step's own."""
        return step

    def thoughts(
        self, model: Maker, steps: Sequence[Tensor], hidden: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """What the steps were fed, and every state."""
        return list(steps), list(hidden)

    def thoughts_fed(self, steps: int) -> int:
        """One a step."""
        return steps


@dataclass(frozen=True)
class BeginFirst(Loop):
    """Begin-of-thought is itself the first of the K steps, as in CoT_Exploration's code (October 2025).

    Step k > 0 is fed the thought that step k - 1 made: K - 1 thoughts are fed, and the K-th is made and consumed by
    nothing. What is recorded as `fed[k]` is the thought that step k makes, so that the states are K, not K + 1.

    Attributes:
        delay: An edit of slot k acts at step k + delay: 1 is the step that consumes the recorded vector, 0 the one
            before it.
    """

    delay: int

    @property
    def aligned(self) -> bool:
        """Step k is fed the thought k - 1."""
        return False

    def shown(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The prompt without begin-of-thought, which the first step is fed."""
        return tuple(ids[:-1])

    def feed(self, model: Maker, hidden: Tensor, step: int) -> Tensor:
        """Begin-of-thought at first, then the thought of the state before it."""
        return model.project(hidden, step) if step else model.embed_token(model.begin_of_thought, hidden)

    def step_of(self, slot: int) -> int:
        """`delay` steps later than the slot's number."""
        return slot + self.delay

    def slot_of(self, step: int) -> int:
        """`delay` less than the step's number."""
        return step - self.delay

    def thoughts(
        self, model: Maker, steps: Sequence[Tensor], hidden: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The thoughts after begin-of-thought and one that is fed to nothing, and the states that make them."""
        made = list(hidden[1:])
        return [*steps[1:], *(model.project(state, len(steps) - 1) for state in made[-1:])], made

    def thoughts_fed(self, steps: int) -> int:
        """One less than steps."""
        return max(steps - 1, 0)


ONE_BY_ONE = OneByOne()
