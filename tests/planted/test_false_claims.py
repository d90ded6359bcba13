"""Over hundreds of runs in which nothing is true, false claims are at most as frequent as the rule's level allows."""

from __future__ import annotations

import sys
from collections import Counter

import pytest
from scipy import stats
from tests.planted.nulls import noise_records

from thoughtgraft.analysis import RULE, build_frame
from thoughtgraft.analysis.agreement import agreement_table
from thoughtgraft.analysis.decision import decide
from thoughtgraft.analysis.estimate import position_table

NULLS = 220
AT_THE_MARGIN = 200


def excess_p(false: int, runs: int) -> float:
    """The binomial p of so many false claims, or more, at the rule's level."""
    return float(stats.binomtest(false, runs, RULE.alpha, alternative="greater").pvalue)


@pytest.mark.slow
def test_noise_is_claimed_to_be_an_effect_no_more_often_than_the_level(capsys: pytest.CaptureFixture[str]) -> None:
    """Answers are noise: no thought matters, none is specific, none carries content, no two methods agree.

    A family of claims counts as false if any of its slots is SUPPORTED; for H3 either direction is false.
    """
    false: Counter[str] = Counter()
    for seed in range(NULLS):
        frame = build_frame(noise_records(24, 5, 3, seed))
        found = decide(
            frame,
            positions=position_table(frame, resamples=9),
            agreement=agreement_table(frame, resamples=199),
        ).claims
        decided = found[found.verdict.eq("SUPPORTED") | (found.claim.eq("H3") & found.verdict.eq("REFUTED"))]
        false.update(set(decided.claim) & {"H0", "H1", "H3", "H4"})
    p = {claim: excess_p(false[claim], NULLS) for claim in ("H0", "H1", "H3", "H4")}
    with capsys.disabled():
        shown = ", ".join(f"{claim} {false[claim]} (p {p[claim]:.2f})" for claim in p)
        sys.stdout.write(f"\nfalse claims in {NULLS} runs of noise, level {RULE.alpha:g}: {shown}\n")
    assert min(p.values()) > 0.01, (false, p)


@pytest.mark.slow
def test_a_loss_of_exactly_the_margin_is_called_irrelevant_no_more_often_than_the_level(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every slot costs exactly the margin: that one of them is irrelevant (H2) is false."""
    false = 0
    for seed in range(AT_THE_MARGIN):
        records = noise_records(
            100, 3, 3, seed, chance=1.0, spread=0.0, loss=RULE.margin, methods=("swap",), together=False
        )
        frame = build_frame(records)
        found = decide(
            frame, positions=position_table(frame, resamples=9), agreement=agreement_table(frame, resamples=9)
        ).claims
        false += bool((found.claim.eq("H2") & found.verdict.eq("SUPPORTED")).any())
    p = excess_p(false, AT_THE_MARGIN)
    with capsys.disabled():
        shown = f"{false} (p {p:.2f})"
        sys.stdout.write(f"\nfalse 'irrelevant' in {AT_THE_MARGIN} runs at the margin: {shown}\n")
    assert p > 0.01, false
