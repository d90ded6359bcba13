"""Every known mistake is caught, by the line that is said to catch it and in the right words."""

from __future__ import annotations

from typing import Any

import pytest
from pytest import MonkeyPatch
from tests.engine.tiny import expected
from tests.mutations.page import PAGE, updated
from tests.mutations.plant import LOADER, OFFICIAL, SELF, Mutation
from tests.mutations.plants import MUTATIONS
from tests.mutations.subjects import FAMILY, PLAN, PROBLEMS, honest, load, recorded, trained

from thoughtgraft.engine.verify.statements import STATEMENTS
from thoughtgraft.engine.verify.suite import Level, verify
from thoughtgraft.engine.verify.weights import fingerprint, weights
from thoughtgraft.errors import CheckpointError
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.records.certificate import Check
from thoughtgraft.tasks.problem import ProblemSet

BY_OTHERS = {"official cases", "fingerprint"}


def certify(
    model: LatentReasoner, problems: ProblemSet = PROBLEMS, *, full: bool = False, others: bool = True
) -> list[Check]:
    """The core checks or all, and what looks at the weights, the official cases and the fingerprint."""
    cases, answers = (expected(FAMILY), recorded()) if others else (None, None)
    level: Level = "full" if full else "core"
    found = verify(model, problems, level=level, plan=PLAN, answer_tokens=2, cases=cases, recorded=answers)
    rest = [] if full else [weights(model), *([fingerprint(model, answers)] if answers else [])]
    return [*found.checks, *(check for check in rest if isinstance(check, Check))]


def failing(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.passed]


def test_without_a_mistake_everything_passes() -> None:
    checks = certify(honest(), full=True)
    assert failing(checks) == []
    assert [check.name for check in checks] == list(STATEMENTS)
    assert failing(certify(*trained(), others=False)) == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name.replace(" ", "-"))
def test_a_planted_mistake_is_caught(mutation: Mutation, monkeypatch: MonkeyPatch, record_property: Any) -> None:
    recorded()
    mutation.plant(monkeypatch)
    if mutation.caught_by == LOADER:
        with pytest.raises(CheckpointError) as raised:
            load(**dict(mutation.load))
        assert mutation.words in str(raised.value)
        record_property("mutation", (mutation.name, mutation.caught_by, str(raised.value).split(";")[1].strip()[:80]))
        return
    if mutation.trained:
        checks = certify(*trained(), others=False)
    else:
        checks = certify(load(**dict(mutation.load)) if mutation.reload else honest(), full=mutation.full)
    failed = failing(checks)
    record_property("mutation", (mutation.name, mutation.caught_by, ", ".join(failed)))
    assert set(mutation.checks) <= set(failed), failed
    assert any(mutation.words in check.detail for check in checks if not check.passed)
    first = SELF if set(failed) - BY_OTHERS else OFFICIAL if "official cases" in failed else "fingerprint"
    assert first == mutation.caught_by


def test_what_catches_a_mistake_is_a_check_and_none_needs_a_fingerprint() -> None:
    assert {m.caught_by for m in MUTATIONS} <= {SELF, LOADER, OFFICIAL}
    assert {name for m in MUTATIONS for name in m.checks} <= set(STATEMENTS)


def test_a_wrong_alpha_without_cases_or_fingerprint_is_seen_by_nothing(record_property: Any) -> None:
    """Raw checkpoints do not store alpha: the certificate says what it can, and the page says what it cannot."""
    failed = failing(certify(load(lora_alpha=16), others=False))
    record_property("mutation", ("wrong alpha, no cases, no fingerprint", "nothing", ", ".join(failed)))
    assert failed == []


def test_the_tables_of_the_page_are_up_to_date() -> None:
    assert PAGE.read_text() == updated(PAGE.read_text()), "write them anew: python -m tests.mutations.page"
