"""Over hundreds of runs in which nothing is true, false verdicts are at most as frequent as the rule's level allows."""

from __future__ import annotations

import sys
from collections import Counter

import pytest
from scipy import stats
from tests.planted.nulls import noise_records

from thoughtgraft.effects.comparisons import agreement_table
from thoughtgraft.effects.decision import Tables, decide
from thoughtgraft.effects.frame import build_frame
from thoughtgraft.effects.gates import RULE
from thoughtgraft.effects.positions import position_table
from thoughtgraft.stats.verdicts import Agreement, Verdict

NULLS = 220
AT_THE_MARGIN = 200


def excess_p(false: int, runs: int) -> float:
    """The binomial p of so many runs with a false verdict, or more, at the rule's level."""
    return float(stats.binomtest(false, runs, RULE.alpha, alternative="greater").pvalue)


@pytest.mark.slow
def test_noise_is_claimed_to_be_an_effect_no_more_often_than_the_level(capsys: pytest.CaptureFixture[str]) -> None:
    """Answers are noise: no thought matters, none is specific, none carries content, no two methods agree.

    A family counts as false if any of its slots is given a direction; for H3 any verdict on the profiles is false.
    """
    false: Counter[str] = Counter()
    for seed in range(NULLS):
        frame = build_frame(noise_records(24, 5, 3, seed))
        found = decide(
            frame,
            tables=Tables(position_table(frame, resamples=9), agreement_table(frame, resamples=199)),
        ).claims
        told = [
            claim
            for claim, word in zip(found.claim, found.verdict, strict=True)
            if (word != Agreement.UNRESOLVED if claim == "H3" else not Verdict(word).holds(0.0, RULE.margin_pp))
        ]
        false.update(set(told))
    p = {claim: excess_p(false[claim], NULLS) for claim in ("H0", "H1", "H3", "H4")}
    with capsys.disabled():
        shown = ", ".join(f"{claim} {false[claim]} (p {p[claim]:.2f})" for claim in p)
        sys.stdout.write(f"\nfalse claims in {NULLS} runs of noise, level {RULE.alpha:g}: {shown}\n")
    assert min(p.values()) > 0.01, (false, p)


@pytest.mark.slow
def test_a_loss_of_exactly_the_margin_is_called_another_size_no_more_often_than_the_level(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every slot costs exactly the margin: that one of them costs more, or less, or nothing, is false."""
    false = 0
    for seed in range(AT_THE_MARGIN):
        records = noise_records(
            100, 3, 3, seed, chance=1.0, spread=0.0, loss=RULE.margin, methods=("swap",), together=False
        )
        frame = build_frame(records)
        found = decide(
            frame, tables=Tables(position_table(frame, resamples=9), agreement_table(frame, resamples=9))
        ).claims
        said = found[found.claim == "H1"].verdict
        false += any(not Verdict(word).holds(RULE.margin_pp, RULE.margin_pp) for word in said)
    p = excess_p(false, AT_THE_MARGIN)
    with capsys.disabled():
        shown = f"{false} (p {p:.2f})"
        sys.stdout.write(f"\nfalse verdicts in {AT_THE_MARGIN} runs at the margin: {shown}\n")
    assert p > 0.01, false
