"""What is said of a run: figures, claims and the report, made from its records (no torch)."""

from thoughtgraft.report.paths import ReportPaths
from thoughtgraft.report.summary import positions_summary
from thoughtgraft.report.write import write_report

__all__ = ["ReportPaths", "positions_summary", "write_report"]
