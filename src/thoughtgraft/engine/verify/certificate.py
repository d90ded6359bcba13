"""The certificate: every check with its figure and outcome, and which slots can carry anything at all."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from thoughtgraft.engine.verify.catalogue import STATEMENTS


@dataclass(frozen=True)
class Check:
    """One check: what it proves, the figure it gave, the threshold, and what follows if it fails.

    `detail` says where the figure comes from, for example at which slot; NaN and infinite figures never pass.
    """

    name: str
    proves: str
    figure: float
    threshold: str
    passed: bool
    consequence: str
    detail: str = ""


def at_most(name: str, figure: float, bound: float, detail: str = "") -> Check:
    """A check that passes at a figure of at most `bound`."""
    return _check(name, figure, f"<= {bound:.3g}", figure <= bound, detail)


def at_least(name: str, figure: float, bound: float, detail: str = "") -> Check:
    """A check that passes at a figure of at least `bound`."""
    return _check(name, figure, f">= {bound:.3g}", figure >= bound, detail)


def exactly(name: str, figure: float, wanted: float, detail: str = "") -> Check:
    """A check that passes at this figure only."""
    return _check(name, figure, f"= {wanted:g}", figure == wanted, detail)


def _check(name: str, figure: float, threshold: str, passed: bool, detail: str) -> Check:
    statement = STATEMENTS[name]
    return Check(name, statement.proves, figure, threshold, passed, statement.consequence, detail)


@dataclass(frozen=True)
class Certificate:
    """The outcome of all checks on one model under one protocol.

    Attributes:
        model: The model's name.
        protocol: The rule of inference.
        dtype: What the model computes in.
        kind: `core` or `full`.
        checks: In the order in which they ran.
        model_hash: The model's identity, as in run.json.
        plan_hash: The plan whose arms were tried, as in run.json; empty where no plan was given.
        num_latents: Slots, K.
        dead_slots: 0-based slots whose edits cannot reach the output: structurally null, never 0%.
        shared_slots: 0-based slots at which every problem is fed the same vector: nothing of the problem is in it, and
            a swap there is the identity.
        notes: What was not checked, and why; how it was computed.
    """

    model: str
    protocol: str
    dtype: str
    kind: str
    checks: tuple[Check, ...]
    model_hash: str = ""
    plan_hash: str = ""
    num_latents: int = 0
    dead_slots: tuple[int, ...] = ()
    shared_slots: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed."""
        return tuple(check.name for check in self.checks if not check.passed)

    def to_json(self) -> dict[str, Any]:
        """For certificate.json; an undefined figure is null."""
        checks = [asdict(c) | {"figure": c.figure if math.isfinite(c.figure) else None} for c in self.checks]
        return {
            "passed": self.passed,
            "kind": self.kind,
            "model": self.model,
            "model_hash": self.model_hash,
            "plan_hash": self.plan_hash,
            "protocol": self.protocol,
            "dtype": self.dtype,
            "num_latents": self.num_latents,
            "dead_slots": list(self.dead_slots),
            "shared_slots": list(self.shared_slots),
            "notes": list(self.notes),
            "checks": checks,
        }
