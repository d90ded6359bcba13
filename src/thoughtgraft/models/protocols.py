"""Protocols: named, complete rules of inference."""

from __future__ import annotations

from dataclasses import dataclass

from thoughtgraft.arguments import choice
from thoughtgraft.errors import ModelError
from thoughtgraft.models.loop import BeginFirst, Loop


@dataclass(frozen=True)
class Protocol:
    """How a prompt is shown to the model, and by which loop it thinks.

    Attributes:
        name: What records and reports call it.
        pads_visible: Whether a batch's left padding is seen by everything after the question, with
            positions that count it, as in the official batched evaluation.
        about: One sentence for people.
        loop: How thoughts are made, and at which step an edit of slot k acts; None for the model's own.
        families: Families of models that it is defined for; empty for all.
        flaw: What is wrong with it, in a sentence that every report under it carries; empty if nothing is.
    """

    name: str
    pads_visible: bool
    about: str
    loop: Loop | None = None
    families: tuple[str, ...] = ()
    flaw: str = ""


PROTOCOLS = {
    p.name: p
    for p in (
        Protocol("official", False, "the official code on one unpadded problem, whatever the batch"),
        Protocol("official-padded", True, "the official batched evaluation: left pads are visible after the question"),
        Protocol(
            "cot-exploration-original",
            False,
            "CoT_Exploration's first version: begin-of-thought is counted as the first thought; a donor's thought k "
            "replaces the host's thought k",
            loop=BeginFirst(delay=1),
            families=("codi",),
            flaw="it counts begin-of-thought as the first thought, so one thought fewer is fed than asked for; the "
            "last thought that it names is made and never fed, and replacing it changes nothing whatever it holds",
        ),
        Protocol(
            "cot-exploration-fixed",
            False,
            "CoT_Exploration's published version: begin-of-thought is counted as the first thought; a donor's thought "
            "k is fed in the place of the host's thought k - 1",
            loop=BeginFirst(delay=0),
            families=("codi",),
            flaw="it counts begin-of-thought as the first thought, so one thought fewer is fed than asked for; and it "
            "puts the vector that it calls CTk where the host is fed thought k - 1 (begin-of-thought for CT0), so that "
            "even a problem's own thought, put back, changes the run",
        ),
    )
}
"""`official` is the standard. The two of CoT_Exploration replay that project's procedures, errors included; they exist
to show what those errors do, and fail their certificates."""

OFFICIAL_BATCH = 128
"""Problems padded together under `official-padded`, in the problem set's order (the official batch size)."""


def find_protocol(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        ModelError: There is none.
    """
    return PROTOCOLS[choice(name, "protocol", PROTOCOLS, ModelError)]


def padding(lengths: list[int], protocol: Protocol, batch: int = OFFICIAL_BATCH) -> list[int]:
    """How many visible pads each prompt of a problem set gets, by its batch-mates; all 0 where pads are not seen."""
    if not protocol.pads_visible:
        return [0] * len(lengths)
    pads: list[int] = []
    for start in range(0, len(lengths), batch):
        block = lengths[start : start + batch]
        pads += [max(block) - n for n in block]
    return pads
