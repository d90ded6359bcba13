"""The edits: functions from the vectors of a slot to those that take their place, and what tells two apart."""

from __future__ import annotations

import dis
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from thoughtgraft.errors import PlanError

if TYPE_CHECKING:
    from torch import Tensor


class NothingToTake(PlanError):
    """An edit asks for a donor or for other problems, and its cell has none."""


@dataclass(frozen=True)
class EditContext:
    """What an edit may use, for n cells at one slot. K slots, 0-based; width d.

    An edit treats each row by itself: which others stand beside it is chance.

    Attributes:
        slot: The slot k that is edited.
        host: The hosts' clean `fed` [n, K, d].
        donors: The donors' clean `fed` [n, K, d]; None where the cells have no donor. Edits ask for `donor`.
        means: The mean clean `fed` of the run's other problems, host left out [n, K, d]; None where there are no
            others. Edits ask for `mean`.
        keys: One string for each cell; what a random edit must be seeded with.
    """

    slot: int
    host: Tensor
    donors: Tensor | None
    means: Tensor | None
    keys: tuple[str, ...]

    @property
    def donor(self) -> Tensor:
        """The donors' clean `fed` [n, K, d].

        Raises:
            NothingToTake: The cells have no donor.
        """
        if self.donors is None:
            raise NothingToTake("the cell has no donor", fix="Arm(..., repeats=True) gives a host's cells its donors")
        return self.donors

    @property
    def mean(self) -> Tensor:
        """The mean clean `fed` of the run's other problems, host left out [n, K, d].

        Raises:
            NothingToTake: There is no other problem.
        """
        if self.means is None:
            raise NothingToTake("there is no other problem to take a mean of", fix="run two problems or more")
        return self.means


Op = Callable[["Tensor", EditContext], "Tensor"]


def swap(live: Tensor, context: EditContext) -> Tensor:
    """The donor's vector of this slot."""
    return context.donor[:, context.slot]


def self_swap(live: Tensor, context: EditContext) -> Tensor:
    """The host's own clean vector, read back from the saved thoughts."""
    return context.host[:, context.slot]


def zero(live: Tensor, context: EditContext) -> Tensor:
    """Zeros."""
    return live.new_zeros(live.shape)


def mean(live: Tensor, context: EditContext) -> Tensor:
    """The mean of the other problems' clean vectors of this slot."""
    return context.mean[:, context.slot]


def noise(live: Tensor, context: EditContext) -> Tensor:
    """A random direction at the norm of the host's clean vector; Gaussian, drawn in float32, seeded by cell and slot.

    The seed is the first 7 bytes of the SHA-256 of `KEY-SLOT`, so that any other code can draw the same.
    """
    import torch  # Imported here: plans are checked, and pages written, where there is no torch.

    rows = []
    for key in context.keys:
        seed = int.from_bytes(hashlib.sha256(f"{key}-{context.slot}".encode()).digest()[:7], "big")
        generator = torch.Generator().manual_seed(seed)
        rows.append(torch.randn(live.shape[-1], generator=generator, dtype=torch.float32))
    drawn = torch.stack(rows).to(torch.promote_types(live.dtype, torch.float32))
    direction = torch.nn.functional.normalize(drawn, dim=-1).to(live)
    return direction * context.host[:, context.slot].norm(dim=-1, keepdim=True)


def shuffle(live: Tensor, context: EditContext) -> Tensor:
    """The donor's vector of another slot: the one `1 + (hash of the cell) mod (K - 1)` places on."""
    import torch

    slots = context.donor.shape[1]
    shifts = [1 + int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % max(slots - 1, 1) for key in context.keys]
    index = torch.tensor([(context.slot + shift) % slots for shift in shifts], device=live.device)
    return context.donor[torch.arange(len(shifts), device=live.device), index]


@dataclass(frozen=True)
class Projection:
    """The affine map x -> x - U V^T (x - mean), which takes a subspace out: U and V are [d, r], the mean is [d]."""

    u: Tensor
    v: Tensor
    mean: Tensor


@dataclass(frozen=True, eq=False)
class Project:
    """An own edit: the projection that belongs to the slot, computed in float32 at least.

    Attributes:
        by_slot: One for each slot that the arm edits.
    """

    by_slot: Mapping[int, Projection]

    def __call__(self, live: Tensor, context: EditContext) -> Tensor:
        """The live vectors [n, d] without the subspace."""
        import torch

        chosen = self.by_slot[context.slot]
        x = live.to(torch.promote_types(live.dtype, torch.float32))
        u, v, mean = (part.to(x) for part in (chosen.u, chosen.v, chosen.mean))
        return (x - (x - mean) @ v @ u.mT).to(live)

    @cached_property
    def identity(self) -> str:
        """A hash of the numbers: with it, a stored cell says which projection it had."""
        import torch

        digest = hashlib.sha256()
        for slot, chosen in sorted(self.by_slot.items()):
            for part in (chosen.u, chosen.v, chosen.mean):
                digest.update(f"{slot} {tuple(part.shape)}".encode())
                digest.update(part.detach().to("cpu", torch.float64).contiguous().numpy().tobytes())
        return f"project {digest.hexdigest()[:20]}"


OPS: dict[str, Op] = {"swap": swap, "self": self_swap, "zero": zero, "mean": mean, "noise": noise, "shuffle": shuffle}
"""The edit of each method; `baseline`, `noop`, `skip` and `truncate` need none."""


_DEEPEST = 8


def op_identity(op: Callable[..., Any]) -> str:
    """A text that two edits share only if they do the same, as far as can be seen without running them.

    An attribute `identity` speaks for itself. Otherwise it is the name and a hash of the bytecode, the defaults, what
    a closure or an object holds, and the globals that the code names: numbers, texts, containers, arrays, functions of
    the same module. An edit that changes what it reads, a list that it appends to, is another one afterwards; give it
    an `identity`. Bytecode differs between versions of Python.
    """
    given = getattr(op, "identity", None)
    if isinstance(given, str) and given:
        return given
    text = json.dumps(_content(op, 0), sort_keys=True)
    return f"{_kind(op)} {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _content(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | slice | range):
        return repr(value)
    if depth > _DEEPEST:
        return _kind(value)
    deeper = depth + 1
    match value:
        case FunctionType():
            return _function(value, deeper)
        case CodeType():
            return [value.co_code.hex(), [_content(c, deeper) for c in value.co_consts], list(value.co_names)]
        case MethodType():
            return [_content(value.__func__, deeper), _content(value.__self__, deeper)]
        case partial():
            return [_content(part, deeper) for part in (value.func, value.args, value.keywords)]
        case ModuleType():
            return value.__name__
        case Mapping():
            return sorted((json.dumps([repr(k), _content(v, deeper)], sort_keys=True) for k, v in value.items()))
        case set() | frozenset():
            return sorted(json.dumps(_content(v, deeper), sort_keys=True) for v in value)
        case list() | tuple():
            return [_content(v, deeper) for v in value]
    found = _array(value, deeper)
    return _object(value, deeper) if found is None else found


def _array(value: Any, depth: int) -> Any:
    """The numbers of numpy's and torch's arrays, without importing either; None for what is neither."""
    library = type(value).__module__.partition(".")[0]
    if library == "pandas" and hasattr(value, "to_numpy"):
        value, library = value.to_numpy(), "numpy"
    if type(value).__name__ == "dtype":
        return repr(value)
    if library == "torch" and hasattr(value, "detach"):
        shape = [str(value.dtype), list(value.shape), str(value.layout)]
        if value.is_meta or str(value.layout) != "torch.strided":
            return shape
        value = value.detach().cpu().resolve_conj().resolve_neg()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        return [*shape, hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()]
    if library == "numpy" and hasattr(value, "tobytes"):
        shape = [str(value.dtype), list(value.shape)]
        if value.dtype.hasobject:
            return [*shape, _content(value.tolist(), depth)]
        return [*shape, hashlib.sha256(value.tobytes()).hexdigest()]
    return None


def _object(value: Any, depth: int) -> Any:
    """An object: what it says of itself, else its type, the code that calls it, and its attributes."""
    if isinstance(value, type) or not hasattr(value, "__dict__"):
        return _kind(value)
    if isinstance(given := getattr(value, "identity", None), str | Mapping):
        return [_kind(value), _content(given, depth)]
    calls = [getattr(type(value), name, None) for name in ("__call__", "forward")]
    code = [_function(call, depth) for call in calls if isinstance(call, FunctionType)]
    return [_kind(value), code, _content(vars(value), depth)]


def _function(function: FunctionType, depth: int) -> Any:
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    used = {name: function.__globals__[name] for name in _globals(function.__code__) if name in function.__globals__}
    # Functions of other modules are their libraries' business.
    own = {
        name: value
        for name, value in used.items()
        if not isinstance(value, FunctionType) or (value.__module__ == function.__module__ and value is not function)
    }
    parts = (function.__code__, function.__defaults__, function.__kwdefaults__, cells, own)
    return [_content(part, depth + 1) for part in parts]


def _globals(code: CodeType) -> list[str]:
    """Names that a function's code, and that of the functions inside it, looks up outside of itself."""
    inner = [name for c in code.co_consts if isinstance(c, CodeType) for name in _globals(c)]
    own = [i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")]
    return sorted({*own, *inner})


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # not assigned yet
        return False


def _kind(value: Any) -> str:
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"
