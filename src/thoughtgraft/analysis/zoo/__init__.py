"""Models that were trained alike, side by side: what each can do, and what its controls can do too."""

from thoughtgraft.analysis.zoo.measured import Measured
from thoughtgraft.analysis.zoo.result import ZooResult, analyse_zoo

__all__ = ["Measured", "ZooResult", "analyse_zoo"]
