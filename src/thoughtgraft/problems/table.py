"""Problems as a table and back, steps included: what a run folder keeps of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from fractions import Fraction
from typing import TYPE_CHECKING

from thoughtgraft.arguments import parse_json, shown
from thoughtgraft.errors import ProblemError
from thoughtgraft.problems.answers import parse_number
from thoughtgraft.problems.arithmetic import equations
from thoughtgraft.problems.problem import Operand, Problem, ProblemSet, Ref, Step

if TYPE_CHECKING:
    import pandas as pd


def problem_table(problems: Iterable[Problem]) -> pd.DataFrame:
    """One row per problem, in order.

    Returns:
        Columns id, split, question, gold (exact text), solution, steps (equations, one a line), n_steps, operation,
        template, and graph: the steps as JSON, `[["26", "+", "5", "31"], ["#0", "*", "2", "62"]]`, where `#0` is the
        value of step 0.
    """
    import pandas as pd

    rows = [
        {
            "id": p.id,
            "split": p.split,
            "question": p.question,
            "gold": p.answer,
            "solution": p.solution,
            "steps": "\n".join(equations(p.steps)),
            "n_steps": len(p.steps),
            "operation": p.operation,
            "template": p.template,
            "graph": json.dumps([[_written(s.left), s.op, _written(s.right), str(s.value)] for s in p.steps]),
        }
        for p in problems
    ]
    return pd.DataFrame(rows)


def with_labels(table: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """A table of problems with columns of labels, matched by `id`; columns of the same name are replaced."""
    rows = labels.set_index("id").loc[table["id"]].reset_index(drop=True)
    return table.assign(**{str(name): rows[name] for name in rows.columns})


def problems_from_table(table: pd.DataFrame, name: str = "problems") -> ProblemSet:
    """The problems that `problem_table` wrote, with the same content hash.

    Raises:
        ProblemError: A column is missing, or a graph cannot be read.
    """
    needed = ["id", "split", "question", "gold", "graph"]
    if missing := [column for column in needed if column not in table]:
        raise ProblemError(f"the table of {name} lacks columns", got=f"no {', '.join(missing)}", expected=needed)
    columns = [*needed, *(extra for extra in ("solution", "template") if extra in table)]
    found = []
    for row in table[columns].astype(object).where(table[columns].notna(), None).to_dict("records"):
        found.append(
            Problem(
                id=row["id"],
                question=row["question"],
                gold=None if row["gold"] is None else parse_number(row["gold"]),
                solution=row.get("solution") or "",
                steps=read_graph(row["graph"], row["id"]),
                split=row["split"],
                template=row.get("template"),
            )
        )
    return ProblemSet(tuple(found), name)


def _written(operand: Operand) -> str:
    return f"#{operand.step}" if isinstance(operand, Ref) else str(operand)


def read_graph(graph: str | None, problem: str) -> tuple[Step, ...]:
    """The steps of a cell of the column `graph`.

    Raises:
        ProblemError: It cannot be read; `problem` is whose it is.
    """

    def number(text: str) -> Fraction:
        if (found := parse_number(text)) is None:
            raise ValueError(text)
        return found

    def operand(text: str) -> Operand:
        return Ref(int(text[1:])) if text.startswith("#") else number(text)

    try:
        rows = parse_json(graph or "[]")
        return tuple(Step(operand(left), op, operand(right), number(value)) for left, op, right, value in rows)
    except (ValueError, TypeError, AttributeError, ProblemError) as error:
        raise ProblemError(f"the steps of problem {problem!r} cannot be read", got=shown(graph)) from error
