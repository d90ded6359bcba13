"""What records mean: estimates, intervals, tests and claims, from a table of generations alone (no torch)."""

from thoughtgraft.analysis.bootstrap import bootstrap_table, pigeonhole
from thoughtgraft.analysis.compare import compare_runs
from thoughtgraft.analysis.estimate import position_table
from thoughtgraft.analysis.frame import Frame, build_frame
from thoughtgraft.analysis.result import Analysis, analyse
from thoughtgraft.analysis.rule import RULE, Rule
from thoughtgraft.analysis.verdicts import Verdict, verdict

__all__ = [
    "RULE",
    "Analysis",
    "Frame",
    "Rule",
    "Verdict",
    "analyse",
    "bootstrap_table",
    "build_frame",
    "compare_runs",
    "pigeonhole",
    "position_table",
    "verdict",
]
