"""Problems varied: what may change and what may not, arithmetic that stays true, and nothing of a held-out set."""

from __future__ import annotations

import random
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thoughtgraft.errors import ProblemError
from thoughtgraft.tasks.files import problem_from_row, read_problems
from thoughtgraft.tasks.numbers import format_number
from thoughtgraft.tasks.problem import APPLY, Problem, ProblemSet, Ref
from thoughtgraft.tasks.sets.arithmetic import arithmetic
from thoughtgraft.tasks.steps import steps_from
from thoughtgraft.training.augment import binding as why
from thoughtgraft.training.augment.binding import Refused, bind
from thoughtgraft.training.augment.numerals import implied_values, numerals, spelled_numbers
from thoughtgraft.training.augment.training_set import OverlapFinder, augment, augmented, training_set, usable

DIGITS = re.compile(r"[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+")


def problem(question: str, answer: str, index: int = 0) -> Problem:
    return problem_from_row({"question": question, "answer": answer}, where="here", split="train", index=index)


def free(p: Problem) -> list[str]:
    """The numerals that may change, as the question writes them."""
    bound = bind(p)
    return [bound.numerals[i].text for i in bound.free]


def reason(p: Problem) -> str:
    with pytest.raises(Refused) as refused:
        bind(p)
    assert augment(p) is None
    return str(refused.value)


def evaluated(p: Problem) -> list[Fraction]:
    values: list[Fraction] = []
    for step in p.steps:
        left, right = (values[x.step] if isinstance(x, Ref) else x for x in (step.left, step.right))
        values.append(APPLY[step.op](left, right))
    return values


def check(p: Problem, original: Problem) -> None:
    """What must hold of every variation."""
    assert DIGITS.sub("#", p.question) == DIGITS.sub("#", original.question)
    assert p.question != original.question
    assert p.gold is not None and p.gold.isdigit() and p.gold not in ("0", original.gold)
    assert evaluated(p) == [step.value for step in p.steps]
    assert p.steps[-1].result == p.gold
    assert [step.op for step in p.steps] == [step.op for step in original.steps]
    assert steps_from(p.solution, question=p.question, gold=p.gold) == p.steps
    assert p.solution.endswith(f"#### {p.gold}") and p.split == original.split
    for new, old in zip(p.steps, original.steps, strict=True):
        assert new.value == old.value or (new.value.denominator == 1 and new.value > 0)


CLIPS = "A shop sold 48 clips in April, and half as many in May. How many clips did it sell altogether?"


def test_a_problem_is_varied_through_its_steps():
    original = problem(CLIPS, "48/2 = <<48/2=24>>24\n48+24 = <<48+24=72>>72\n#### 72")
    assert free(original) == ["48"]
    varied = augment(original, seed=3)
    assert varied is not None and varied.id == "train_0~1"
    check(varied, original)
    number = Fraction(DIGITS.findall(varied.question)[0])
    assert varied.gold == format_number(number + number / 2)
    assert varied.solution.splitlines()[0] == f"{number}/2 = <<{number}/2={number / 2}>>{number / 2}"
    assert augment(original, seed=3) == varied


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        # Signs, commas and decimals stay in their places.
        ("A bike is $1,200 and a bell $15. How much?", "<<1200+15=1215>>1215\n#### 1215", ["1,200", "15"]),
        ("Pens cost $.5 and he buys 30 of them. Cost?", "<<30*.5=15>>15\n#### 15", [".5", "30"]),
        ("He has 400 pens and sells 20%. How many?", "<<400*20/100=80>>80\n#### 80", ["400", "20"]),
        ("He has 400 pens and sells 20%. How many?", "<<400*.2=80>>80\n#### 80", ["400", "20"]),
        ("Gum is 30 cents. How many cents are 9?", "<<30*9=270>>270\n#### 270", ["30", "9"]),
        # What is left of the share comes from the percentage, which then stays.
        ("He has 400 pens and sells 20%. How many stay?", "<<400*.8=320>>320\n#### 320", ["400"]),
        # Words and constants of the world are no numerals of the question, and numerals of their value stay.
        ("He runs 13 miles a day. How far in a week?", "<<13*7=91>>91\n#### 91", ["13"]),
        ("He runs 13 miles on 7 days a week. How far?", "<<13*7=91>>91\n#### 91", ["13"]),
        ("He has 2 dogs and eats half of 30 nuts each. How many?", "<<30/2=15>>15 <<15*2=30>>\n#### 30", None),
        ("He buys three pens at $14 each. Cost?", "<<14*3=42>>42\n#### 42", ["14"]),
        ("He buys 3 dozen eggs and 14 more. How many?", "<<3*12=36>>36 <<36+14=50>>50\n#### 50", ["3", "14"]),
        # 0 and 1, times, dates, years, names of things, ranges and fractions are not amounts to draw.
        ("She reads 1 page, then 25 more. How many?", "<<1+25=26>>26\n#### 26", ["25"]),
        ("From page 30 she reads 25 pages. Where is she?", "<<30+25=55>>55\n#### 55", ["25"]),
        ("It is 3:30 and he waits 25 minutes for 14 days. Sum?", "<<25*14=350>>350\n#### 350", None),
        ("From 9 am he works until 5 pm at $14. Pay?", "<<17-9=8>>8 <<8*14=112>>112\n#### 112", None),
        ("Born in 1990, he left 35 years later. When?", "<<1990+35=2025>>2025\n#### 2025", ["35"]),
        ("He eats 1/4 of 40 nuts. How many?", "<<40/4=10>>10\n#### 10", ["40"]),
        ("He gets 10-15 nuts 13 times. At most?", "<<15*13=195>>195\n#### 195", None),
        ("The 5th of 40 boys has 13 nuts and 20 pears. Sum?", "<<13+20=33>>33\n#### 33", None),
        ("He pays a $21 meal with a $50 bill. Change?", "<<50-21=29>>29\n#### 29", ["21"]),
        # What is left of a whole, what is listed, and what the numbers make with each other follows from the rest.
        ("He works 14 days, then the other 6 rest. Sum?", "<<14+6=20>>20\n#### 20", ["14"]),
        ("3 boys, Al, Bo and Cy, have 14 nuts each. Sum?", "<<3*14=42>>42\n#### 42", ["14"]),
        ("3 tests gave 50, 60 and 70. Mean?", "<<50+60+70=180>>180 <<180/3=60>>60\n#### 60", None),
        (
            "Of 30 pens 12 are red, 18 blue. He adds 9 red.",
            "<<12+9=21>>21 <<21*30=630>> <<630-18=612>>\n#### 612",
            ["9"],
        ),
        ("40% are red and 60% blue of 500. How many more?", "<<60-40=20>>20 <<20*500=10000>>\n#### 10000", ["500"]),
        # A small number in two operands may have two sources; a larger one has one.
        ("He has 6 boxes of 14.", "<<6*14=84>>84 <<84+6=90>>90\n#### 90", ["14"]),
        ("He has 60 boxes of 14.", "<<60*14=840>>840 <<840+60=900>>900\n#### 900", ["60", "14"]),
        ("He has 30 red and 30 blue pens and 14 nuts.", "<<30+30=60>>60 <<60+14=74>>74\n#### 74", ["14"]),
    ],
)
def test_what_may_change(question: str, answer: str, expected: list[str] | None):
    original = problem(question, answer)
    if expected is None:
        with pytest.raises(Refused):
            bind(original)
        return
    assert free(original) == expected
    for seed in range(3):
        varied = augment(original, seed)
        if varied is not None:
            check(varied, original)
    assert augment(original) is not None


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("How many are 30 and 14?", "44", why.NO_STEPS),
        ("Half of 15 nuts?", "<<15/2=7.5>>7.5\n#### 7.5", why.NOT_WHOLE),
        ("30 and 14, then 15?", "<<30+14=44>>44 <<30+15=45>>45\n#### 45", why.DANGLING),
        # 44 is given and computed; 20 is the result of two steps; 5 could be the days or the first step.
        ("30 red, 14 blue, 44 pens, 9 more?", "<<30+14=44>>44 <<44+9=53>>53\n#### 53", why.DANGLING),
        ("30 red, 13 cups of 43?", "<<30+13=43>>43 <<43*43=1849>>\n#### 1849", why.DANGLING),
        ("36 nuts for 18 boys, double that?", "<<36/18=2>>2 <<2*30=60>>60\n#### 60", why.TWO_SOURCES),
        ("He earns $14. How much for the trip?", "<<14*9=126>>126\n#### 126", why.NO_SOURCE),
        ("He earns $14 a week.", "9-1=8 so <<14*7=98>>98\n#### 98", why.OUTSIDE),
        ("30 pens, 12 red and 18 blue, at $3?", "<<12*3=36>>36 <<36+18=54>>54\n#### 54", why.UNUSED),
        ("Twenty pens: 13 red at $3?", "<<13*3=39>>39\n#### 39", why.UNUSED),
        ("She has 7 days and a week.", "<<7+7=14>>14\n#### 14", why.NOTHING_FREE),
    ],
)
def test_why_a_problem_is_left_as_it_is(question: str, answer: str, expected: str):
    assert reason(problem(question, answer)) == expected


def test_no_other_numbers_may_exist():
    # 3 of an hour's minutes divide nothing else whole within the scale and order of the numbers.
    stuck = problem("997 nuts for 997.5 cups?", "<<997*2=1994>>1994\n#### 1994")
    assert reason(stuck) in (why.NO_SOURCE, why.UNUSED)
    made, coverage = augmented([problem(CLIPS, "<<48/2=24>>24 <<48+24=72>>72\n#### 72"), stuck], copies=2)
    assert [p.id for p in made] == ["train_0~1", "train_0~2"]
    assert (coverage.problems, coverage.varied, coverage.made, coverage.share) == (2, 1, 2, 0.5)
    assert sum(n for _, n in coverage.rows()) == 2
    assert str(coverage).startswith("1 of 2 problems varied (50.0%), 2 variations\n       1 not: ")


def test_texts_keep_their_format_articles_bounds_and_order():
    original = problem(
        "In an 8-hour shift he packs 1,250 boxes at $2.50; his boss packs 2,000. He works 5 hours a day and 12 weeks.",
        "<<8*5=40>>40 <<40*12=480>>480 <<480+1250=1730>>1730 <<1730*2.50=4325>>4325 <<4325+2000=6325>>6325\n#### 6325",
    )
    made, _ = augmented([original], copies=40, seed=1)
    assert len(made) == 40
    for varied in made:
        check(varied, original)
        shift, boxes, price, boss, day, weeks = DIGITS.findall(varied.question)
        assert shift[0] == "8" or shift in ("11", "18")
        assert re.fullmatch(r"[0-9],[0-9]{3}", boxes) and re.fullmatch(r"[0-9]\.[0-9]{2}", price)
        assert Fraction(price).denominator != 1 and 2 <= int(day) <= 24 and int(weeks) <= 51
        assert int(day) < int(shift) < int(weeks) < int(boxes.replace(",", "")) < int(boss.replace(",", ""))


def test_numbers_that_words_make():
    assert spelled_numbers("Twenty-five of one hundred and two, or three thousand four") == [25, 102, 3004]
    implied = implied_values("twice a week he sells half a dozen; a quarter is forty five percent")
    assert {2, 7, Fraction(1, 2), 12, 25, 45, 100} <= implied
    assert 11 not in implied


def test_numerals_read_and_write():
    texts = [n.text for n in numerals("$1,200.50, 3, 4 and .5 of 12-page 1/2 in 5,10.")]
    assert texts == ["1,200.50", "3", "4", ".5", "12", "1/2", "5", "10"]
    [money] = numerals("$1,200.50")
    assert money.value == Fraction("1200.5") and money.write(Fraction("12345.75")) == "12,345.75"
    assert numerals(".5")[0].write(Fraction(3, 4)) == ".8" or numerals(".5")[0].write(Fraction(3, 10)) == ".3"


@given(st.integers(0, 10**6), st.integers(0, 1999))
def test_recomputed_answers_are_what_the_steps_give(seed: int, index: int):
    original = arithmetic("test")[index]
    try:
        varied = bind(original).draw(random.Random(seed))
    except Refused:
        return
    if varied is not None:
        check(varied, original)


def test_the_usable_and_the_held_out():
    clips = "<<48/2=24>>24 <<48+24=72>>72\n#### 72"
    story = "A train of nine cars leaves the old town at dawn with 48 guests and half as many leave later. How many?"
    rows = [(CLIPS, clips), ("No steps?", "5"), ("Half of 15 nuts?", "<<15/2=7.5>>7.5\n#### 7.5"), (story, clips)]
    source = ProblemSet(tuple(problem(q, a, i) for i, (q, a) in enumerate(rows)), "source")
    assert [p.id for p in usable(source)] == ["train_0", "train_3"]
    nearly = problem(story.replace("48", "60").replace("dawn", "noon"), "90")
    result = training_set(source, held_out=[nearly], copies=2)
    assert [p.id for p in result.problems] == ["train_0", "train_0~1", "train_0~2"]
    assert (result.originals, result.unusable, [o.id for o in result.overlaps]) == (1, 2, ["train_3"])
    assert not result.overlaps[0].same and result.overlaps[0].jaccard > 0.4
    assert "1 near-duplicates of it" in str(result)
    assert training_set(source, held_out=[], copies=0).coverage is None
    [overlap] = OverlapFinder([source[0]]).find([source[0]])
    assert overlap.same
    # A held-out question inside a longer text is found, though most of the text is another's.
    [overlap] = OverlapFinder([nearly]).find([problem(" ".join([nearly.question, *map(chr, range(97, 123))] * 3), "1")])
    assert overlap.contained == 1.0


def test_what_cannot_be_used_is_an_error():
    with pytest.raises(ProblemError, match="holds no problem to learn from; expected whole answers"):
        usable(ProblemSet((problem("No steps?", "5"),), "mine"))
    clips = problem(CLIPS, "<<48/2=24>>24 <<48+24=72>>72\n#### 72")
    with pytest.raises(ProblemError, match="every problem of mine is in the held-out set"):
        training_set(ProblemSet((clips,), "mine"), held_out=[clips])
    with pytest.raises(ProblemError, match=r"counted from one; got copies=-1"):
        augmented([clips], copies=-1)


def test_gsm8k(gsm8k_dir):
    train, test = (read_problems(gsm8k_dir / f"{split}.jsonl") for split in ("train", "test"))
    near = OverlapFinder(test).find(train)
    assert 10 < len(near) < 40 and {"train_1314", "train_5162", "train_20", "train_1781"} <= {o.id for o in near}
    # A fifth of the problems, for the time that all of them take.
    part = ProblemSet(train.problems[::5], train.name)
    result = training_set(part, held_out=test, copies=1)
    coverage = result.coverage
    assert coverage is not None and 0.25 < coverage.share < 0.45
    assert sum(n for _, n in coverage.rows()) == coverage.problems == result.originals
    assert result.originals == len(usable(part)) - len(result.overlaps)
    assert not OverlapFinder(test).find(result.problems)
    by_id = {p.id: p for p in train}
    for varied in result.problems[result.originals :]:
        check(varied, by_id[varied.id.partition("~")[0]])
