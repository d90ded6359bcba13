"""What the intervals and verdicts are worth: coverage, false verdicts and power in populations that are known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.tables import table
from benchmarks.worlds import World
from thoughtgraft.effects.gates import RULE
from thoughtgraft.stats.intervals import family_bounds
from thoughtgraft.stats.verdicts import Verdict, verdict

DESIGNS = 1_000
SPREADS = ((0.0, 0.0), (2.0, 0.0), (0.0, 2.0), (2.0, 2.0))
"""Sds of host and donor effects against a noise of 1; at 2, a slot's events gather in few hosts or donors."""
SLOTS = 6


@dataclass(frozen=True)
class Setting:
    """One row of the table: an effect and a size of design, in each of the four spreads."""

    effect: str
    size: str
    worlds: tuple[World, ...]


@dataclass(frozen=True)
class Score:
    """Shares over the designs of one world.

    Attributes:
        alone: Slots whose unadjusted interval holds the truth.
        together: Designs in which every simultaneous interval does.
        false: Designs with a verdict that is not true of its slot.
        verdicts: Slots by verdict.
        width: Mean width of the simultaneous intervals.
    """

    alone: float
    together: float
    false: float
    verdicts: dict[str, float]
    width: float


def score(world: World, designs: int = DESIGNS, seed: int = 0) -> Score:
    """Draw designs from a world, and judge each as a run is judged."""
    rng = np.random.default_rng([seed, *repr(world).encode()])
    truths, margin = world.truths, RULE.margin
    alone, together, false, widths, said = [], [], [], [], []
    for _ in range(designs):
        found = family_bounds(world.design(rng), alpha=RULE.alpha)
        ends = np.array([(b.low, b.high, b.sim_low, b.sim_high) for b in found])
        # A truth on an end is covered; 1e-9 is for rounding.
        inside = [(ends[:, i] <= truths + 1e-9) & (truths - 1e-9 <= ends[:, i + 1]) for i in (0, 2)]
        words = [verdict(b.sim_low, b.sim_high, margin, too_small=b.too_small) for b in found]
        alone.append(inside[0].mean())
        together.append(inside[1].all())
        false.append(not all(word.holds(round(t, 12), margin) for word, t in zip(words, truths.tolist(), strict=True)))
        widths.append((ends[:, 3] - ends[:, 2]).mean())
        said += words
    shares = {word.value: said.count(word) / len(said) for word in Verdict if word in said}
    return Score(*(float(np.mean(x)) for x in (alone, together, false)), shares, float(np.mean(widths)))


def _setting(effect: str, size: str, outcome: str, rates: float | Sequence[float], **options: object) -> Setting:
    hosts, draws = (int(x) for x in size.split(" x "))
    every = (rates,) * SLOTS if isinstance(rates, float) else tuple(rates)
    spreads = SPREADS if draws else SPREADS[:2]
    worlds = (World(outcome, every, host_sd=h, donor_sd=d, hosts=hosts, draws=draws, **options) for h, d in spreads)
    return Setting(effect, size, tuple(worlds))


def settings() -> list[Setting]:
    """Every row of the table."""
    rows = []
    for size in ("100 x 10", "20 x 5", "10 x 3"):
        rows += [_setting("none; 1% lost, 1% gained", size, "impact", 0.01, gained=0.01)]
        rows += [_setting("none; 10% lost, 10% gained", size, "impact", 0.10, gained=0.10)]
        rows += [_setting(f"{100 * loss:g}% lost", size, "impact", loss) for loss in (0.01, 0.03, 0.05, 0.20)]
    rows.append(_setting("none; 1% lost, 1% gained", "300 x 10", "impact", 0.01, gained=0.01))
    rows += [_setting(f"{loss:.0%} lost", "300 x 10", "impact", loss) for loss in (0.01, 0.03)]
    for loss in (0.01, 0.05, 0.20):
        rows.append(_setting(f"{100 * loss:g}% lost, of the right ones", "100 x 10", "given correct", loss))
    for size in ("100 x 10", "50 x 10", "20 x 5"):
        rows += [_setting(f"{100 * rate:.1f} pp adopted", size, "adoption", rate) for rate in (0.016, 0.049)]
    for size in ("100 x 10", "20 x 5"):
        rows.append(_setting("unbalanced; 10% lost, 10% gained", size, "impact", 0.10, gained=0.10, unbalanced=True))
        rows += [
            _setting(f"unbalanced; {loss:.0%} lost", size, "impact", loss, unbalanced=True) for loss in (0.05, 0.2)
        ]
    unlike = (0.0, 0.005, 0.03, 0.05, 0.20, 0.60)
    rows += [_setting("slots from 0 to 60% lost", size, "impact", unlike) for size in ("100 x 10", "20 x 5")]
    rows += [_setting(f"one arm alone; {loss:.0%} lost", "100 x 10", "impact", (loss,)) for loss in (0.01, 0.05)]
    rows += [_setting(f"no donors; {loss:.0%} lost", "100 x 0", "impact", loss) for loss in (0.01, 0.05)]
    rows.append(_setting("20% lost; 8 donors in all", "100 x 5", "impact", 0.20, pool=8))
    rows += [_setting("real values of mean 0, sd 1", size, "real", 0.0) for size in ("100 x 10", "20 x 5")]
    rows.append(_setting("20% lost; fragile hosts are harmful donors", "100 x 10", "impact", 0.20, alike=0.5))
    return [*rows, _setting("28 cells of a map; 5% lost", "100 x 10", "impact", (0.05,) * 28)]


def measure(rows: Sequence[Setting], designs: int = DESIGNS) -> Iterator[tuple[Setting, list[Score]]]:
    """Each setting with the scores of its worlds, as they come."""
    for row in rows:
        yield row, [score(world, designs) for world in row.worlds]


HEADER = ("true effect", "hosts x donors", "alone", "together", "false verdict", "above 0", "negligible", "half width")


def line(row: Setting, scores: Sequence[Score]) -> list[str]:
    """A row of the table: the worst of its worlds, and the range of what the verdicts found."""
    found = [sum(s.verdicts.get(word, 0.0) for word in ("ABOVE", "PRESENT", "SMALL")) for s in scores]
    none = [s.verdicts.get("NEGLIGIBLE", 0.0) for s in scores]
    return [
        row.effect,
        row.size,
        f"{min(s.alone for s in scores):.1%}",
        f"{min(s.together for s in scores):.1%}",
        f"{max(s.false for s in scores):.1%}",
        *(f"{min(x):.0%} to {max(x):.0%}" for x in (found, none)),
        " to ".join(f"{50 * f(s.width for s in scores):.1f}" for f in (min, max)) + " pp",
    ]


def show(rows: Iterable[tuple[Setting, list[Score]]]) -> list[tuple[Setting, list[Score]]]:
    """Print the table in markdown, each row as it comes; return them all."""
    print(table(HEADER, []))
    done = []
    for row, scores in rows:
        print(table(line(row, scores), []).split("\n")[0], flush=True)
        done.append((row, scores))
    return done
