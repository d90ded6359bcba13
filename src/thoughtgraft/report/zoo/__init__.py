"""The page of a zoo: models side by side, from tables alone."""

from thoughtgraft.report.zoo.page import write_zoo

__all__ = ["write_zoo"]
