"""Slots in words: "CT0" for slot 0, "CT0-CT3" for a run of slots, "all" for every one."""

from __future__ import annotations

from collections.abc import Iterable

from thoughtgraft.errors import AnalysisError


def as_slots(value: object) -> tuple[int, ...]:
    """A record's `slots` (list or array of 0-based ints, null for none) as a sorted tuple.

    Raises:
        AnalysisError: The value is text or not a list of whole numbers.
    """
    if value is None or (isinstance(value, float) and value != value):
        return ()
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise AnalysisError(
            "the slots of a record cannot be read",
            got=repr(value),
            expected="a list of 0-based slot numbers, such as [0] or [0, 1]",
            fix="read the records from parquet, where slots are lists",
        )
    return tuple(sorted(int(slot) for slot in value))


def slot_label(slots: tuple[int, ...], n_slots: int) -> str:
    """The slot set in words.

    Args:
        slots: Sorted 0-based slots.
        n_slots: Number of slots that the model has.

    Returns:
        "CT2" for one slot, "all" for all, "CT0-CT3" for consecutive ones, else "CT0+CT3"; "none" for none.
    """
    if not slots:
        return "none"
    if len(slots) == 1:
        return f"CT{slots[0]}"
    if slots == tuple(range(n_slots)):
        return "all"
    if slots == tuple(range(slots[0], slots[-1] + 1)):
        return f"CT{slots[0]}-CT{slots[-1]}"
    return "+".join(f"CT{slot}" for slot in slots)


def is_single(label: str) -> bool:
    """Whether a label names exactly one slot."""
    return label.startswith("CT") and label[2:].isdigit()


def reaches_end(slots: tuple[int, ...], n_slots: int) -> bool:
    """Whether no unedited slot follows the first edited one: then every downstream rule is the same run."""
    return bool(slots) and slots == tuple(range(slots[0], n_slots))
