"""What every record of a run must say, made from the definitions and nothing that made the records.

The plain loop (`oracle`) is fed what the arms' definitions (`planned`) say, slot by slot; answers are read, and numbers
written as tokens, by `reading`. The package's edits are computed anew here. Those of one's own are called, on a context
that is made here: what they do is their own definition.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from thoughtgraft.edits.context import EditContext, Taken
from thoughtgraft.edits.edit import Edit
from thoughtgraft.edits.known import Mean, Noise, Self, Shuffle, Swap, Zero
from thoughtgraft.edits.site import Kind
from thoughtgraft.engine.verify.bench import gap
from thoughtgraft.engine.verify.oracle import Clean, Strip, ask, editing_streams, never_written, think, touched
from thoughtgraft.engine.verify.planned import Wanted, program
from thoughtgraft.engine.verify.reading import Words, last_number, written
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.tasks.problem import ProblemSet

_ROWS, _BYTES = 128, 1 << 29  # that run at once, and of their keys and values

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Answer:
    """What a record says was written, and whether by its own end."""

    ids: tuple[int, ...]
    stopped: bool


@dataclass
class Measured:
    """The numbers of one generation.

    Attributes:
        first_logits: Of the first answer token [V].
        chosen: The logits of the tokens that the record says were written, its end included.
        best: The highest logit that was allowed, at each of these.
        columns: Log-probabilities, divergence, norm and cosine by the record's column; None where undefined.
        terms: The most tokens whose log-probabilities one of them sums.
        failed: What went wrong in the edit, if anything.
    """

    first_logits: Tensor
    chosen: Tensor
    best: Tensor
    columns: dict[str, float | None] = field(default_factory=dict)
    terms: int = 1
    failed: str | None = None

    @property
    def shortfall(self) -> float:
        """The largest distance of a token that was written from the best one allowed."""
        return gap(self.best, self.chosen) if len(self.best) else 0.0


class Oracle:
    """A model on N problems, unedited, and any generation that edits them.

    Args:
        model: The model, under the library's own attention.
        problems: The problems.
        answers: The clean answers, which drafts and scores rest on.
        touch: A relative error of every question's embeddings, and of every vector that is fed.
    """

    def __init__(
        self, model: LatentReasoner, problems: ProblemSet, answers: Sequence[Answer], touch: float = 0.0
    ) -> None:
        self.model, self.problems, self.answers, self.touch = model, problems, answers, touch
        self.asked = ask(model, [problem.question for problem in problems])
        self.clean: list[Clean] = [think(model, asked, touch) for asked in self.asked]
        self.fed = torch.stack([clean.fed for clean in self.clean])
        self.words, self.forbidden = Words(model.tokenizer, model.decoding.ends[0]), never_written(model)

    def on(self, model: LatentReasoner, fed: Tensor) -> Oracle:
        """The same with a model that unembeds otherwise and `fed` [N, K, d] for edits to draw on; nothing is scored."""
        other = copy(self)
        other.model, other.fed, other.answers = model, fed, [Answer((), False)] * len(self.problems)
        return other

    # What is known of a problem before anything is edited.

    @cached_property
    def numbers(self) -> list[Fraction | None]:
        """The number in each clean answer."""
        return [self._number(answer.ids) for answer in self.answers]

    def _number(self, ids: Sequence[int]) -> Fraction | None:
        found = last_number(self.words.decode(ids).strip())
        return None if found is None else found.value

    def _gold(self, problem: int) -> Fraction | None:
        text = self.problems[problem].gold
        return None if text is None else Fraction(text)

    def tail(self, host: int, number: Fraction | None) -> tuple[int, ...]:
        """A number and the end as they would stand in the host's clean answer; empty where nothing stands there."""
        at = self.words.number_at(self.answers[host].ids)
        return () if at is None or number is None else self.words.instead(self.answers[host].ids, at, written(number))

    # The columns that no network is needed for.

    def graded(self, wanted: Wanted, answer: Answer, most: int) -> dict[str, Any]:
        """The columns that say what was answered, in at most so many tokens."""
        host, donor = wanted.host, wanted.donor
        number, base, gold = self._number(answer.ids), self.numbers[host], self._gold(host)
        limit = self._limit(wanted, most)
        ends = self.model.decoding.ends
        end = next((n for n, token in enumerate(answer.ids) if token in ends), limit)
        columns: dict[str, Any] = {
            "base_pred": _text(base),
            "base_correct": base is not None and base == gold,
            "gold": _text(gold),
            "token_ids": answer.ids[: min(end, limit)],
            "stop_reason": "length" if len(answer.ids) >= limit else "eos",
            "text": self.words.decode(answer.ids).strip(),
            "n_tokens": len(answer.ids),
            "pred": _text(number),
            "valid": number is not None,
            "correct": number is not None and number == gold,
            "changed": number != base,
        }
        if donor is not None:
            theirs = self.numbers[donor]
            columns |= {
                "donor_pred": _text(theirs),
                "donor_correct": theirs is not None and theirs == self._gold(donor),
                "adopted": None if theirs is None or theirs in (base, gold) else number == theirs,
            }
        return columns

    def _limit(self, wanted: Wanted, most: int) -> int:
        """The longest answer: it ends at the latest where the model's context does."""
        if self.model.max_positions is None:
            return most
        thoughts = len(program(wanted.arm, self.model.loop, self.model.num_latents))
        return min(most, self.model.max_positions - len(self.asked[wanted.host].ids) - thoughts - 1)

    # The columns that need it.

    def measure(self, wanted: Sequence[Wanted], answers: Sequence[Answer]) -> list[Measured]:
        """The numbers of generations whose answers are `answers`."""
        groups: dict[tuple[int, int], list[int]] = {}
        for i, one in enumerate(wanted):
            length = len(program(one.arm, self.model.loop, self.model.num_latents))
            groups.setdefault((one.host, length), []).append(i)
        found: dict[int, Measured] = {}
        for (host, _), members in groups.items():
            bytes_each = sum(part.nbytes for both in self.clean[host].columns for part in both)
            size = max(1, min(_ROWS, _BYTES // bytes_each))
            for start in range(0, len(members), size):
                part = members[start : start + size]
                some = self._measure(host, [wanted[i] for i in part], [answers[i] for i in part])
                found.update(zip(part, some, strict=True))
        return [found[i] for i in range(len(wanted))]

    def _measure(self, host: int, wanted: Sequence[Wanted], answers: Sequence[Answer]) -> list[Measured]:
        strip, firsts, failed = self._think(host, wanted)
        measured = self._read_answers(strip, answers)
        at = self.words.number_at(self.answers[host].ids)
        gold = self.tail(host, self._gold(host))
        donors = [() if one.donor is None else self.tail(host, self.numbers[one.donor]) for one in wanted]
        of_gold, edited = self._score(strip, host, at, [gold] * len(wanted))
        of_donor, _ = self._score(strip, host, at, donors)
        clean_gold, clean = self._clean_score(host, at, gold)
        for i, (one, scored) in enumerate(zip(measured, of_gold, strict=True)):
            sound = one.first_logits.isfinite().any() and one.best.isfinite().all()
            one.failed = failed.get(i, None if sound else "the answer's logits are not finite")
            norm, cosine = firsts.get(i, (None, None))
            one.terms = max(len(gold), len(donors[i]), 1)
            one.columns = {
                "logp_gold": scored,
                "dlogp_gold": None if scored is None or clean_gold is None else scored - clean_gold,
                "logp_donor": of_donor[i],
                "kl": None if edited is None or clean is None else float((clean.exp() * (clean - edited[i])).sum()),
                "fed_norm": norm,
                "donor_cos": cosine if wanted[i].donor is not None else None,
            }
        return measured

    def _think(
        self, host: int, wanted: Sequence[Wanted]
    ) -> tuple[Strip, dict[int, tuple[float, float | None]], dict[int, str]]:
        """Rows of one host that are fed equally many thoughts; norms and cosines of what their first edit feeds."""
        model, clean, loop = self.model, self.clean[host], self.model.loop
        programs = [program(one.arm, loop, model.num_latents) for one in wanted]
        strip = Strip(model, clean.before(), len(wanted))
        state: Tensor | None = None
        firsts: dict[int, tuple[float, float | None]] = {}
        failed: dict[int, str] = {}
        for position in range(len(programs[0])):
            made = {} if state is None else self._made(state, {steps[position][1] for steps in programs})
            vectors: list[Tensor] = []
            streams: dict[int, dict[int, Change]] = {}
            for i, (one, steps) in enumerate(zip(wanted, programs, strict=True)):
                how, k = steps[position]
                own = how in ("live", "edit") and not _same_as_clean(steps, position)
                vectors.append(made[k][i] if own else clean.steps[k])
                if how == "edit" and one.arm.layer is not None:
                    streams.setdefault(one.arm.layer, {})[i] = self._edit(one, loop.slot_of(k))
                elif how == "edit":
                    vectors[i] = self._try(self._edit(one, loop.slot_of(k)), vectors[i], i, failed)
                    firsts.setdefault(i, _norm_and_cosine(vectors[i], self.fed[host, loop.slot_of(k)]))
            with editing_streams(model, {layer: self._stream(rows, failed) for layer, rows in streams.items()}):
                state = strip.feed(touched(torch.stack(vectors), self.touch, position)[:, None])[:, 0]
            kept = [i for i, steps in enumerate(programs) if steps[position][0] == "kept"]
            strip.replace(kept, clean.length + position, clean.columns)
        return strip, firsts, failed

    def _made(self, state: Tensor, slots: set[int]) -> dict[int, Tensor]:
        """The thoughts that all rows' states make, as each of these slots [R, d]."""
        return {k: self.model.project(state, k) for k in slots}

    def _try(self, edit: Change, live: Tensor, row: int, failed: dict[int, str]) -> Tensor:
        """What an edit makes of a vector; the vector itself where the edit fails, which is remembered."""
        try:
            found = edit(live.clone()).to(live)
        except Exception as error:  # Whatever a user's edit raises is the finding here.
            failed[row] = f"{type(error).__name__}: {error}"
            return live
        if not _exact(found).norm().isfinite():  # a norm that overflows is one for the model, too
            failed[row] = "not finite"
            return live
        return found

    def _stream(self, rows: dict[int, Change], failed: dict[int, str]) -> Change:
        def change(states: Tensor) -> Tensor:
            for i, edit in rows.items():
                states[i, -1] = self._try(edit, states[i, -1], i, failed)
            return states

        return change

    def _edit(self, one: Wanted, slot: int) -> Change:
        """What the arm's edit makes of a live vector [d] at its slot."""
        host, donor, edit = one.host, one.host if one.donor is None else one.donor, one.arm.edit
        assert edit is not None
        others = [i for i in range(len(self.fed)) if i != host]
        n_slots = self.fed.shape[1]

        def clean(problem: int, k: int) -> Tensor:
            return self._states(problem, one.arm.layer)[k]

        ours: dict[type[Edit], Change] = {
            Self: lambda live: clean(host, slot),
            Swap: lambda live: clean(donor, slot),
            Mean: lambda live: torch.stack([clean(i, slot) for i in others]).mean(0),
            Zero: lambda live: 0 * live,
            Noise: lambda live: clean(host, slot).norm() * _direction(one.key, slot, len(live)).to(live),
            Shuffle: lambda live: clean(donor, (slot + _shift(one.key, n_slots)) % n_slots),
        }
        return ours.get(type(edit), lambda live: edit(live[None], self._context(one, slot))[0])

    def _states(self, problem: int, layer: int | None) -> Tensor:
        """A problem's clean states at a site [K, d]: what it was fed, or the stream at those positions."""
        return self.fed[problem] if layer is None else self.clean[problem].streams[1:, layer]

    def _context(self, one: Wanted, slot: int) -> EditContext:
        others = [i for i in range(len(self.fed)) if i != one.host]
        whose = {"host": [one.host], "donor": [] if one.donor is None else [one.donor], "mean": others}
        here: Kind = "fed" if one.arm.layer is None else "resid"
        layers: dict[Kind, int | None] = {"fed": None}
        if one.arm.layer is not None and self.model.loop.aligned:
            layers["resid"] = one.arm.layer
        first = torch.zeros(1, dtype=torch.long, device=self.fed.device)
        ids = [problem.id for problem in self.problems]
        taken = []
        for name, problems in whose.items():
            states = {
                kind: torch.stack([self._states(i, layer) for i in problems]).mean(0)[None]
                for kind, layer in layers.items()
                if problems
            }
            about = [one.host if name == "mean" else i for i in problems[:1]]
            taken.append(Taken(name, states, first, slot, here, about, ids))
        return EditContext(slot, (one.key,), *taken)

    # Answers and scores.

    def _read_answers(self, strip: Strip, answers: Sequence[Answer]) -> list[Measured]:
        """Logits along answers that are given: greedy decoding wrote them if each token was the best one allowed."""
        model, device = self.model, self.model.device
        ends = torch.tensor(model.decoding.ends, device=device)
        hidden = torch.tensor(self.forbidden, dtype=torch.long, device=device)
        length = max(1, *(len(answer.ids) + answer.stopped for answer in answers))
        fed = torch.full((len(answers), length), model.end_of_thought, device=device)
        for i, answer in enumerate(answers):
            n = min(len(answer.ids), length - 1)
            fed[i, 1 : n + 1] = torch.tensor(answer.ids[:n], device=device)
        states = strip.write(fed)
        chosen, best = [], []
        for t in range(length):
            logits = model.unembed(states[:, t])
            if t == 0:
                first = logits.cpu().clone()
            tokens = [answer.ids[t] if t < len(answer.ids) else 0 for answer in answers]
            picked = logits.gather(1, torch.tensor(tokens, device=device)[:, None])[:, 0]
            over = torch.tensor([t == len(answer.ids) for answer in answers], device=device)
            chosen.append(torch.where(over, logits[:, ends].amax(1), picked))
            best.append(logits.index_fill(1, hidden, -torch.inf).amax(1))
        both = [torch.stack(x, 1).double().cpu() for x in (chosen, best)]
        lengths = [len(answer.ids) + answer.stopped for answer in answers]
        return [Measured(first[i], both[0][i, :n], both[1][i, :n]) for i, n in enumerate(lengths)]

    def _score(
        self, strip: Strip, host: int, at: int | None, tails: Sequence[tuple[int, ...]]
    ) -> tuple[list[float | None], Tensor | None]:
        """Log-probabilities of tails after the clean answer's own words, and the logs of the first token's [R, V]."""
        if at is None:
            return [None] * len(tails), None
        model, device = self.model, self.model.device
        words = self.answers[host].ids[:at]
        width = max(1, *map(len, tails))
        fed = torch.full((len(tails), at + width), model.end_of_thought, device=device)
        fed[:, 1 : at + 1] = torch.tensor(words, dtype=torch.long, device=device)
        for i, tail in enumerate(tails):
            fed[i, at + 1 : at + len(tail)] = torch.tensor(tail[:-1], dtype=torch.long, device=device)
        states = strip.write(fed)[:, at:]
        total = torch.zeros(len(tails), dtype=torch.float64, device=device)
        for t in range(width):
            logs = _exact(model.unembed(states[:, t])).log_softmax(-1)
            if t == 0:
                first = logs
            tokens = torch.tensor([tail[t] if t < len(tail) else -1 for tail in tails], device=device)
            total += torch.where(tokens >= 0, logs.gather(1, tokens.clamp_min(0)[:, None])[:, 0], 0)
        return [float(total[i]) if tail else None for i, tail in enumerate(tails)], first

    def _clean_score(self, host: int, at: int | None, gold: tuple[int, ...]) -> tuple[float | None, Tensor | None]:
        strip = Strip(self.model, self.clean[host].columns, 1)
        found, logs = self._score(strip, host, at, [gold])
        return found[0], None if logs is None else logs[0]


def _exact(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _norm_and_cosine(vector: Tensor, own: Tensor) -> tuple[float, float | None]:
    """Of a vector and its cosine with another; undefined where one of them is zero."""
    a, b = vector.double(), own.double()
    size = float(a.norm() * b.norm())
    return float(a.norm()), float(a @ b) / size if size else None


def _same_as_clean(steps: Sequence[tuple[str, int]], position: int) -> bool:
    """Whether a row's own thought at a position is the clean one: nothing was changed before, or its state is kept."""
    if position and steps[position - 1][0] == "kept":
        return True
    return all(step == ("clean", k) for k, step in enumerate(steps[:position])) and steps[position][1] == position


def _direction(key: str, slot: int, width: int) -> Tensor:
    """The unit vector of a noise cell: Gaussian, float32, seeded by the first 7 bytes of the hash of `key-slot`."""
    seed = int.from_bytes(hashlib.sha256(f"{key}-{slot}".encode()).digest()[:7], "big")
    drawn = torch.randn(width, generator=torch.Generator().manual_seed(seed), dtype=torch.float32).double()
    return drawn / drawn.norm()


def _shift(key: str, slots: int) -> int:
    """How many slots on a shuffle cell takes its thought from: 1 to K - 1, by the hash of its key."""
    return 1 + int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % (slots - 1) if slots > 1 else 0


def _text(number: Fraction | None) -> str | None:
    return None if number is None else written(number)
