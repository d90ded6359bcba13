"""The decision rule, frozen before a run, and its gates as judged on records and certificate."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Set
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from thoughtgraft.arguments import answers_for_calls, items, need
from thoughtgraft.edits.known import Baseline, Noop, Self, Swap
from thoughtgraft.edits.site import slots_label
from thoughtgraft.effects.frame import Cells, Frame
from thoughtgraft.errors import AnalysisError
from thoughtgraft.records.certificate import Certificate
from thoughtgraft.records.schema import Family

VERSION = 2
LARGEST_MARGIN_PP = 50.0


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
    """One question, what is estimated for it, in which unit, and which effects share one simultaneous interval.

    The answer is a verdict of `stats.verdicts`: the interval of each effect beside 0 and the margin, which stands
    in the question's words as "{margin}". `needs` says what a run must have made for it.
    """

    name: str
    question: str
    estimand: str
    family: str
    needs: str
    unit: str = "pp"


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
        "How much accuracy do the thoughts carry: none, some, or more than {margin}?",
        "impact of the swap",
        "by itself",
        "swaps of all slots at once",
    ),
    ClaimRule(
        "H1",
        "How much does slot k carry, for problems that are right: none, some, or more than {margin}?",
        "impact of the swap given correct",
        "the single slots",
        "swaps of single slots",
    ),
    ClaimRule(
        "H3",
        "Do swap and ablation tell one story: do their impacts correlate above {margin} over the slots?",
        "disattenuated r of their impacts over the slots",
        "each pair of methods by itself",
        "swaps and an ablation (mean, zero, skip or noise) at three slots or more",
        "correlation",
    ),
    ClaimRule(
        "H4",
        "How often does the donor's answer come out, beyond chance: never, sometimes, or more than {margin}?",
        "adoption excess of the swap",
        "the single slots; all slots by itself",
        "swaps",
    ),
    ClaimRule(
        "H5",
        "Does slot k hold step j: does the answer follow the donor's value, beyond chance, by more than {margin}?",
        "counterfactual adoption excess of the swap",
        "every single slot × every step",
        "swaps of single slots, and problems that know their steps",
    ),
)


@dataclass(frozen=True)
class Rule:
    """Every threshold of the decision, fixed before a run and never changed after.

    Attributes:
        version: Of the rule.
        alpha: Intervals are at the level 1 - alpha.
        margin: The margin m of H0, H1, H4 and H5 as a fraction (0.05 = 5 pp); a pilot sizes the full run for it.
        agreement_bar: The bar of H3's correlation.
        pilot_power: Power that a full run is sized for.
        full_draws: Donors per host of a full run.
        primary: Method and downstream of the claims.
        gates: What must hold first.
        claims: The questions.
    """

    version: int = VERSION
    alpha: float = 0.05
    margin: float = 0.05
    agreement_bar: float = 0.5
    pilot_power: float = 0.8
    full_draws: int = 10
    primary: tuple[str, str] = (Swap.name, "recompute")
    gates: tuple[GateRule, ...] = field(default=GATES)
    claims: tuple[ClaimRule, ...] = field(default=CLAIMS)

    def __post_init__(self) -> None:
        if not 0 < 100 * self.margin <= LARGEST_MARGIN_PP:
            raise AnalysisError(
                "the margin of a rule is a size in percentage points",
                got=f"{100 * self.margin:g}",
                expected=f"more than 0, at most {LARGEST_MARGIN_PP:g}",
                fix="choose the smallest effect that would matter to you; 5 is the default",
            )
        if not 0 < self.alpha <= 0.2:
            raise AnalysisError(
                "alpha is the share of runs that may say something false",
                got=f"{self.alpha:g}",
                expected="more than 0, at most 0.2",
                fix="0.05 is the default: intervals of 95%",
            )

    @classmethod
    def of(cls, margin_pp: float | None = None, alpha: float | None = None) -> Rule:
        """The rule with another margin (percentage points) or alpha; None leaves the default.

        Raises:
            AnalysisError: One of them is out of range.
        """
        # Rounded, so that 7 pp and 7.0 pp are one rule whatever 7 / 100 is in binary.
        margin = RULE.margin if margin_pp is None else round(margin_pp / 100, 9)
        return cls(margin=margin, alpha=RULE.alpha if alpha is None else alpha)

    @property
    def margin_pp(self) -> float:
        """The margin in percentage points."""
        return round(100 * self.margin, 9)

    @property
    def level(self) -> str:
        """The level of its intervals in words, "95%"."""
        return f"{100 * (1 - self.alpha):g}%"

    def margin_of(self, claim: ClaimRule) -> float:
        """What a claim's interval is held against beside 0, in the claim's unit."""
        return self.margin_pp if claim.unit == "pp" else self.agreement_bar

    def margin_words(self, claim: ClaimRule) -> str:
        """The same in words, "5 pp"."""
        return f"{self.margin_of(claim):g}{' pp' if claim.unit == 'pp' else ''}"

    def question(self, claim: ClaimRule) -> str:
        """A claim's question, with its margin."""
        return claim.question.format(margin=self.margin_words(claim))

    def to_json(self) -> str:
        """The rule as JSON with sorted keys, the text that is hashed."""
        return json.dumps(asdict(self), sort_keys=True, indent=1)

    @property
    def hash(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the rule's JSON."""
        return text_hash(self.to_json())


def text_hash(text: str) -> str:
    """First 16 hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


RULE = Rule()


@dataclass(frozen=True)
class Basis:
    """By which rule a run is judged, and how that rule came to be its rule.

    Attributes:
        rule: The rule that gives estimates their level and verdicts their margin.
        fixed_before: Whether it was fixed in the run's folder before the run.
        old_version: The version of the rule that the run's stored words are of, where they stand in place of
            verdicts; None where `rule` judges.
    """

    rule: Rule = RULE
    fixed_before: bool = False
    old_version: int | None = None


UNRECORDED = Basis()
"""A run that says nothing of its rule: the default one, chosen after it."""


def basis_of(text: str | None, fixed_hash: str | None, wanted: int | None = None) -> Basis:
    """By which rule a run is judged.

    Args:
        text: The run's decision.json; None where it has none.
        fixed_hash: What run.json says the rule's hash is; None where it says nothing.
        wanted: The version of the rule that was asked for; None takes the run's own.

    Returns:
        The run's own rule where it is of this version, or the default one where run.json names no other. A run of
        rule 1 keeps its words, unless `wanted` is 2: then it is judged anew, at its own margin and alpha.

    Raises:
        AnalysisError: The rule is damaged, changed since the run began, unknown here, or not there.
    """
    if wanted not in (None, VERSION):
        raise AnalysisError(
            "there is no such rule to judge by", got=f"rule {wanted}", expected=f"rule {VERSION}", fix="leave it out"
        )
    if text is None:
        if fixed_hash not in (None, RULE.hash) and wanted is None:
            raise AnalysisError(
                "the rule that the run was begun with is not in its folder",
                got="no decision.json",
                expected=f"the rule with the hash {fixed_hash}",
                fix=f"put decision.json back, or judge the records anew by rule {VERSION}: analyze --rule {VERSION}",
            )
        return Basis(fixed_before=fixed_hash == RULE.hash)
    if fixed_hash is not None and text_hash(text) != fixed_hash:
        raise AnalysisError(
            "decision.json is not the rule that the run was begun with",
            got=f"the hash {text_hash(text)}",
            expected=fixed_hash,
            fix="put the file back as it was: a rule is not changed after the run",
        )
    found = _read(text)
    before = fixed_hash is not None
    if found["version"] == VERSION:
        return Basis(_rule(found), before)
    own = Rule(alpha=found["alpha"], margin=found["margin"])
    return Basis(own, False) if wanted == VERSION else Basis(own, before, found["version"])


def _read(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
        version = int(found["version"])
        float(found["alpha"]), float(found["margin"])
    except (ValueError, TypeError, KeyError) as error:
        raise AnalysisError("decision.json is damaged", got=str(error)[:200], fix="put back a copy of it") from error
    if version > VERSION:
        raise AnalysisError(
            "the run was begun under a newer rule",
            got=f"rule {version}",
            expected=f"rule {VERSION} or older",
            fix="update thoughtgraft",
        )
    return dict(found)


def _rule(found: dict[str, Any]) -> Rule:
    try:
        gates = tuple(GateRule(**gate) for gate in found["gates"])
        claims = tuple(ClaimRule(**claim) for claim in found["claims"])
        return Rule(**(found | {"gates": gates, "claims": claims, "primary": tuple(found["primary"])}))
    except (TypeError, KeyError) as error:
        raise AnalysisError("decision.json is damaged", got=str(error)[:200], fix="put back a copy of it") from error


PASS, FAIL, NOT_RUN = "pass", "fail", "not run"
_REASONS = 3  # named


@dataclass(frozen=True)
class GateResult:
    """A gate's outcome ("pass", "fail", "not run"), its `figure` (NaN where none), and what the figure counts."""

    name: str
    statement: str
    outcome: str
    figure: float
    limit: float | None
    detail: str


def _result(rule: GateRule, figure: float, detail: str) -> GateResult:
    if not np.isfinite(figure) or rule.limit is None:
        return GateResult(rule.name, rule.statement, NOT_RUN, np.nan, rule.limit, detail)
    passed = figure <= rule.limit if rule.sense == "most" else figure >= rule.limit
    return GateResult(rule.name, rule.statement, PASS if passed else FAIL, figure, rule.limit, detail)


@answers_for_calls(AnalysisError)
@dataclass(frozen=True)
class Known:
    """What a run is judged by beside its records.

    Attributes:
        certificate: Outcomes, by gate name, of the gates that records cannot show ("certificate", "transplant"). A gate
            that is not named is "not run", which is not a pass.
        dead_slots: 0-based slots that cannot reach the output under the run's protocol, as its certificate says.
        shared_slots: 0-based slots at which every problem is fed the same vector, so that a swap is the identity.
        available_hosts: Problems left for a full run, for the pilot's verdict; None where not known.
        rule: The decision rule: it gives intervals their level and verdicts their margin.
    """

    certificate: Mapping[str, bool] | None = None
    dead_slots: Collection[int] = ()
    shared_slots: Collection[int] = ()
    available_hosts: int | None = None
    rule: Rule = RULE

    def __post_init__(self) -> None:
        if self.certificate is not None:
            expected = "a mapping of gates to outcomes"
            need(self.certificate, Mapping, "the certificate", AnalysisError, expected=expected)  # type: ignore[type-abstract]
        for name in ("dead_slots", "shared_slots"):
            slots = getattr(self, name)
            given = list(slots) if isinstance(slots, Set) else slots
            object.__setattr__(self, name, tuple(items(given, "slots", AnalysisError, expected="a list of numbers")))
        need(self.rule, Rule, "the rule", AnalysisError, expected="a Rule", fix="RULE is the present one")

    @classmethod
    def of(cls, certificate: Certificate, rule: Rule, available_hosts: int | None = None) -> Known:
        """What a run's certificate says, and its rule."""
        return cls(certificate.gates, certificate.dead_slots, certificate.shared_slots, available_hosts, rule)

    @property
    def null_slots(self) -> frozenset[int]:
        """Slots at which a swap has no effect by construction: dead, or fed alike to all problems."""
        return frozenset({*self.dead_slots, *self.shared_slots})


NOTHING_KNOWN = Known()
"""No certificate, no slot that is null by construction, the present rule."""


def primary_family(frame: Frame, rule: Rule) -> Family:
    """The arms that a rule's claims are about, with the run's primary donors."""
    method, after = rule.primary
    return Family(method, after=after, donors=frame.primary_stratum())


def _arms(frame: Frame, method: str) -> list[Cells]:
    return [cells for key, cells in frame.arms.items() if key.method == method and len(cells)]


def _self_null(frame: Frame, dead: Collection[int]) -> tuple[float, str]:
    arms = _arms(frame, Self.name)
    covered = {slot for cells in arms for slot in cells.arm.slots if len(cells.arm.slots) == 1}
    lacking = [slots_label((slot,)) for slot in frame.every if slot not in covered and slot not in dead]
    changed = float(sum(cells.changed.sum() for cells in arms))
    n = sum(map(len, arms))
    # A change is evidence against the run wherever it occurs; its absence is evidence only where self was run.
    if not arms or (lacking and not changed):
        return np.nan, f"no self arm at {', '.join(lacking) or 'any slot'}"
    return changed, f"{int(changed)} of {n} self cells changed their answer"


def _noop(frame: Frame) -> tuple[float, str]:
    arms = _arms(frame, Noop.name)
    changed, n = float(sum(cells.changed.sum() for cells in arms)), sum(map(len, arms))
    return (changed, f"{int(changed)} of {n} noop cells changed their answer") if n else (np.nan, "no noop arm")


def _moved(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    """How far each cell's distribution moved, as (|dlogp|, kl)."""
    return np.abs(cells.dlogp), np.abs(cells.kl)


def _edits_bite(frame: Frame, dead: Collection[int]) -> tuple[float, str]:
    # What noop and self move is arithmetic noise; a swap must move more than the most of it.
    still = [cells for method in (Noop.name, Self.name) for cells in _arms(frame, method)]
    floors = [
        max((float(np.nanmax(x)) for c in still if np.isfinite(x := _moved(c)[i]).any()), default=0.0) for i in (0, 1)
    ]
    shares = {}
    for slot, cells in frame.singles(frame.primary).items():
        measures = _moved(cells)
        measured = np.isfinite(measures[0]) | np.isfinite(measures[1])
        if slot in dead or not measured.any():
            continue
        moved = (np.nan_to_num(measures[0]) > floors[0]) | (np.nan_to_num(measures[1]) > floors[1])
        shares[slot] = float(moved[measured].mean())
    if not shares:
        return np.nan, "no log-probabilities of single-slot swaps in the records"
    least = min(shares, key=lambda slot: shares[slot])
    noise = f"more than the largest noop or self change ({max(floors):.1e} nats)"
    return shares[least], f"least at {slots_label((least,))}: {shares[least]:.1%} of cells moved by {noise}"


def _invalid(frame: Frame) -> tuple[float, str]:
    arms = [*_arms(frame, Baseline.name), *_arms(frame, Self.name)]
    n = sum(map(len, arms))
    if not n:
        return np.nan, "no baseline or self rows"
    bad = float(sum((1 - cells.valid).sum() for cells in arms))
    return bad / n, f"{int(bad)} of {n} baseline and self answers did not parse"


def failed_words(failures: Mapping[str, int], n_cells: int) -> str:
    """How many cells failed, and the most frequent reasons with their counts."""
    if not failures:
        return f"none of {n_cells:,} cells failed"
    named = [f"{reason} ({n:,})" for reason, n in list(failures.items())[:_REASONS]]
    named += [f"{len(failures) - _REASONS:,} more reasons"] if len(failures) > _REASONS else []
    return f"{sum(failures.values()):,} of {n_cells:,} cells failed: {'; '.join(named)}"


def failed_gate(failures: Mapping[str, int] | None, n_cells: int, rule: Rule = RULE) -> GateResult:
    """Whether too many cells have no outcome.

    Args:
        failures: Failed cells by their reason; None where records cannot show them.
        n_cells: All cells.
        rule: The rule, whose gate `failed` has the limit.
    """
    gate = next(gate for gate in rule.gates if gate.name == "failed")
    if failures is None:
        return _result(gate, np.nan, "the records have no column `error`, so failures would not show")
    return _result(gate, sum(failures.values()) / n_cells, failed_words(failures, n_cells))


def check_gates(frame: Frame, known: Known = NOTHING_KNOWN) -> tuple[GateResult, ...]:
    """Check every gate of the run's rule."""
    checks = {
        "self_null": lambda: _self_null(frame, known.dead_slots),
        "noop": lambda: _noop(frame),
        "edits_bite": lambda: _edits_bite(frame, known.null_slots),
        "invalid": lambda: _invalid(frame),
        "duplicates": lambda: (float(frame.duplicates), f"{frame.duplicates} repeated of {frame.n_rows} rows"),
    }
    results = []
    for gate in known.rule.gates:
        if gate.name == "failed":
            results.append(failed_gate(frame.failures, frame.n_cells, known.rule))
            continue
        if gate.evidence == "records":
            results.append(_result(gate, *checks[gate.name]()))
            continue
        said = (known.certificate or {}).get(gate.name)
        outcome = NOT_RUN if said is None else PASS if said else FAIL
        detail = "not among the records" if said is None else "from the run's certificate"
        results.append(GateResult(gate.name, gate.statement, outcome, np.nan, None, detail))
    return tuple(results)
