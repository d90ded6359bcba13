"""Records as validated arrays: one `Cells` per arm, hosts, donors and answers coded once, slots named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from thoughtgraft.arguments import need, shown
from thoughtgraft.edits.known import Swap
from thoughtgraft.errors import AnalysisError
from thoughtgraft.records.schema import ARM_COLUMNS, ArmKey, Family
from thoughtgraft.stats.intervals import Floats, Ints
from thoughtgraft.tasks.grading import NUMBER, Grader

REQUIRED = ("method", "slots", "problem_id", "base_correct", "correct")
PLACE = ("label", *ARM_COLUMNS)
"""The columns of a table that say which arm a row is of: its site in words, and typed as in records."""


@dataclass(frozen=True)
class Frame:
    """All arms of one run.

    `n_slots` is the number of slots the edits reach (largest edited slot + 1). `duplicates` counts rows that
    repeat a cell; only their first is kept. `failures` counts failed cells, which no arm holds, by their reason, the
    most frequent first; None where the records have no column `error` and so cannot show them.
    """

    hosts: tuple[str, ...]
    donors: tuple[str, ...]
    answers: tuple[str, ...]
    arms: dict[ArmKey, Cells]
    n_slots: int
    n_rows: int
    duplicates: int
    failures: Mapping[str, int] | None

    @property
    def n_cells(self) -> int:
        """Distinct cells, failed ones included."""
        return self.n_rows - self.duplicates

    @property
    def n_failed(self) -> int:
        """Cells that failed; they are in no estimate."""
        return sum(cells.n_failed for cells in self.arms.values())

    def columns(self, arm: ArmKey) -> dict[str, Any]:
        """The columns `PLACE` of an arm: no later thoughts and no donors are "" here."""
        return {"label": arm.place(self.n_slots)} | arm.columns | {"downstream": arm.after, "donor_stratum": arm.donors}

    @property
    def every(self) -> tuple[int, ...]:
        """All slots."""
        return tuple(range(self.n_slots))

    @property
    def primary(self) -> Family:
        """The family of the confirmatory claims: swaps of what slots are fed, recomputed, of the primary stratum."""
        return Family(Swap.name, donors=self.primary_stratum())

    def get(self, family: Family, slots: Sequence[int]) -> Cells | None:
        """The finished cells of a family's arm at these slots; None where it has none."""
        cells = self.arms.get(family.at(slots))
        return cells if cells is not None and len(cells) else None

    def singles(self, family: Family) -> dict[int, Cells]:
        """The single-slot arms of one family, by slot, in order."""
        return {k: cells for k in self.every if (cells := self.get(family, (k,))) is not None}

    def families(self) -> list[Family]:
        """Every family with at least one edited arm, in the order of the arms."""
        return list(dict.fromkeys(key.family for key in self.arms if key.slots))

    def host_by_slot(self, family: Family) -> Floats:
        """Mean paired accuracy loss, shape [host of the run, slot 0..n_slots-1]; NaN where there is no cell."""
        out = np.full((len(self.hosts), self.n_slots), np.nan)
        for slot, cells in self.singles(family).items():
            out[:, slot] = cells.host_mean(cells.difference, len(self.hosts))
        return out

    def primary_stratum(self) -> str:
        """The donor stratum of the confirmatory claims: `random`, or the only one that the swaps have."""
        found = sorted({key.donors for key in self.arms if key.method == Swap.name})
        return "random" if "random" in found or not found else found[0]


def _answer_codes(columns: Sequence[pd.Series], grader: Grader) -> tuple[list[Ints], tuple[str, ...]]:
    """Code answers so that equal ones share a code, however they are written; null becomes -1."""
    known: dict[str, str] = {}
    for column in columns:
        for text in column.dropna().unique():
            if (canonical := grader.canonical(str(text))) is None:
                raise AnalysisError(
                    f"an answer in the records is no {grader.noun}",
                    got=repr(text),
                    expected=f"{grader.wanted}; or null where nothing was parsed",
                    fix="re-grade the run so that pred, gold, base_pred and donor_pred hold answers",
                )
            known[str(text)] = canonical
    answers = tuple(sorted(set(known.values())))
    position = {answer: code for code, answer in enumerate(answers)}
    coded = []
    for column in columns:
        codes, found = _factors(column)
        coded.append(np.array([*(position[known[text]] for text in found), -1], dtype=np.int64)[codes])
    return coded, answers


def _flag(column: pd.Series) -> Floats:
    """True/False/null as 1/0/NaN."""
    found = column.map({True: 1.0, False: 0.0}).astype(float)
    _refuse_lost(column, found, "true, false or null")
    return found.to_numpy()


def _figures(column: pd.Series) -> Floats:
    """Numbers, and NaN for null."""
    found = pd.to_numeric(column, errors="coerce").astype(float)
    _refuse_lost(column, found, "numbers or null")
    return found.to_numpy()


def _refuse_lost(column: pd.Series, found: pd.Series, expected: str) -> None:
    """Refuse values that would be taken for null, which a failed cell has."""
    if (lost := found.isna() & column.notna()).any():
        got = f"{shown(column[lost].iloc[0])} in {int(lost.sum())} rows"
        raise AnalysisError(f"the column {column.name} of the records cannot be read", got=got, expected=expected)


def _column(records: pd.DataFrame, name: str) -> pd.Series:
    return records[name] if name in records else pd.Series(np.nan, index=records.index, dtype=object)


def _factors(column: pd.Series) -> tuple[Ints, list[str]]:
    """0-based codes of a column's values (null: -1) and their texts. Only distinct values are touched one by one."""
    codes, values = pd.factorize(column)
    return codes.astype(np.int64), [str(value) for value in values]


def _index(column: pd.Series) -> tuple[Ints, tuple[str, ...]]:
    """0-based codes in sorted order of the ids (null: -1), so that results do not depend on row order."""
    codes, texts = _factors(column)
    places, uniques = pd.factorize(np.array(texts, dtype=object), sort=True)
    return np.append(places, -1).astype(np.int64)[codes], tuple(uniques)


def _arms(records: pd.DataFrame, donor: Ints) -> tuple[list[ArmKey], Ints]:
    """The distinct arms in order, and each row's 0-based place among them."""
    known: dict[object, tuple[int, ...]] = {}
    slots = [known[v] if isinstance(v, tuple) and v in known else _learn(known, v) for v in records["slots"]]
    columns = [_column(records, name) for name in _TEXTS]
    factors = [_factors(column) for column in (pd.Series(slots, dtype=object), *columns)]
    sets = list(dict.fromkeys(slots))
    texts = [[*found, None] for _, found in factors]
    # Each combination gets one number; null's code -1 becomes the last.
    codes = [np.where(codes < 0, len(found), codes) for codes, found in factors]
    sizes = [*map(len, texts), 2]
    numbers, group = np.unique(np.ravel_multi_index([*codes, donor >= 0], sizes), return_inverse=True)
    keys = []
    for s, *places, paired in np.transpose(np.unravel_index(numbers, sizes)):
        row = {name: text[at] for name, text, at in zip(_TEXTS, texts[1:], places, strict=True)}
        key = ArmKey.of_row(row | {"slots": sets[s]})
        keys.append(key if paired else replace(key, donors=""))
    order = sorted(set(keys))
    place = {key: i for i, key in enumerate(order)}
    return order, np.array([place[key] for key in keys])[group]


_TEXTS = tuple(name for name in ARM_COLUMNS if name != "slots")


def _learn(known: dict[object, tuple[int, ...]], value: object) -> tuple[int, ...]:
    found = as_slots(value)
    if isinstance(value, tuple):
        known[value] = found
    return found


def _check(records: pd.DataFrame, host: Ints, base: Floats, hosts: tuple[str, ...]) -> None:
    """Refuse records that mix runs which cannot be pooled, or whose baseline contradicts itself."""
    found = sorted(map(str, records["protocol"].dropna().unique())) if "protocol" in records else []
    if len(found) > 1:
        fix = "analyse each protocol's run alone"
        raise AnalysisError("the records mix protocols", got=", ".join(found), expected="one", fix=fix)
    if np.isnan(base).any():
        empty = f"{int(np.isnan(base).sum())} rows"
        raise AnalysisError("base_correct is null in some records", got=empty, expected="true or false in all")
    ones = np.bincount(host, base, len(hosts))
    torn = np.flatnonzero((ones > 0) & (ones < np.bincount(host, minlength=len(hosts))))
    if len(torn):
        raise AnalysisError(
            "base_correct differs between records of one problem",
            got=", ".join(hosts[i] for i in torn[:5]),
            expected="one clean run per problem",
            fix="analyse each run folder alone",
        )


def _draws(group: Ints, host: Ints) -> Ints:
    """0-based position of each row within its (arm, host); rows must be sorted by arm, then host."""
    starts = np.flatnonzero(np.r_[True, (np.diff(group) != 0) | (np.diff(host) != 0)])
    return np.arange(len(host)) - np.repeat(starts, np.diff(np.r_[starts, len(host)]))


def build_frame(records: pd.DataFrame, grader: Grader = NUMBER) -> Frame:
    """Check records and split them into arms.

    Args:
        records: One row per generation. Needs the columns method, slots, problem_id, base_correct and correct;
            the others of the record schema are used where present. Rows with an `error`, or without `correct`,
            are counted as failed and left out.
        grader: How answers are compared.

    Returns:
        The frame; nothing in it depends on the order of the rows.

    Raises:
        AnalysisError: A column is missing, nothing is left, or the rows contradict one another.
    """
    records = _usable(records)
    host, hosts = _index(records["problem_id"])
    if (host < 0).any():
        raise AnalysisError("problem_id is null in some records", got=f"{int((host < 0).sum())} rows")
    donor, donors = _index(_column(records, "donor_id"))
    base, correct = _flag(records["base_correct"]), _flag(records["correct"])
    _check(records, host, base, hosts)
    coded, answers = _answer_codes([_column(records, n) for n in ("pred", "base_pred", "gold", "donor_pred")], grader)
    keys, group = _arms(records, donor)
    error = _column(records, "error")
    failed = (error.notna() & (error.astype(object) != "")).to_numpy(dtype=bool) | np.isnan(correct)
    order, repeated = _places(records, group, host, donor)

    kept = order[~(repeated | failed)[order]]
    draw = np.zeros(len(records), dtype=np.int64)
    draw[kept] = _draws(group[kept], host[kept])
    n_failed = np.bincount(group, weights=failed & ~repeated, minlength=len(keys)).astype(int)
    bounds = np.searchsorted(group[kept], np.arange(len(keys) + 1))
    arrays = (host, donor, draw, base, correct, *_outcomes(records, coded), *coded)
    arms = {}
    for i, key in enumerate(keys):
        rows = kept[bounds[i] : bounds[i + 1]]
        arms[key] = Cells(key, int(n_failed[i]), *(array[rows] for array in arrays))
    failures = reasons(error[failed & ~repeated]) if "error" in records else None
    n_slots = max((slot for key in arms for slot in key.slots), default=-1) + 1
    return Frame(hosts, donors, answers, arms, n_slots, len(records), int(repeated.sum()), failures)


def _usable(records: pd.DataFrame) -> pd.DataFrame:
    """The records with rows numbered from 0; refuses what is no table of records."""
    fix = "records of load_records(FOLDER), or load_run(FOLDER).records()"
    need(records, pd.DataFrame, "the records", AnalysisError, expected="a DataFrame of records", fix=fix)
    if not records.columns.is_unique:
        twice = records.columns[records.columns.duplicated()][0]
        raise AnalysisError("records have a column twice", got=shown(twice), expected="each column once")
    missing = [name for name in REQUIRED if name not in records]
    if missing:
        raise AnalysisError("records lack columns", got=f"no {', '.join(missing)}", expected=", ".join(REQUIRED))
    if not len(records):
        raise AnalysisError("there are no records", fix="finish the run, then analyse it")
    return records.reset_index(drop=True)


def _places(records: pd.DataFrame, group: Ints, host: Ints, donor: Ints) -> tuple[Ints, np.ndarray]:
    """The order of the rows, by arm, host, donor, seed and cell; and whether each repeats an earlier cell.

    A cell is repeated if its recorded key is (within one stratum: a pair may serve several), or, without a recorded
    key, if the same donor meets the same host twice in one arm.
    """
    seeds, _ = _index(_column(records, "seed"))
    names, _ = _index(_column(records, "cell"))
    identity = pd.DataFrame({"g": group, "h": host, "d": donor, "s": seeds, "c": names})
    repeated = identity.duplicated().to_numpy() | (identity.duplicated(["g", "h", "d"]).to_numpy() & (donor >= 0))
    return np.lexsort((names, seeds, donor, host, group)), repeated


def _outcomes(records: pd.DataFrame, coded: Sequence[Ints]) -> tuple[Floats, Floats, Floats, Floats]:
    """Whether the answer changed and parsed (from the answers' codes where no column says so), dlogp and KL."""
    changed, valid = (_flag(_column(records, name)) for name in ("changed", "valid"))
    changed = np.where(np.isnan(changed), (coded[0] != coded[1]).astype(float), changed)
    valid = np.where(np.isnan(valid), (coded[0] >= 0).astype(float), valid)
    return changed, valid, _figures(_column(records, "dlogp_gold")), _figures(_column(records, "kl"))


def reasons(error: pd.Series) -> dict[str, int]:
    """Failed cells by what their records say, the most frequent reason first."""
    counts = error.astype(object).where(error.notna(), "no outcome and no reason").value_counts()
    return {str(reason): int(n) for reason, n in sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))}


def as_frame(records: pd.DataFrame | Frame) -> Frame:
    """The frame itself, or one built from records."""
    return records if isinstance(records, Frame) else build_frame(records)


@dataclass(frozen=True)
class Cells:
    """The finished generations of one arm, one entry per cell, sorted by host, then donor or draw.

    `host` and `donor` are 0-based indices into the run's `Frame.hosts` and `Frame.donors` (donor -1: none), so
    that arms align. `pred`, `base_pred`, `gold`, `donor_pred` are codes of exact numbers (-1: nothing parsed);
    two codes are equal exactly when the numbers are. Everything has shape [cell].
    """

    arm: ArmKey
    n_failed: int
    host: Ints
    donor: Ints
    draw: Ints
    base_correct: Floats
    correct: Floats
    changed: Floats
    valid: Floats
    dlogp: Floats
    kl: Floats
    pred: Ints
    base_pred: Ints
    gold: Ints
    donor_pred: Ints

    def __len__(self) -> int:
        return len(self.host)

    @property
    def difference(self) -> Floats:
        """Paired loss of accuracy, base_correct - correct, in {-1, 0, 1}; shape [cell]."""
        return np.asarray(self.base_correct - self.correct)

    @property
    def has_donors(self) -> bool:
        """Whether every cell has a donor."""
        return bool(len(self)) and bool((self.donor >= 0).all())

    @property
    def n_hosts(self) -> int:
        """Number of distinct hosts."""
        return len(np.unique(self.host))

    @property
    def n_donors(self) -> int:
        """Number of distinct donors; 0 without donors."""
        return len(np.unique(self.donor[self.donor >= 0]))

    @cached_property
    def weight(self) -> Floats:
        """Weights that sum to 1 and count every host equally, however many draws it has; shape [cell]."""
        counts = np.bincount(self.host)
        return np.asarray(1.0 / (counts[self.host] * (counts > 0).sum()))

    @cached_property
    def pair(self) -> Ints:
        """A key of (host, donor), or (host, draw) without donors, by which two arms are paired; shape [cell]."""
        other = self.donor if self.has_donors else self.draw
        return np.asarray(self.host.astype(np.int64) * 1_000_000 + other)

    def grid(self, values: Floats) -> Floats:
        """`values` [cell] as a matrix [host, draw]; rows are the arm's hosts in order, NaN where a draw is missing."""
        hosts, row = np.unique(self.host, return_inverse=True)
        out = np.full((len(hosts), int(self.draw.max()) + 1), np.nan)
        out[row, self.draw] = values
        return out

    def host_mean(self, values: Floats, n_hosts: int) -> Floats:
        """Mean of `values` [cell] by host of the run, shape [n_hosts]; NaN for hosts that the arm lacks."""
        counts = np.bincount(self.host, minlength=n_hosts)
        sums = np.bincount(self.host, weights=values, minlength=n_hosts)
        return np.asarray(np.divide(sums, counts, out=np.full(n_hosts, np.nan), where=counts > 0))


def paired(first: Cells, second: Cells) -> tuple[Ints, Ints]:
    """Positions in `first` and `second` of the cells that both hold (same host, and donor or draw).

    When only `first` has donors, each of its cells is paired with its host's first cell in `second`.
    """
    if first.has_donors != second.has_donors:
        one = np.unique(second.host, return_index=True)
        where = {int(h): int(i) for h, i in zip(*one, strict=True)}
        left = np.flatnonzero(np.isin(first.host, one[0]))
        return left, np.array([where[int(h)] for h in first.host[left]], dtype=np.int64)
    _, left, right = np.intersect1d(first.pair, second.pair, assume_unique=True, return_indices=True)
    return left, right


def arm_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """A table of effects: slots are tuples, layers nullable whole numbers."""
    table = pd.DataFrame(rows, columns=list(columns))
    return table.astype({"site_layer": "Int32"}) if "site_layer" in columns else table


def as_slots(value: object) -> tuple[int, ...]:
    """A record's `slots` (list or array of 0-based ints, null for none) as a sorted tuple.

    Raises:
        AnalysisError: The value is text or not a list of whole numbers.
    """
    if value is None or (isinstance(value, float) and value != value):
        return ()
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise AnalysisError(
            "the slots of a record cannot be read",
            got=repr(value),
            expected="a list of 0-based slot numbers, such as [0] or [0, 1]",
            fix="read the records from parquet, where slots are lists",
        )
    return tuple(sorted(int(slot) for slot in value))


def reaches_end(slots: tuple[int, ...], n_slots: int) -> bool:
    """Whether no unedited slot follows the first edited one: then every downstream rule is the same run."""
    return bool(slots) and slots == tuple(range(slots[0], n_slots))
