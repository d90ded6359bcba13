"""Protocols: named, complete rules of inference."""

from __future__ import annotations

from dataclasses import dataclass

from thoughtgraft.errors import ModelError


@dataclass(frozen=True)
class Protocol:
    """How a prompt is shown to the model.

    Attributes:
        name: What records and reports call it.
        pads_visible: Whether a batch's left padding is seen by everything after the question, with
            positions that count it, as in the official batched evaluation.
        about: One sentence for people.
    """

    name: str
    pads_visible: bool
    about: str


PROTOCOLS = {
    p.name: p
    for p in (
        Protocol("official", False, "the official code on one unpadded problem, whatever the batch"),
        Protocol("official-padded", True, "the official batched evaluation: left pads are visible after the question"),
    )
}

OFFICIAL_BATCH = 128
"""Problems padded together under `official-padded`, in the problem set's order (the official batch size)."""


def find_protocol(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        ModelError: There is none.
    """
    if name not in PROTOCOLS:
        raise ModelError("unknown protocol", got=repr(name), expected="one of " + ", ".join(PROTOCOLS))
    return PROTOCOLS[name]


def padding(lengths: list[int], protocol: Protocol, batch: int = OFFICIAL_BATCH) -> list[int]:
    """How many visible pads each prompt of a problem set gets, by its batch-mates; all 0 where pads are not seen."""
    if not protocol.pads_visible:
        return [0] * len(lengths)
    pads: list[int] = []
    for start in range(0, len(lengths), batch):
        block = lengths[start : start + batch]
        pads += [max(block) - n for n in block]
    return pads
