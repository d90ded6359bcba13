"""The work that every variant is given: questions, and the sweep of 6 slots x D donors over them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thoughtgraft.edits.arm import Arm, schedule
from thoughtgraft.edits.schedule import Action, Feed
from thoughtgraft.engine.rollout import rollout
from thoughtgraft.engine.rows import Row, Source
from thoughtgraft.models.reasoner import LatentReasoner, Prompt


@dataclass(frozen=True)
class Swap:
    """One cell: the donor's thought of this slot is put into the host."""

    host: int
    donor: int
    slot: int


@dataclass(frozen=True)
class Workload:
    """Questions, their clean thoughts, and the swaps over them.

    Attributes:
        prompts: P encoded questions.
        fed: Their clean thoughts [P, K, d].
        swaps: The cells, host by host; none for clean evaluation.
        answer: Tokens that each answer may have.
        clean: The clean answers, the drafts of the swapped ones.
    """

    prompts: tuple[Prompt, ...]
    fed: Tensor
    swaps: tuple[Swap, ...]
    answer: int
    clean: tuple[tuple[int, ...], ...] | None = None

    @property
    def cells(self) -> int:
        """How many generations: the swaps, or one for each question."""
        return len(self.swaps) or len(self.prompts)


def make_workload(
    model: LatentReasoner,
    problems: int,
    donors: int,
    length: int,
    *,
    answer: int = 8,
    prompts: Sequence[Prompt] | None = None,
    spread: bool = True,
) -> Workload:
    """Seeded random questions (or these prompts), and every slot x `donors` donors for each; 0 donors: clean only."""
    rng = random.Random(f"{problems}-{length}")
    if prompts is None:
        words = model.pad_id  # the base vocabulary: pads come right behind it
        lengths = [rng.randint(2 * length // 3, 4 * length // 3) if spread else length for _ in range(problems)]
        prompts = [Prompt((*(rng.randrange(words) for _ in range(n - 1)), model.pad_id + 1)) for n in lengths]
    think = tuple([Action(Feed.CLEAN)] * model.num_latents)
    base = rollout(model, prompts, [Row(at, think) for at in range(len(prompts))], max_new_tokens=answer)
    swaps = [
        Swap(host, (host + 1 + d) % len(prompts), slot)
        for host in range(len(prompts))
        for slot in range(model.num_latents)
        for d in range(donors)
    ]
    return Workload(tuple(prompts), base.fed, tuple(swaps), answer, base.answers.token_ids)


def rows_of(model: LatentReasoner, work: Workload, hosts: Sequence[int]) -> list[Row]:
    """The engine's rows for these hosts; each names its place in `hosts`."""
    place = {host: at for at, host in enumerate(hosts)}
    if not work.swaps:
        clean = tuple([Action(Feed.CLEAN)] * model.num_latents)
        return [Row(at, clean) for at in range(len(hosts))]
    return [
        Row(place[s.host], schedule(arm := Arm("swap", (s.slot,)), model.num_latents), arm.edit, s.host, s.donor)
        for s in work.swaps
        if s.host in place
    ]


def source_of(work: Workload) -> Source:
    """The thoughts that swaps draw on."""
    return Source(work.fed, torch.empty_like(work.fed))
