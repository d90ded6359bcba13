"""A resampling run analysed: every table, each computed once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from thoughtgraft.arguments import answers_for_calls, need, seed_of
from thoughtgraft.effects.comparisons import agreement_table, contrast_table, dose_table, mediation_table
from thoughtgraft.effects.counterfactual import counterfactual_table
from thoughtgraft.effects.decision import Decision, Tables, decide
from thoughtgraft.effects.frame import Frame, build_frame
from thoughtgraft.effects.gates import NOTHING_KNOWN, Known
from thoughtgraft.effects.per_problem import PerProblem, per_problem
from thoughtgraft.effects.positions import bootstrap_table, position_table
from thoughtgraft.errors import AnalysisError
from thoughtgraft.tasks.load import as_problems
from thoughtgraft.tasks.problem import Problem


@dataclass(frozen=True)
class Analysis:
    """All tables of one run; a table whose arms were not run is empty. Each table's function documents its columns."""

    frame: Frame
    positions: pd.DataFrame
    bootstrap: pd.DataFrame
    contrasts: pd.DataFrame
    mediation: pd.DataFrame
    agreement: pd.DataFrame
    dose: pd.DataFrame
    counterfactual: pd.DataFrame
    per_problem: PerProblem
    decision: Decision
    seed: int

    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table by name, for writing to disk."""
        named = {"positions": self.positions, "bootstrap": self.bootstrap, "contrasts": self.contrasts}
        named |= {"mediation": self.mediation, "agreement": self.agreement, "dose": self.dose}
        named |= {"counterfactual": self.counterfactual, "per_problem": self.per_problem.table}
        return named | {"claims": self.decision.claims, "gates": self.decision.gate_table}


@answers_for_calls(AnalysisError)
def analyse(
    records: pd.DataFrame,
    problems: Iterable[Problem] | None = None,
    seed: int = 0,
    *,
    known: Known = NOTHING_KNOWN,
    largest: int | None = None,
) -> Analysis:
    """Estimate, test and judge a run from its records alone.

    Args:
        records: One row per generation; see `build_frame` for the columns.
        problems: The run's problems with their steps, for counterfactual adoption; None leaves it out.
        seed: Seed of every resampling; the same records (in any order) and seed give the same result.
        known: What it is judged by: its rule, what its certificate says, the problems left for a full run.
        largest: Largest number that the model can say, if it has one, for counterfactual adoption.

    Raises:
        AnalysisError: The records cannot be used.
    """
    seed = seed_of(seed, AnalysisError)
    problems = None if problems is None else as_problems(problems)
    fix = "known=Known(dead_slots=[5]), for example"
    need(known, Known, "what is known of the run", AnalysisError, expected="a Known", fix=fix)
    frame = build_frame(records)
    positions = position_table(frame, seed=seed, known=known)
    agreement = agreement_table(frame, seed=seed, known=known)
    steps = counterfactual_table(frame, problems or (), largest=largest, known=known)
    decision = decide(frame, known=known, tables=Tables(positions, agreement, steps), seed=seed)
    return Analysis(
        frame=frame,
        positions=positions,
        bootstrap=bootstrap_table(frame, seed=seed),
        contrasts=contrast_table(frame),
        mediation=mediation_table(frame),
        agreement=agreement,
        dose=dose_table(frame),
        counterfactual=steps,
        per_problem=per_problem(frame, seed=seed),
        decision=decision,
        seed=seed,
    )
