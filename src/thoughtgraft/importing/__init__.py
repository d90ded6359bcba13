"""Files of other codebases, read safely and converted to this project's conventions."""

from thoughtgraft.importing.convert import read_foreign
from thoughtgraft.importing.imported import Imported

__all__ = ["Imported", "read_foreign"]
