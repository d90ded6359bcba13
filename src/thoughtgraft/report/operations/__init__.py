"""The report of an operations study, made from the tables of its analysis (no torch, no recomputation)."""

from thoughtgraft.report.operations.write import write_operations_report

__all__ = ["write_operations_report"]
