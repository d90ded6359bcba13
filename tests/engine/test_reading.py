"""Answers read twice, by code that shares nothing: on any text both find the same number, and write it the same way."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thoughtgraft.engine.answer import make_draft
from thoughtgraft.engine.verify.reading import Words, last_number, written
from thoughtgraft.models.load import load_model
from thoughtgraft.tasks.grading import NUMBER
from thoughtgraft.tasks.numbers import extract_answer, format_number, number_start

# What models write beside digits, and characters that look like them.
PIECES = ["", " ", "is ", *"0 1 12 345 6789 , . / - \u2212 $ % ( ) a = << \n \t \u0664 \u00b2".split(" ")]


@settings(max_examples=3000)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=30))
def test_both_find_the_same_last_number_at_the_same_place(text: str) -> None:
    found = last_number(text)
    assert (None if found is None else found.value) == extract_answer(text)
    assert (None if found is None else found.start) == number_start(text)


@settings(max_examples=500)
@given(st.fractions() | st.builds(lambda a, b: Fraction(a, 10**b), st.integers(), st.integers(0, 40)))
def test_both_write_it_the_same_way(value: Fraction) -> None:
    assert written(value) == format_number(value)


@pytest.mark.parametrize(
    ("text", "start"), [("it is -4", 6), ("it is -$4", 6), ("it is $-4", 7), ("10-4", 3), ("$4", 1), ("none", None)]
)
def test_a_number_begins_with_its_sign(text: str, start: int | None) -> None:
    assert number_start(text) == start


def test_a_negative_answer_is_scored_in_the_place_of_its_sign() -> None:
    """Else the gold answer -4 would be scored as --4, and 7 as -7."""
    model = load_model("tiny-codi", device="cpu")
    for said, gold in (("= -4", "-4"), ("= -4", "7"), ("= 4", "-7")):
        ids = model.tokenizer(said, add_special_tokens=False)["input_ids"]
        draft = make_draft(model, ids, True, gold, NUMBER)
        assert draft.number_at is not None
        scored = model.decode([*ids[: draft.number_at], *draft.gold[:-1]])
        assert scored.replace(" ", "") == f"={gold}", (said, gold, scored)
        assert (draft.gold == draft.ids[draft.number_at :]) == said.endswith(f" {gold}")
        words = Words(model.tokenizer, model.decoding.ends[0])
        assert words.number_at(ids) == draft.number_at
        assert words.instead(ids, draft.number_at, gold) == draft.gold
