"""The decision rule, frozen before a run: gates, claims and thresholds as data, with a hash to be kept with the run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class GateRule:
    """One condition that must hold before any effect is stated.

    `limit` bounds the gate's figure: at most (`most`) or at least (`least`); `evidence` is "records" or "certificate".
    """

    name: str
    statement: str
    evidence: str
    sense: str = "holds"
    limit: float | None = None


@dataclass(frozen=True)
class ClaimRule:
    """One claim, the rule that supports it, and the result that would refute it."""

    name: str
    statement: str
    supported: str
    refuted: str


GATES = (
    GateRule("certificate", "the model, protocol and engine pass their certificate", "certificate"),
    GateRule("self_null", "grafting a host's own thought changes no answer, at every slot", "records", "most", 0),
    GateRule("noop", "the edit path with an empty edit changes no answer", "records", "most", 0),
    GateRule(
        "edits_bite",
        "at every structurally live slot, donor swaps change the logits of at least this share of cells",
        "records",
        "least",
        0.95,
    ),
    GateRule("transplant", "the donor's question KV and thoughts reproduce the donor's answer", "certificate"),
    GateRule("invalid", "share of answers in baseline and self arms that do not parse", "records", "most", 0.02),
    GateRule("failed", "share of cells without an outcome, because their edit failed", "records", "most", 0.01),
    GateRule("duplicates", "no cell is recorded twice", "records", "most", 0),
)
CLAIMS = (
    ClaimRule(
        "H0",
        "thoughts matter: swapping all of them lowers accuracy",
        "lower bound of the all-slots impact > 0",
        "the all-slots impact is equivalent to 0 at the margin, or its upper bound < 0",
    ),
    ClaimRule(
        "H1",
        "slot k is specific: a donor's thought there costs accuracy",
        "Holm p of impact < alpha over the slots, impact > 0, lower bound of impact given correct > margin",
        "upper bound of impact given correct < margin",
    ),
    ClaimRule(
        "H2",
        "slot k is irrelevant: a donor's thought there costs less than the margin",
        "Holm p of the equivalence test < alpha over the slots",
        "the interval of the impact lies beyond the margin",
    ),
    ClaimRule(
        "H3",
        "swap and ablation agree on which slots matter",
        "CONVERGENT: lower bound of the disattenuated r > bar",
        "DIVERGENT: its upper bound < bar and the position x method interaction p < alpha",
    ),
    ClaimRule(
        "H4",
        "content is transferred: the host gives the donor's answer more often than by chance",
        "adoption excess > 0 with Holm p < alpha over the slots (all slots: its own interval > 0)",
        "upper bound of the adoption excess < adoption_margin",
    ),
)


@dataclass(frozen=True)
class Rule:
    """Every threshold of the decision; the lengths are fractions (0.05 = 5 pp)."""

    version: int = 1
    alpha: float = 0.05
    margin: float = 0.05
    adoption_margin: float = 0.05
    agreement_bar: float = 0.5
    pilot_mde: float = 0.05
    pilot_power: float = 0.8
    full_draws: int = 10
    primary: tuple[str, str] = ("swap", "recompute")
    gates: tuple[GateRule, ...] = field(default=GATES)
    claims: tuple[ClaimRule, ...] = field(default=CLAIMS)

    def to_json(self) -> str:
        """The rule as JSON with sorted keys, the text that is hashed."""
        return json.dumps(asdict(self), sort_keys=True, indent=1)

    @property
    def hash(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the rule's JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]


RULE = Rule()
