"""The cases behind the tables: which shapes, how many questions, donors and answer tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.compare import Case
from benchmarks.shapes import SHAPES, random_model, trained_model
from benchmarks.workload import make_workload
from thoughtgraft.models.reasoner import LatentReasoner
from thoughtgraft.tasks.load import load_problems

FORCED = 8
NATURAL = 32
DONORS = 10

_HOSTS = {"tiny": (16, 8), "135m": (16, 4), "1b": (100, 20), "codi": (16, 8)}
_CLEAN = {"tiny": (128, 128), "135m": (128, 32), "1b": (1024, 256), "codi": (128, 128)}
_ORIGIN = {"tiny": (24, 12), "135m": (6, 6), "1b": (24, 12), "codi": (24, 12)}


def make_cases(size: str, device: str, quick: bool) -> list[Case]:
    """The cases of a size: forced answer length, and for the trained model natural stops as well."""
    hosts, clean, cells = (table[size][quick] for table in (_HOSTS, _CLEAN, _ORIGIN))
    if size == "codi":
        return [
            _case("tiny-codi, 8 tokens forced", lambda t: trained_model(dtype=t, device=device, answer=FORCED),
                  FORCED, hosts, clean, cells, True),
            _case("tiny-codi, natural stop", lambda t: trained_model(dtype=t, device=device),
                  NATURAL, hosts, clean, cells, False),
        ]  # fmt: skip
    shape = SHAPES[size]
    return [
        _case(
            f"{size} ({shape.hidden} wide, {shape.layers} layers)",
            lambda t: random_model(shape, dtype=t, device=device, answer=FORCED),
            FORCED,
            hosts,
            clean,
            cells,
            True,
            shape.question,
            warm=size != "135m",
        )
    ]


def _case(
    name: str,
    make: Callable[[torch.dtype], LatentReasoner],
    answer: int,
    hosts: int,
    clean: int,
    cells: int,
    scored: bool,
    length: int | None = None,
    warm: bool = True,
) -> Case:
    model = make(torch.float32)
    prompts = None
    if length is None:
        problems = load_problems("arithmetic:test", n=max(hosts, clean), seed=0)
        prompts = [model.prompt(p.question) for p in problems]
    return Case(
        name,
        model,
        make(torch.bfloat16),
        make_workload(model, hosts, DONORS, length or 0, answer=answer, prompts=prompts and prompts[:hosts]),
        make_workload(model, clean, 0, length or 0, answer=answer, prompts=prompts and prompts[:clean]),
        cells,
        scored,
        warm,
    )
