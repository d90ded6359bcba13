"""Which rows of a grid have failed and why: marked on the device while they run, read once when all have ended."""

from __future__ import annotations

import torch
from torch import Tensor

from thoughtgraft.engine.memory import is_out_of_memory

_LONGEST = 300
_NONE = torch.iinfo(torch.long).max


class Failures:
    """The first thing that went wrong with each row of a grid.

    A failed row runs on with its pack, and what it gives is not used. Whether it has failed is a number on the device:
    to ask for it while rows run, the host would have to wait.
    """

    def __init__(self, places: int, device: torch.device) -> None:
        self._texts: list[str] = []
        self._first = torch.full((places,), _NONE, dtype=torch.long, device=device)

    def note(self, places: Tensor, failed: Tensor, text: str) -> None:
        """Say of the rows at `places` [n] where `failed` [n] that `text` went wrong; what went wrong before stays."""
        known = self._first[places]
        self._first[places] = torch.where(failed, known.clamp_max(len(self._texts)), known)
        self._texts.append(text)

    def note_one(self, place: int, text: str) -> None:
        """The same of one row, known on the host."""
        self._first[place].clamp_(max=len(self._texts))
        self._texts.append(text)

    def none(self) -> Tensor:
        """Whether each row is sound so far [places], on the device."""
        return self._first == _NONE

    def texts(self) -> list[str | None]:
        """What went wrong with each row, None where nothing did; waits for the device."""
        return [None if i == _NONE else self._texts[i][:_LONGEST] for i in self._first.tolist()]


def ends_the_run(error: Exception) -> bool:
    """Whether an edit's error is no fault of the edit: memory, disk, network or the device failed under it."""
    broken: type[Exception] | None = getattr(torch, "AcceleratorError", None)
    if isinstance(error, OSError) or (broken is not None and isinstance(error, broken)):
        return True
    return is_out_of_memory(error) or (isinstance(error, RuntimeError) and "CUDA error" in str(error))


def in_words(error: Exception) -> str:
    """An edit's error on one line that can be stored: its kind, and what it says first."""
    said = [line for line in str(error).splitlines() if line.strip()][:1]
    text = ": ".join([type(error).__name__, *(line.strip() for line in said)])
    return text.encode(errors="backslashreplace").decode()
