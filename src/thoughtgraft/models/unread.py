"""Work of the last block that nobody reads is left out: of a question, only the state at its last token is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def last_token_alone(block: nn.Module) -> Iterator[None]:
    """While it lasts, a block's MLP is given the last token only; the others' states miss what it would add."""
    mlp, width = block.get_submodule("mlp"), 0

    def before(module: nn.Module, args: tuple[Tensor]) -> Tensor:
        nonlocal width
        width = args[0].shape[1]
        return args[0][:, -1:]

    def after(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        return nn.functional.pad(output, (0, 0, width - 1, 0))

    handles = mlp.register_forward_pre_hook(before), mlp.register_forward_hook(after)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
