"""A label read from the last-layer states of several models that answered the same problems, on the same folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from thoughtgraft.probing.controls import Setup, control_task, map_p, probe_linear, text_outcome
from thoughtgraft.probing.rows import Folds, Rows, join, make_folds
from thoughtgraft.probing.scores import Interval, Outcome, corrected_t, label_orders
from thoughtgraft.stats.resampling import family_rng

FOLDS, REPEATS, PERMUTATIONS = 5, 2, 200
COLUMNS = (
    "model", "target", "state", "n", "cv", "score", "ci_low", "ci_high", "text", "gain", "gain_low", "gain_high",
    "p_perm", "p_maxT", "note",
)  # fmt: skip


@dataclass(frozen=True)
class StateReadings:
    """What the linear probe reads of one label in `hidden[k]` of each model, beside the question's words.

    Attributes:
        rows: The problems, with the label.
        folds: Shared by all models, states and the text baseline.
        outcomes: By model: one for each state, k = 0 first.
        text: The question-only baseline.
    """

    rows: Rows
    folds: Folds
    outcomes: Mapping[str, tuple[Outcome, ...]]
    text: Outcome

    def table(self) -> pd.DataFrame:
        """One row per model and state.

        Returns:
            Balanced accuracy `score`, the baseline's `text` and `gain` = score - text, as fractions, with corrected
            resampled t intervals (95%); `p_perm` of the state alone and `p_maxT` adjusted over the model's states.
        """
        found = []
        for model, outcomes in self.outcomes.items():
            alone, whole = map_p(list(outcomes))
            for k, outcome in enumerate(outcomes):
                own, gain = corrected_t(outcome.score, self.folds), self.gain(outcome.score)
                where = (model, self.rows.target, k, len(self.rows), self.folds.label)
                figures = (own.value, own.low, own.high, self.text.mean, gain.value, gain.low, gain.high)
                note = "; ".join(dict.fromkeys(x for x in (own.note, gain.note) if x))
                found.append((*where, *figures, float(alone[k]), float(whole[k]), note))
        return pd.DataFrame(found, columns=list(COLUMNS))

    def gain(self, score: np.ndarray) -> Interval:
        """Score [fold] minus the text baseline's, paired by fold."""
        return corrected_t(score - self.text.score, self.folds)

    def thinking(self, model: str) -> np.ndarray:
        """Mean score over the states after begin-of-thought, `hidden[1..K]`, by fold [fold]."""
        return np.asarray(np.mean([outcome.score for outcome in self.outcomes[model][1:]], axis=0))


def read_states(
    states: Mapping[str, np.ndarray], ids: Sequence[str], labels: pd.DataFrame, target: str, seed: int = 0
) -> StateReadings:
    """Cross-validate the closed-form linear probe at every state of every model.

    Args:
        states: By model, float32 [problem, K + 1, d].
        ids: The problems, in the order of the states' rows.
        labels: Columns `id`, `question` and `target`; `split` and `template` where known.
        target: The label, taken as a class.
        seed: Seeds folds and permutations.

    Raises:
        AnalysisError: Too few problems, or the label has one value only.
    """
    rows = join(ids, labels, target, "class").without_rare(FOLDS)
    setup = Setup(
        rows,
        make_folds(rows, FOLDS, REPEATS, seed),
        label_orders(rows.groups, rows.split, PERMUTATIONS, family_rng(seed, "permute", target, "states")),
        control_task(rows, 1, family_rng(seed, "control", target)),
    )
    outcomes = {
        model: tuple(
            probe_linear(np.ascontiguousarray(x[rows.index, k], dtype=np.float32), setup) for k in range(x.shape[1])
        )
        for model, x in states.items()
    }
    text = text_outcome(rows, setup.folds)
    assert text is not None, "the labels have questions"
    return StateReadings(rows, setup.folds, outcomes, text)
