"""The checks that a model, protocol and engine must pass before a number counts; their outcome is the certificate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from thoughtgraft.engine.collect import encode
from thoughtgraft.engine.grid import Row
from thoughtgraft.engine.reference import reference_run
from thoughtgraft.engine.rollout import RolloutResult, Source, rollout
from thoughtgraft.errors import PlanError
from thoughtgraft.interventions.ops import OPS, EditContext
from thoughtgraft.interventions.plan import Arm
from thoughtgraft.interventions.schedule import schedule
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.problems import ProblemSet

_NUDGE = 1e-2
_ROUNDINGS = 50
"""Logits may differ by kernel rounding: batched matrix products round differently by shape. How much that
shows depends on the model, so it is measured: the size of the logits plus their change per relative change of a
thought, times so many machine epsilons of the dtype."""


@dataclass(frozen=True)
class Check:
    """One check: what it proves, the figure it gave, the threshold, and what follows if it fails."""

    name: str
    proves: str
    figure: float
    threshold: str
    passed: bool
    consequence: str


@dataclass(frozen=True)
class Certificate:
    """The outcome of all checks on one model under one protocol."""

    model: str
    protocol: str
    dtype: str
    kind: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """For certificate.json."""
        return {
            "passed": self.passed,
            "kind": self.kind,
            "model": self.model,
            "protocol": self.protocol,
            "dtype": self.dtype,
            "checks": [asdict(check) for check in self.checks],
        }


def verify(model: LatentReasoner, problems: ProblemSet, *, n_problems: int = 6, answer_tokens: int = 12) -> Certificate:
    """Run the checks on the first problems.

    Args:
        model: The model.
        problems: At least 2; the first `n_problems` are used.
        n_problems: How many.
        answer_tokens: The longest answer in these checks.

    Raises:
        PlanError: Fewer than 2 problems, or a model that is fed no thought.
    """
    if len(problems) < 2 or model.num_latents < 1:
        raise PlanError(
            "nothing to verify",
            got=f"{len(problems)} problems, {model.num_latents} thoughts",
            expected="at least 2 problems and 1 thought",
        )
    return _Checks(model, problems[: min(n_problems, len(problems))], answer_tokens).all()


class _Checks:
    def __init__(self, model: LatentReasoner, problems: ProblemSet, answer_tokens: int) -> None:
        self.model, self.tokens = model, answer_tokens
        self.prompts = encode(model, problems)
        self.base = self.roll([self.row("baseline", (), h) for h in range(len(problems))])
        self.source = Source.from_fed(self.base.fed.clone())
        self.nudged = self._nudges()
        assert self.base.answers.first_logits is not None
        scale = float(self.base.answers.first_logits.abs().max()) + float(self.nudged.max()) / _NUDGE
        self.bound = _ROUNDINGS * torch.finfo(model.dtype).eps * scale
        self.results: list[Check] = []

    def _nudges(self) -> torch.Tensor:
        """Largest change of the first answer logits when a saved thought comes back slightly wrong [K, hosts]."""

        def nudge(live: torch.Tensor, context: EditContext) -> torch.Tensor:
            clean = context.host[:, context.slot]
            generator = torch.Generator().manual_seed(context.slot)
            noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64).to(clean)
            return clean + _NUDGE * clean.norm(dim=-1, keepdim=True) * noise / noise.norm(dim=-1, keepdim=True)

        hosts, slots = range(len(self.prompts)), range(self.model.num_latents)
        out = self.roll([replace(self.row("self", (k,), h), op=nudge) for k in slots for h in hosts])
        assert out.answers.first_logits is not None and self.base.answers.first_logits is not None
        change = out.answers.first_logits - self.base.answers.first_logits.repeat(len(slots), 1)
        return change.abs().amax(1).view(len(slots), -1)

    def row(self, method: str, slots: Sequence[int], host: int, donor: int | None = None) -> Row:
        actions = schedule(Arm(method, tuple(slots)), self.model.num_latents, self.model.protocol.edit_delay)
        return Row(host, actions, OPS.get(method), host, donor)

    def roll(self, rows: Sequence[Row], only: int | None = None) -> RolloutResult:
        prompts = self.prompts if only is None else [self.prompts[only]]
        source = getattr(self, "source", None)
        return rollout(self.model, prompts, rows, source, max_new_tokens=self.tokens, keep_logits=True)

    def all(self) -> Certificate:
        hosts, slots = range(len(self.prompts)), range(self.model.num_latents)
        logits = self.base.answers.first_logits
        assert logits is not None

        noop = self.roll([self.row("noop", (), h) for h in hosts])
        self.note(
            "null edit",
            "running every slot through the edit path with no edit changes nothing",
            _gap(noop, logits),
            self.bound,
            "differences between arms would include the engine's own",
        )
        own = self.roll([self.row("self", (k,), h) for k in slots for h in hosts])
        self.note(
            "self-swap identity",
            "putting back a problem's own saved thought changes nothing, at every slot",
            _gap(own, logits.repeat(len(slots), 1)),
            self.bound,
            "thoughts are read at one place and written at another, as in a shifted index",
        )
        self.note(
            "the checks can fail",
            "a thought put back with a relative error of 1e-2 is seen at every slot, above the bound used here",
            float(self.nudged.amax(1).min()),
            self.bound,
            "a bound this wide would let mistakes pass",
            at_least=True,
        )
        donors = [(h + 1) % len(self.prompts) for h in hosts]
        swaps = self.roll([self.row("swap", (k,), h, donors[h]) for k in slots for h in hosts])
        assert swaps.answers.first_logits is not None
        moved = (swaps.answers.first_logits - logits.repeat(len(slots), 1)).abs().amax(1).view(len(slots), -1)
        self.note(
            "donor swaps reach the logits",
            "at every slot, another problem's thought changes the output",
            float((moved > self.bound).float().mean(1).min()),
            0.95,
            "a slot whose edit cannot be seen would be reported as 0% impact",
            at_least=True,
        )
        alone = [self.roll([self.row("baseline", (), 0)], only=h).answers.first_logits for h in hosts]
        self.note(
            "batch invariance",
            "a problem's output does not depend on the problems beside it",
            float((torch.cat([a for a in alone if a is not None]) - logits).abs().max()),
            self.bound,
            "answers would depend on batch size and order",
        )
        self.transplant(logits)
        self.reference(logits)
        again = self.roll([self.row("baseline", (), h) for h in hosts])
        self.note(
            "cache isolation and determinism",
            "after all these edits the clean run is bit for bit what it was",
            _gap(again, logits),
            0.0,
            "a run changes what later runs reuse",
        )
        name = self.model
        return Certificate(name.name, name.protocol.name, name.dtype_name, "core checks", tuple(self.results))

    def transplant(self, logits: torch.Tensor) -> None:
        """The host's row on the donor's question, with every slot swapped for the donor's thought."""
        hosts, every = range(len(self.prompts)), tuple(range(self.model.num_latents))
        donors = [(h + 1) % len(self.prompts) for h in hosts]
        rows = []
        for host, donor in zip(hosts, donors, strict=True):
            swapped = self.row("swap", every, host, donor)
            rows.append(replace(swapped, problem=donor))
        moved = self.roll(rows)
        self.note(
            "transplant",
            "with the donor's question and thoughts both in place, a host's row gives the donor's output",
            _gap(moved, logits[donors]),
            self.bound,
            "the machinery does not move what it says it moves",
        )

    def reference(self, logits: torch.Tensor) -> None:
        """The fast engine against the plain one: clean, and a swap in the middle."""
        slot = self.model.num_latents // 2
        clean = reference_run(self.model, self.prompts[0], max_new_tokens=1)
        donor = reference_run(self.model, self.prompts[1], max_new_tokens=1)
        actions = schedule(Arm("swap", (slot,)), self.model.num_latents, self.model.protocol.edit_delay)
        slow = reference_run(
            self.model, self.prompts[0], actions, edit=lambda k, live: donor.fed[k], clean=clean, max_new_tokens=1
        )
        fast = self.roll([self.row("swap", (slot,), 0, 1)], only=0).answers.first_logits
        assert fast is not None
        gap = max(
            float((clean.first_logits.cpu() - logits[0]).abs().max()),
            float((slow.first_logits.cpu() - fast[0]).abs().max()),
        )
        self.note(
            "fast equals reference",
            "the batched engine and a loop without cache or batch agree, clean and swapped",
            gap,
            self.bound,
            "the fast engine computes something else",
        )

    def note(
        self, name: str, proves: str, figure: float, bound: float, consequence: str, *, at_least: bool = False
    ) -> None:
        passed = figure >= bound if at_least else figure <= bound
        sign = ">=" if at_least else "<="
        self.results.append(Check(name, proves, figure, f"{sign} {bound:g}", passed, consequence))


def _gap(result: RolloutResult, logits: torch.Tensor) -> float:
    assert result.answers.first_logits is not None
    return float((result.answers.first_logits - logits).abs().max())
