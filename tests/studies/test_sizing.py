"""How large a run has to be: before any data, and by a pilot whose verdict and sizes agree."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from thoughtgraft.effects.gates import RULE
from thoughtgraft.errors import RunError
from thoughtgraft.records.spec import PilotFacts
from thoughtgraft.stats.intervals import MIN_DONORS, MIN_HOSTS, Sample, family_bounds
from thoughtgraft.stats.power import needed_hosts, too_small
from thoughtgraft.studies.sample import Pilot, Sizing, planned


def test_before_any_data_the_spread_is_assumed_and_said() -> None:
    assert planned(283).mde_pp == pytest.approx(5, abs=0.02)
    assert "if hosts' effects spread by 30 pp" in planned(100).line(100, 10)
    assert "undefined (one host allows no interval)" in planned(1).line(1, 1)
    assert "not even an impact of 100 pp" in Sizing(130.0, "invented").line(3, 2)


def test_a_pilots_verdict_and_what_it_asks_of_the_run_agree(rule1_run: Path) -> None:
    pilot = Pilot.open(rule1_run, "arithmetic:test")
    verdict = pilot.run.pilot()
    assert pilot.asks_for(RULE.full_draws) == verdict.needed
    sizing = pilot.sizing(100, RULE.full_draws)
    assert sizing.worst_slot == verdict.worst_slot
    # The smallest effect found with the hosts asked for is the rule's own.
    assert pilot.sizing(verdict.needed or 0, RULE.full_draws).mde_pp == pytest.approx(RULE.margin_pp, rel=0.005)
    assert pilot.asks_for(1) > pilot.asks_for(10) > needed_hosts(0.05, RULE.margin)  # type: ignore[operator]
    assert pilot.used == set(pilot.run.problems()["id"])


def test_where_no_grade_changed_a_pilot_asks_for_hosts_that_bound_the_effect(
    rule1_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Pilot.open(rule1_run, "arithmetic:test").run
    records = opened.records().assign(correct=True, base_correct=True)
    monkeypatch.setattr(type(opened), "_records", records)
    pilot = Pilot.open(rule1_run, "arithmetic:test")
    assert np.isnan(pilot.sizing(100, 10).mde_pp)
    assert pilot.asks_for(10) == pilot.hosts(10) == 59, "1 - .05^(1/59) is the first below 5 pp"
    assert pilot.facts(50, 10).shortfall(50) == "Smaller than its pilot asks for: 50 hosts, and 59 are needed."


def test_a_run_as_large_as_asked_owes_no_sentence() -> None:
    facts = PilotFacts("r", "GO", 120, "CT3", 4.96)
    assert facts.shortfall(120) == PilotFacts("r", "NO-GO", None, "", None).shortfall(5) == ""
    assert facts.shortfall(119) == (
        "Smaller than its pilot asks for: 119 hosts, and 120 are needed at CT3: it finds impacts of 5.0 pp or more "
        "with 80% power."
    )


def test_a_design_too_small_for_any_verdict_says_so_and_one_host_more_does_not() -> None:
    assert too_small(MIN_HOSTS, MIN_DONORS) == too_small(MIN_HOSTS, 0) == ""
    assert "with 19 hosts no interval is known to hold, so every claim" in too_small(19, 18)
    assert "with 4 distinct donors no interval" in too_small(20, 4)
    assert "with 3 hosts and 2 distinct donors no interval" in too_small(3, 2)
    hosts = np.repeat(np.arange(20), 5)
    donors = (hosts + np.tile(np.arange(1, 6), 20)) % 20
    lost = (hosts % 2 == 0).astype(float)
    for n, small in ((20, False), (19, True)):  # as the interval itself has it
        kept = hosts < n
        sample = Sample(lost[kept], hosts[kept], donors[kept], np.ones(kept.sum()), "difference")
        assert family_bounds([sample])[0].too_small is small is bool(too_small(n, len(set(donors[kept]))))


def test_what_is_no_pilot_is_refused(rule1_run: Path) -> None:
    with pytest.raises(RunError, match="drew from other problems; got arithmetic:test; expected gsm8k:test"):
        Pilot.open(rule1_run, "gsm8k:test")
    pilot = Pilot.open(rule1_run, "arithmetic:test")
    with pytest.raises(RunError, match=r"of another model; got a run of an earlier version, which did not write down"):
        pilot.check_model({"weights": "w", "dtype": "float32"})
    known = SimpleNamespace(spec=pilot.run.spec.model_copy(update={"model_identity": {"weights": "w", "dtype": "x"}}))
    with pytest.raises(
        RunError, match=r"(?s)of another model; got\W+dtype: 'x' there, 'float32' now\W+expected tiny-codi"
    ):
        Pilot(known).check_model({"weights": "w", "dtype": "float32"})  # type: ignore[arg-type]
