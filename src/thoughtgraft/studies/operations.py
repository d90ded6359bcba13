"""The operations study: can the arithmetic that a problem takes be read from its thoughts? How many, and which layers.

Labels and draws are `problems.operations` and `problems.classes`; what is asked of the features is
`analysis.operations`.
"""

from __future__ import annotations

from thoughtgraft.arguments import shown, typed_number
from thoughtgraft.errors import PlanError

MODES = {"prototype": 20, "full": 200}
"""Problems of each class. A class that holds fewer gives all it has. With one seed, the prototype's problems are
among the full run's: it is a rehearsal, and claims nothing."""

LAYER_NAMES = {"early": 4 / 16, "middle": 8 / 16, "late": 14 / 16}
"""Where the named layers lie, as shares of the depth: the origin's 4, 8 and 14 of 16."""


def choose_layers(names: str, depth: int) -> tuple[int, ...]:
    """The layers that `--layers` asks for, in ascending order, each once.

    Args:
        names: `all`, or a list such as `early,late` or `4,8,14`; layer l is the stream after block l, 0-based. Names
            stand for their share of the depth, rounded down: of 16 layers 4, 8, 14; of 12 layers 3, 6, 10.
        depth: Blocks of the model.

    Raises:
        PlanError: A name is unknown, or the model has no such layer.
    """
    if names.strip() == "all":
        return tuple(range(depth))
    chosen = set()
    for name in (part.strip() for part in names.split(",")):
        if name in LAYER_NAMES:
            chosen.add(int(LAYER_NAMES[name] * depth))
        elif (layer := typed_number(name)) is not None and layer < depth:
            chosen.add(layer)
        else:
            raise PlanError(
                "the model has no such layer",
                got=shown(name),
                expected=f"all, {', '.join(LAYER_NAMES)}, or numbers in 0..{depth - 1}",
                fix="--layers early,middle,late",
            )
    return tuple(sorted(chosen))


def named_layers(layers: tuple[int, ...], depth: int) -> dict[str, int]:
    """The names of those layers that have one at this depth."""
    return {name: int(share * depth) for name, share in LAYER_NAMES.items() if int(share * depth) in layers}
