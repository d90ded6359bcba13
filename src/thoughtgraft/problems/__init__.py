"""What is asked: problems with exact answers and, where known, their steps."""

from thoughtgraft.problems.answers import (
    Grader,
    extract_answer,
    extract_official,
    format_number,
    grade,
    number_start,
    parse_number,
    same_answer,
)
from thoughtgraft.problems.files import read_problems
from thoughtgraft.problems.load import as_problems, load_problems
from thoughtgraft.problems.problem import Counterfactual, Problem, ProblemSet, Ref, Step

__all__ = [
    "Counterfactual",
    "Grader",
    "Problem",
    "ProblemSet",
    "Ref",
    "Step",
    "as_problems",
    "extract_answer",
    "extract_official",
    "format_number",
    "grade",
    "load_problems",
    "number_start",
    "parse_number",
    "read_problems",
    "same_answer",
]
