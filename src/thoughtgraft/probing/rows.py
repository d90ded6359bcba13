"""One cell's rows of features and labels, and the folds that keep a problem's copies together."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from thoughtgraft.errors import AnalysisError
from thoughtgraft.records.states import States

Kind = Literal["class", "number"]
KINDS = ("auto", "class", "number", "log-number")
# A number with more distinct values than this is a quantity, not a class.
MOST_CLASSES = 10
FEWEST = 3


@dataclass(frozen=True)
class Rows:
    """The problems probed, row by row.

    Attributes:
        target: Name of the label column.
        kind: `class`, or `number` (a quantity: regression).
        values: Class codes (0-based) or numbers, shape [row].
        classes: Names of the classes, by code; empty for a number.
        index: Row of each problem in the features' matrices.
        ids: Problem ids.
        groups: Code of the question's content: equal questions share it and never stand on both sides of a fold.
        split: The problem's split, "unknown" where the labels do not say.
        questions: Texts; None where the labels have none.
        templates: Frames of generated problems; None where unknown.
        note: What was left out, and why.
    """

    target: str
    kind: Kind
    values: np.ndarray
    classes: tuple[str, ...]
    index: np.ndarray
    ids: tuple[str, ...]
    groups: np.ndarray
    split: np.ndarray
    questions: tuple[str, ...] | None
    templates: tuple[str, ...] | None
    note: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shares(self) -> np.ndarray:
        """Share of each class, shape [class]."""
        return np.bincount(self.values, minlength=len(self.classes)) / len(self)

    def take(self, keep: np.ndarray) -> Rows:
        """Some of the rows (a mask or places); classes that are gone are dropped from the codes."""
        places = np.arange(len(self))[keep]

        def some(texts: tuple[str, ...] | None) -> tuple[str, ...] | None:
            return None if texts is None else tuple(texts[i] for i in places)

        values, classes = self.values[places], self.classes
        if self.kind == "class":
            present, values = np.unique(values, return_inverse=True)
            classes = tuple(classes[i] for i in present)
        return replace(
            self,
            values=values,
            classes=classes,
            index=self.index[places],
            ids=tuple(self.ids[i] for i in places),
            groups=np.unique(self.groups[places], return_inverse=True)[1],
            split=self.split[places],
            questions=some(self.questions),
            templates=some(self.templates),
        )

    def without_rare(self, fewest: int) -> Rows:
        """Without classes that fewer than `fewest` distinct questions have; the note says which."""
        if self.kind == "number":
            return self
        sizes = [len(np.unique(self.groups[self.values == code])) for code in range(len(self.classes))]
        rare = [code for code, size in enumerate(sizes) if size < fewest]
        if not rare:
            return self
        names = ", ".join(f"{self.classes[code]} ({sizes[code]})" for code in rare)
        kept = self.take(~np.isin(self.values, rare))
        said = f"classes with fewer than {fewest} distinct questions are left out: {names}"
        return replace(kept, note="; ".join(x for x in (self.note, said) if x))


def join(ids: Sequence[str], labels: pd.DataFrame, target: str, kind: str = "auto") -> Rows:
    """Join features and labels by problem id; problems without the label are left out, and counted.

    Args:
        ids: The features' problem ids, in the order of their rows.
        labels: Columns `id` and `target`; `question`, `split` and `template` where known.
        target: The label to be read.
        kind: `class`, `number`, `log-number` (the signed decimal logarithm of 1 + |x|, for magnitudes), or `auto`:
            numbers with more than 10 distinct values, or with fractions, are numbers; everything else is a class.

    Raises:
        AnalysisError: A column is missing, ids repeat or do not meet, or the label has only one value.
    """
    if kind not in KINDS:
        raise AnalysisError("unknown kind of target", got=repr(kind), expected=", ".join(KINDS))
    place = {str(problem): row for row, problem in enumerate(ids)}
    known = _labelled(place, labels, target)
    values, classes = _values(known[target], target, kind)
    if len(np.unique(values)) < 2:
        raise AnalysisError(f"the label {target!r} has only one value", got=repr(known[target].iloc[0]))

    def text(name: str) -> tuple[str, ...] | None:
        return tuple(map(str, known[name])) if name in known and known[name].notna().all() else None

    questions = text("question")
    keys = [content(q) for q in questions] if questions else list(known.index)
    lost = len(place) - len(known)
    notes = [f"{lost} of {len(place)} problems have no label {target!r} and are left out"] if lost else []
    if questions is None:
        notes.append("the labels have no questions: equal questions cannot be kept on one side of a fold")
    return Rows(
        target=target,
        kind="class" if classes else "number",
        values=values,
        classes=classes,
        index=np.array([place[name] for name in known.index]),
        ids=tuple(known.index),
        groups=np.unique(keys, return_inverse=True)[1],
        split=np.array(text("split") or ["unknown"] * len(known), dtype=object),
        questions=questions,
        templates=text("template"),
        note="; ".join(notes),
    )


def _labelled(place: Mapping[str, int], labels: pd.DataFrame, target: str) -> pd.DataFrame:
    """The labels of the problems in `place` that have one, by id, in its order."""
    for needed in ("id", target):
        if needed not in labels:
            raise AnalysisError(
                f"the labels have no column {needed!r}",
                got=", ".join(map(str, labels.columns)),
                fix="name one of their columns as the target" if needed == target else "give each row a problem's id",
            )
    table = labels.drop_duplicates("id").set_index("id")
    if len(table) < len(labels):
        raise AnalysisError("the labels name problems twice", got=f"{len(labels) - len(table)} repeated ids")
    table.index = table.index.map(str)
    known = table.loc[[name for name in place if name in table.index]]
    column: pd.Series = known[target]
    if column.dtype == object or str(column.dtype) == "str":
        # GSM8K's rule says "unknown" where it found no arithmetic: that is no class.
        column = column.where(column.astype(str) != "unknown", None)
    known = known[column.notna().to_numpy()]
    if not len(known):
        raise AnalysisError(
            f"no problem has both features and a label {target!r}",
            got=f"{len(place)} problems with features, {len(table)} with labels",
            fix="use labels whose ids are those of the features",
        )
    return known


def content(question: str) -> str:
    """Hash of what a question says, whatever its spacing and case."""
    return hashlib.sha256(" ".join(question.split()).casefold().encode()).hexdigest()[:16]


def _values(column: pd.Series, target: str, kind: str) -> tuple[np.ndarray, tuple[str, ...]]:
    boolean = str(column.dtype) in ("bool", "boolean")
    numbers = np.full(len(column), np.nan) if boolean else pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
    numeric = bool(np.isfinite(numbers).all())
    if kind == "auto":
        quantity = numeric and (len(np.unique(numbers)) > MOST_CLASSES or bool((numbers % 1 != 0).any()))
        kind = "number" if quantity else "class"
    if kind == "class":
        # Numbers in their own order (2 before 10), texts by name.
        order = sorted(column.unique(), key=lambda v: (float(v), "") if numeric else (math.inf, str(v)))
        code = {value: place for place, value in enumerate(order)}
        return np.array([code[value] for value in column]), tuple(map(str, order))
    if not numeric:
        text = repr(column.iloc[int(np.argmin(np.isfinite(numbers)))])
        raise AnalysisError(f"the label {target!r} holds what is not a number", got=text, fix="probe it as a class")
    return (np.sign(numbers) * np.log10(1 + np.abs(numbers)) if kind == "log-number" else numbers), ()


# A quantity is stratified by this many bins of equal size.
BINS = 5


@dataclass(frozen=True)
class Fold:
    """One division of the rows: places (0-based) to learn from and to be asked about."""

    repeat: int
    train: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Folds:
    """All divisions of one analysis, shared by every probe and control so that they are compared on the same rows."""

    folds: tuple[Fold, ...]
    k: int
    repeats: int

    @property
    def label(self) -> str:
        """For tables: `10-fold x 5, grouped`."""
        return f"{self.k}-fold x {self.repeats}, grouped"

    def first(self, repeats: int) -> Folds:
        """Only the first repeats."""
        n = min(repeats, self.repeats)
        return Folds(tuple(f for f in self.folds if f.repeat < n), self.k, n)

    def within(self, keep: np.ndarray) -> Folds | None:
        """The same folds of some of the rows (a mask), counted anew; None where a fold is left without test rows."""
        place = np.cumsum(keep) - 1
        parts = tuple(Fold(f.repeat, place[f.train[keep[f.train]]], place[f.test[keep[f.test]]]) for f in self.folds)
        return Folds(parts, self.k, self.repeats) if all(len(f.test) for f in parts) else None


def make_folds(rows: Rows, k: int, repeats: int, seed: int) -> Folds:
    """Draw the folds; k is lowered to the number of distinct questions in the smallest class.

    Raises:
        AnalysisError: Fewer than 3 folds are possible.
    """
    strata = strata_of(rows)
    sizes = [len(np.unique(rows.groups[strata == s])) for s in np.unique(strata)]
    possible = min(k, *sizes)
    if possible < FEWEST:
        raise AnalysisError(
            f"too few problems to probe {rows.target!r}",
            got=f"{min(sizes)} distinct questions in the smallest class",
            expected=f"at least {FEWEST}",
            fix="label more problems, or leave that class out",
        )
    made = []
    for repeat in range(repeats):
        splitter = StratifiedGroupKFold(n_splits=possible, shuffle=True, random_state=seed + repeat)
        for train, test in splitter.split(np.zeros(len(rows)), strata, rows.groups):
            if len(test):
                made.append(Fold(repeat, train, test))
    return Folds(tuple(made), possible, repeats)


def strata_of(rows: Rows) -> np.ndarray:
    """What folds are balanced by: the class, or the bin of a quantity; shape [row]."""
    if rows.kind == "class":
        return rows.values
    ranks = pd.Series(rows.values).rank(method="first").to_numpy()
    return np.minimum((ranks - 1) * BINS // len(ranks), BINS - 1).astype(int)


BOT = "BOT"
RESID, MEAN, LAYERS, UNTRAINED, HIDDEN = "resid", "mean", "layers", "untrained", "hidden"


@dataclass(frozen=True)
class Place:
    """One cell: which features a probe reads.

    Attributes:
        slot: BOT, CTk, or `mean(CT)` for the mean over the thoughts.
        layer: The layer; None where all are joined.
        features: `resid` (a cell of the map), `mean` (over thoughts), `layers` (all layers side by side), `hidden`
            (the final-normed state, of which a thought is made), or `untrained` (a cell of the map, of an untrained
            model of the same shape).
    """

    slot: str
    layer: int | None
    features: str = RESID

    @property
    def label(self) -> str:
        """For people: `CT2, layer 8`."""
        if self.features == HIDDEN:
            return f"{self.slot}, final state"
        return f"{self.slot}, {'all layers' if self.layer is None else f'layer {self.layer}'}"

    def load(self, source: States, rows: np.ndarray) -> np.ndarray:
        """The matrix [row, d], float32, of the rows wanted.

        Raises:
            RunError: A value is not finite.
        """
        if self.features == MEAN:
            assert self.layer is not None
            thoughts = [p for p in source.positions if p != BOT]
            x = np.stack([source.matrix(self.layer, p)[rows] for p in thoughts]).mean(axis=0)
        elif self.features == HIDDEN:
            x = source.matrix(HIDDEN, self.slot)[rows]
        elif self.layer is None:
            x = np.concatenate([source.matrix(layer, self.slot)[rows] for layer in source.layers], axis=1)
        else:
            x = source.matrix(self.layer, self.slot)[rows]
        return np.asarray(x, dtype=np.float32)


def map_places(source: States, features: str = RESID) -> list[Place]:
    """The slot x layer map, layer by layer."""
    return [Place(slot, layer, features) for layer in source.layers for slot in source.positions]


def joined_places(source: States) -> list[Place]:
    """Beside the map: the mean over thoughts at each layer, all layers side by side, and the final state at BOT."""
    thoughts = [p for p in source.positions if p != BOT]
    means = [Place("mean(CT)", layer, MEAN) for layer in source.layers] if len(thoughts) > 1 else []
    whole = [Place(slot, None, LAYERS) for slot in source.positions] if len(source.layers) > 1 else []
    final = [Place(BOT, None, HIDDEN)] if getattr(source, "has_hidden", False) and BOT in source.positions else []
    return means + whole + final
