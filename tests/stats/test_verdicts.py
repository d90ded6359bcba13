"""Verdicts as a function of their interval: consistent with it, exhaustive, exclusive, and weaker where it is wider."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from thoughtgraft.stats.verdicts import Agreement, Verdict, agreement_verdict, verdict

NAN = float("nan")
reals = st.floats(-1, 1).map(lambda x: round(x, 3))
margins = st.floats(0.001, 0.5).map(lambda x: round(x, 3))
CLAIMS_DIRECTION = {Verdict.ABOVE: 1, Verdict.PRESENT: 1, Verdict.SMALL: 1, Verdict.OPPOSITE: -1}
CLAIMS_SIZE = {Verdict.ABOVE, Verdict.SMALL, Verdict.NEGLIGIBLE}


@st.composite
def intervals(draw: st.DrawFn) -> tuple[float, float]:
    a, b = draw(reals), draw(reals)
    return min(a, b), max(a, b)


@given(intervals(), margins, st.floats(0, 1))
def test_a_verdict_holds_of_every_value_in_its_interval(ends: tuple[float, float], m: float, share: float) -> None:
    said = verdict(*ends, m)
    for value in (*ends, ends[0] + share * (ends[1] - ends[0])):
        assert said.holds(min(max(value, ends[0]), ends[1]), m)


@given(intervals(), margins)
def test_a_verdict_says_all_that_its_interval_allows(ends: tuple[float, float], m: float) -> None:
    """Written from the ends alone: no claim is made that they do not carry, and none that they carry is left out."""
    low, high = ends
    said = verdict(low, high, m)
    assert CLAIMS_DIRECTION.get(said, 0) == (1 if low > 0 else -1 if high < 0 else 0)
    if said is not Verdict.OPPOSITE:
        excludes = low > m or (low > -m and high < m)
        assert (said in CLAIMS_SIZE) == excludes
    cases = {
        Verdict.ABOVE: low > m, Verdict.PRESENT: 0 < low <= m <= high, Verdict.SMALL: low > 0 and high < m,
        Verdict.NEGLIGIBLE: low <= 0 <= high and -m < low and high < m, Verdict.OPPOSITE: high < 0,
        Verdict.UNRESOLVED: low <= 0 <= high and (low <= -m or high >= m),
    }  # fmt: skip
    assert [word for word, applies in cases.items() if applies] == [said]


@given(intervals(), margins, st.floats(0, 1), st.floats(0, 1))
def test_a_wider_interval_never_claims_a_direction_or_size_anew(
    ends: tuple[float, float], m: float, down: float, up: float
) -> None:
    narrow, wide = verdict(*ends, m), verdict(ends[0] - down, ends[1] + up, m)
    if wide in CLAIMS_DIRECTION:
        assert CLAIMS_DIRECTION[wide] == CLAIMS_DIRECTION.get(narrow)
    if wide in (Verdict.ABOVE, Verdict.SMALL):
        assert narrow is wide
    if wide is Verdict.NEGLIGIBLE:
        assert -m < ends[0] and ends[1] < m
    if narrow is Verdict.UNRESOLVED:
        assert wide is Verdict.UNRESOLVED


@given(intervals(), st.tuples(margins, margins))
def test_a_larger_margin_never_takes_the_direction_away(ends: tuple[float, float], pair: tuple[float, float]) -> None:
    small, large = (verdict(*ends, m) for m in sorted(pair))
    assert CLAIMS_DIRECTION.get(small) == CLAIMS_DIRECTION.get(large)
    if small in (Verdict.NEGLIGIBLE, Verdict.SMALL):
        assert large is small


@given(intervals(), margins)
def test_what_has_no_interval_claims_nothing(ends: tuple[float, float], m: float) -> None:
    assert verdict(NAN, ends[1], m) is verdict(ends[0], NAN, m) is Verdict.UNDEFINED
    assert verdict(*ends, m, too_small=True) is Verdict.UNRESOLVED
    assert verdict(*ends, m, by_construction=True) is verdict(NAN, NAN, m, by_construction=True)
    assert verdict(NAN, NAN, m, by_construction=True) is Verdict.BY_CONSTRUCTION


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (5.1, 9, "ABOVE"), (5, 9, "PRESENT"), (0.1, 5, "PRESENT"), (0.1, 4.9, "SMALL"), (0, 4.9, "NEGLIGIBLE"),
        (-4.9, 4.9, "NEGLIGIBLE"), (-5, 1, "UNRESOLVED"), (-1, 5, "UNRESOLVED"), (-9, -0.1, "OPPOSITE"),
        (-3, 0, "NEGLIGIBLE"), (0, 0, "NEGLIGIBLE"),
    ],
)  # fmt: skip
def test_ends_on_a_boundary(low: float, high: float, word: str) -> None:
    assert verdict(low, high, 5) == word


def test_every_verdict_has_a_sentence_and_a_tone() -> None:
    said = {word: word.says("5 pp") for word in Verdict}
    assert len(set(said.values())) == len(Verdict) and not any("{" in text for text in said.values())
    assert all("5 pp" in said[word] for word in Verdict if word in CLAIMS_SIZE)
    tones = {word.tone for word in Verdict} | {word.tone for word in Agreement}
    assert tones == {"found", "none", "open"} and Verdict.UNRESOLVED.tone == Agreement.UNRESOLVED.tone == "open"
    assert len({word.says("0.5") for word in Agreement}) == len(Agreement)


@given(intervals(), st.floats(0, 1), st.floats(0.01, 0.2))
def test_agreement_needs_both_the_correlation_and_the_interaction(
    ends: tuple[float, float], p: float, alpha: float
) -> None:
    low, high = ends
    said = agreement_verdict(low, high, 0.5, p, alpha)
    assert (said in (Agreement.SAME_PROFILE, Agreement.SAME_ORDER)) == (low > 0.5)
    if said in (Agreement.SAME_ORDER, Agreement.OTHER_PROFILE):
        assert p < alpha
    assume(not math.isnan(p))
    assert (said is Agreement.OTHER_PROFILE) == (high < 0.5 and p < alpha)
    for missing in ((NAN, high, p), (low, NAN, p), (low, high, NAN)):
        assert agreement_verdict(*missing[:2], 0.5, missing[2], alpha) is Agreement.UNRESOLVED
