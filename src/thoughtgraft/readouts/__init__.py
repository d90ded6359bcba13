"""What a thought says."""

from pkgutil import iter_modules

from thoughtgraft.readouts import kinds

NAMES = tuple(file.name for file in iter_modules(kinds.__path__))
"""The readouts by name; none of them is imported for that."""
