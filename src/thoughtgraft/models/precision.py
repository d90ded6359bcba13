"""How products are computed: float32 as IEEE has it, whatever the process was told, and no autocast."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch

PRODUCTS = "ieee"
"""How the engine multiplies float32 matrices, always; part of every model's identity."""

_Function = TypeVar("_Function", bound=Callable[..., Any])
_AUTOCAST = ("cpu", "cuda", "mps", "xpu")
# Of half-precision products on CUDA: PyTorch's own defaults.
_HALF = {
    "allow_bf16_reduced_precision_reduction": True,
    "allow_fp16_reduced_precision_reduction": True,
    "allow_fp16_accumulation": False,
}


@contextmanager
def ieee_products() -> Iterator[None]:
    """Multiply float32 matrices in float32 while the block runs, then as before.

    `torch.set_float32_matmul_precision`, TF32 switches, oneDNN's bfloat16 and a surrounding `torch.autocast` would
    otherwise change a float32 run without a word; the switches of half-precision sums are put to PyTorch's defaults.
    """
    with ExitStack() as stack:
        for device in _AUTOCAST:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(_float32_ieee())
        stack.enter_context(_half_default())
        yield


def with_ieee_products(function: _Function) -> _Function:
    """`function`, running under `ieee_products`."""

    @functools.wraps(function)
    def pinned(*args: Any, **options: Any) -> Any:
        with ieee_products():
            return function(*args, **options)

    return pinned  # type: ignore[return-value]


@contextmanager
def _float32_ieee() -> Iterator[None]:
    get = getattr(torch._C, "_get_fp32_precision_getter", None)
    if get is None:  # PyTorch before 2.9 has one switch for all
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    put = torch._C._set_fp32_precision_setter
    places = (("cuda", "matmul"), ("mkldnn", "matmul"))
    effective = [get(*place) for place in places]
    for place in places:
        put(*place, "ieee")
    try:
        yield
    finally:
        for place, value in zip(places, effective, strict=True):
            # What a place is told by a wider switch must go on to follow it.
            put(*place, "none")
            if get(*place) != value:
                put(*place, value)


@contextmanager
def _half_default() -> Iterator[None]:
    switches = torch.backends.cuda.matmul
    before = {name: _now(name) for name in _HALF if hasattr(switches, name)}
    for name in before:
        setattr(switches, name, _HALF[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(switches, name, value)


def _now(name: str) -> Any:
    """A switch as it can be put back: with that of split sums, where PyTorch has one."""
    value, split = getattr(torch.backends.cuda.matmul, name), f"{name}_split_k"
    return (value, getattr(torch.backends.cuda.matmul, split)) if hasattr(torch.backends.cuda.matmul, split) else value
