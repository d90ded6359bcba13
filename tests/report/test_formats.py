"""Numbers and texts as people read them."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thoughtgraft.report.document import (
    Notes,
    estimate,
    interval,
    judged,
    markdown,
    number,
    p_value,
    percent,
    sentence_list,
    shorten,
    size,
    visible,
)
from thoughtgraft.report.figures.kit import drawable
from thoughtgraft.report.render import fence
from thoughtgraft.stats.verdicts import verdict

NAN = math.nan


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (number(-0.04), "0.0"),
        (number(-1.25, 2), "−1.25"),
        (number(None), "undefined"),
        (number(pd.NA), "undefined"),
        (percent(0.125), "12.5%"),
        (percent(NAN), "undefined"),
        (interval(1, 2), "[1.0, 2.0]"),
        (interval(1, math.inf), "undefined"),
        (estimate(3, 1, 5), "3.0 [1.0, 5.0]"),
        (estimate(0, NAN, NAN), "0.0 [undefined]"),
        (estimate(NAN, 0, 1), "undefined"),
        (judged(0.04, 5.3, 5), "[0.04, 5.30]"),
        (judged(-0.04, 4.96, 5), "[−0.04, 4.96]"),
        (judged(-4.996, 5.0, 5), "[−4.996, 5.000]"),
        (judged(1.26, 3.31, 5), "[1.3, 3.3]"),
        (judged(0.0, 0.0, 5), "[0.0, 0.0]"),
        (judged(0.496, 0.8, 0.5, 2), "[0.496, 0.800]"),
        (judged(NAN, 5, 5), "undefined"),
        (p_value(0.0004), "<.001"),
        (p_value(0.0421), ".042"),
        (p_value(1.0), "1"),
        (p_value(NAN), "undefined"),
        (size(100, 37, 1000), "100 × 37 (1,000)"),
        (size(100, 0, 100), "100 (100)"),
        (sentence_list(["a", "b", "c"]), "a, b and c"),
        (sentence_list([]), "none"),
        (shorten("one two three", 9), "one two…"),
        (visible(" plus\n"), "␣plus⏎"),
        (visible(" "), "␣"),
        (visible(""), "∅"),
        (drawable("你"), "<4F60>"),
    ],
)
def test_formats(got, expected):
    assert got == expected


def test_markdown_shows_the_text_and_nothing_else():
    assert markdown("<b>a|b*c_d`\n$e & [f](g)") == "&lt;b&gt;a\\|b\\*c\\_d\\` \\$e &amp; \\[f\\](g)"


def test_a_fence_holds_whatever_is_in_it():
    assert fence("a ``` b").startswith("````\n")


def test_notes_share_marks():
    notes = Notes()
    assert notes.mark("x; y") == "a b"
    assert notes.mark("y; z") == "b c"
    assert notes.mark("") == notes.mark(None) == ""
    assert notes.pairs == (("a", "x"), ("b", "y"), ("c", "z"))


@given(st.floats(-20, 20), st.floats(0, 20), st.sampled_from([5.0, 2.5, 0.5]), st.integers(1, 2))
def test_the_printed_ends_give_the_verdict_that_is_printed(low: float, width: float, margin: float, digits: int):
    ends = low, low + width
    printed = judged(*ends, margin, digits).strip("[]").replace("−", "-").split(", ")
    assert verdict(*map(float, printed), margin) == verdict(*(round(end, 9) for end in ends), margin)
