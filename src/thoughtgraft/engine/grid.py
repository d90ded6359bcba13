"""How a batch's rows lie: V variants of each of P problems, variant-major, so that alive rows are contiguous."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thoughtgraft.interventions.ops import Op
from thoughtgraft.interventions.schedule import Action, Feed


@dataclass(frozen=True)
class Row:
    """One generation that the engine is asked for.

    Attributes:
        problem: 0-based index into the batch's prompts.
        actions: What each slot is fed.
        op: The edit of EDIT slots.
        layer: The 0-based block after which the op edits the residual stream at EDIT slots, which are then fed their
            live vector; None: the op edits what the slots are fed.
        host: Index of the host into the source thoughts.
        donor: Index of the donor into the source thoughts, if any.
        key: The cell's key, which seeds random edits.
        donor_tail: The donor's number and the end of sequence as tokens, to be scored; empty for none.
    """

    problem: int
    actions: tuple[Action, ...]
    op: Op | None = None
    host: int = 0
    donor: int | None = None
    key: str = ""
    donor_tail: tuple[int, ...] = ()
    layer: int | None = None

    @property
    def first_run(self) -> int:
        """The first slot at which the row computes anything; K if none."""
        return next((t for t, a in enumerate(self.actions) if a.runs), len(self.actions))


class Grid:
    """Places rows at `variant * P + problem`; places without a row repeat the clean run and are ignored.

    With `with_clean`, the last variant of every problem is such a clean run.

    Attributes:
        order: For each place, the index of its row, or -1.
        rows: For each place, its row.
        filled: Whether each place answers for a row [V*P].
        runs: Whether each place computes anything at a slot [V*P, K], on the CPU.
        own: Whether the place's own keys and values stand at a slot [V*P, K]; else the clean run's may.
        seen: Whether the clean run's keys and values are seen at a slot [V*P, K].
        thoughts: How many thoughts each place is fed [V*P].
        ahead: Whether the thought that a place makes at a step is the next slot's, one having been left out [V*P, K],
            on the CPU.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        n_problems: int,
        num_latents: int,
        device: torch.device,
        *,
        with_clean: bool = False,
    ) -> None:
        by_problem: list[list[int]] = [[] for _ in range(n_problems)]
        for index in sorted(range(len(rows)), key=lambda i: rows[i].first_run):
            by_problem[rows[index].problem].append(index)
        self.n_problems, self.n_variants = n_problems, max(1, *map(len, by_problem)) + with_clean
        idle = Row(0, (Action(Feed.CLEAN),) * num_latents)
        self.order = [group[v] if v < len(group) else -1 for v in range(self.n_variants) for group in by_problem]
        self.rows = [rows[i] if i >= 0 else idle for i in self.order]

        self.filled = torch.tensor([i >= 0 for i in self.order], device=device)

        def table(test: set[Feed]) -> Tensor:
            flags = [[action.feed in test for action in row.actions] for row in self.rows]
            return torch.tensor(flags, dtype=torch.bool).view(len(self.rows), num_latents)

        ahead = [[a.feed is Feed.LIVE and a.due(k) > k for k, a in enumerate(row.actions)] for row in self.rows]
        self.ahead = torch.tensor(ahead, dtype=torch.bool).view(len(self.rows), num_latents)
        self.runs = table({Feed.LIVE, Feed.EDIT, Feed.REPLAY})
        self.own = self.runs.to(device)
        self.seen = table({Feed.CLEAN}).to(device)
        self.thoughts = num_latents - table({Feed.ABSENT}).sum(1).to(device)

    def clean_place(self) -> Tensor:
        """For each place, one of its problem that is not edited: the last variant, if made `with_clean` [V*P]."""
        last = (self.n_variants - 1) * self.n_problems
        return (last + torch.arange(self.n_problems, device=self.own.device)).repeat(self.n_variants)

    def places(self, n_rows: int) -> Tensor:
        """The place of each row [n_rows], on the CPU."""
        places = torch.empty(n_rows, dtype=torch.long)
        for place, index in enumerate(self.order):
            if index >= 0:
                places[index] = place
        return places

    def problem_of(self, device: torch.device) -> Tensor:
        """Each place's problem [V*P]."""
        return torch.arange(self.n_problems, device=device).repeat(self.n_variants)

    def active(self, slot: int) -> Tensor | None:
        """Places of all variants in which some place runs at `slot`; None if there is none."""
        variants = self.runs[:, slot].view(self.n_variants, self.n_problems).any(1).nonzero().flatten()
        if len(variants) == 0:
            return None
        return (variants[:, None] * self.n_problems + torch.arange(self.n_problems)).flatten()
