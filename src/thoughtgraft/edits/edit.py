"""What an edit is: its name, words, look and limits in one class, and what tells two edits of one's own apart."""

from __future__ import annotations

import hashlib
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal, get_args

from thoughtgraft.arguments import answers_for_calls, choice, need, shown
from thoughtgraft.edits.context import EditContext
from thoughtgraft.edits.schedule import Actions, After, edited
from thoughtgraft.edits.site import KINDS, Kind
from thoughtgraft.errors import PlanError

if TYPE_CHECKING:
    from torch import Tensor

Need = Literal["donor", "mean", "draw"]
PACKAGE = __name__.partition(".")[0]


@dataclass(frozen=True)
class Look:
    """How figures draw an edit: a colour and a marker, readable without colour."""

    colour: str
    marker: str


EDITS: dict[str, type[Change]] = {}
"""Every change by its name, in the order of definition. A subclass with a `name` of its own enters by itself."""


class Change(ABC):
    """What an arm does to a host's run. Two are equal where their stored cells would be.

    Attributes:
        name: What records, plans and the command line call it.
        words: What it does, for definitions: the end of "in this arm, ...".
        look: How figures draw it.
        needs: What its cells hang on beside the host: a donor, the mean of the other problems, a random draw.
        kinds: At which sites it means something; none where it takes no slot.
        takes: How many slots it acts at.
        least_slots: How many slots a model must have for it to mean something.
        shortens: For one that leaves thoughts out, what it does with its one slot.
        checks: Whether it only checks the machinery: it should change nothing.
        of_others: Whether it puts in what other problems are fed at this very slot: the identity where all are fed
            alike.
        reads: Whether an edit reads clean states: its host's, a donor's, or a mean of them.
        identity: What a class outside of this package says of itself, where its cells are stored: text that changes
            when it does something else than before.
    """

    name: str
    words: str
    look: Look = Look("#7A7A7A", "X")
    needs: frozenset[Need] = frozenset()
    kinds: frozenset[Kind] = frozenset()
    takes: Literal["none", "one", "some"] = "some"
    least_slots: int = 1
    shortens: str = ""
    checks: bool = False
    of_others: bool = False
    reads: bool = True
    identity: str | None = None

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if (name := vars(cls).get("name")) is None:
            return
        check_name(name)
        cls._check_facts()
        before = EDITS.get(name, cls)
        if (before.__module__, before.__qualname__) != (cls.__module__, cls.__qualname__):
            raise PlanError(f"the name {name!r} is taken", got=cls.__qualname__, expected="a name of its own")
        EDITS[name] = cls

    @classmethod
    def _check_facts(cls) -> None:
        """Refuse a class whose facts could only fail later, in a run or on a page."""
        facts = {"words": str, "look": Look, "needs": frozenset, "kinds": frozenset}
        for fact, kind in facts.items():
            if not isinstance(found := getattr(cls, fact, None), kind):
                raise PlanError(f"the edit {cls.name!r} lacks {fact}", got=shown(found), expected=kind.__name__)
        for fact, known in (("needs", get_args(Need)), ("kinds", KINDS)):
            if unknown := getattr(cls, fact) - set(known):
                raise PlanError(
                    f"unknown {fact} of the edit {cls.name!r}", got=shown(set(unknown)), expected=", ".join(known)
                )

    def __init__(self, *given: object, **named: object) -> None:
        """Most are their name and nothing else; one that holds numbers is a dataclass."""
        if given or named:
            name, got = type(self).__name__, shown([*given, *named])
            what = f"{name} was called with other arguments than it has"
            raise PlanError(what, got=got, expected=f"{name}(), which takes none")

    @property
    def own(self) -> bool:
        """Whether it is more than its name: an edit of one's own, or one that holds numbers."""
        return self._foreign or bool(vars(self))

    @property
    def _foreign(self) -> bool:
        return not type(self).__module__.startswith(f"{PACKAGE}.")

    def stored_as(self) -> str | None:
        """What a stored cell knows it by: another edit never has the same. None: nothing tells it from others yet.

        One of the package's is known by its name, with the numbers and texts that it holds; another by its `identity`,
        by how its class is written and by what it holds.
        """
        if self._foreign:
            return None if self.identity is None else f"{self.identity} {written(self)}"
        held = vars(self)
        return " ".join([self.name, *(f"{k}={v!r}" for k, v in held.items())]) if _plain(list(held.values())) else None

    @property
    def repeated(self) -> bool:
        """Whether a host has one cell for each of its donors, or draws."""
        return bool(self.needs & {"donor", "draw"})

    @property
    def together(self) -> object:
        """Rows whose edits have this in common are edited in one call."""
        return _Same(self) if self.own else type(self)

    @abstractmethod
    def actions(self, steps: Sequence[int], num_latents: int, after: After) -> Actions:
        """What each step of the latent loop is fed.

        Args:
            steps: The steps at which it acts; none only where it takes none.
            num_latents: Steps of the latent loop, K.
            after: What unedited steps after the first of them receive.
        """

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, Change) or type(self) is not type(other):
            return self is other
        mine, theirs = self.stored_as(), other.stored_as()
        return mine is not None and (self.name, mine) == (other.name, theirs)

    def __hash__(self) -> int:
        return hash((type(self), self.name))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({repr(self.name) if vars(self) else ''})"


class Edit(Change):
    """A change of states: called with live vectors [n, d], it gives those that take their place.

    It is pure, treats each row by itself, and draws only from generators seeded by its cell's key. Edited with the
    host's own state, nothing may change.
    """

    kinds = frozenset(KINDS)

    @abstractmethod
    def __call__(self, live: Tensor, at: EditContext) -> Tensor:
        """The vectors [n, d] in the place of `live` [n, d], which each row would have had at the site."""

    def actions(self, steps: Sequence[int], num_latents: int, after: After) -> Actions:
        """Clean before the first edited step; after it by the rule."""
        return edited(steps, num_latents, after)


def named() -> list[Change]:
    """One of every change that a name alone makes, in the order of definition."""
    return [kind() for kind in EDITS.values() if not _is_more(kind)]


def by_name(name: Any) -> Change:
    """The change that a name alone makes.

    Raises:
        PlanError: There is none of that name, or it holds numbers.
    """
    fix = "an edit of your own is an op: Arm('name', [2], op=f)"
    kind = EDITS[choice(name, "edit", EDITS, PlanError, fix=fix)]
    if _is_more(kind):
        fix = f"Arm({kind.__name__}(...), [2])"
        raise PlanError(f"the edit {name!r} is more than its name", got=shown(name), expected="its numbers", fix=fix)
    return kind()


@cache
def _is_more(kind: type[Change]) -> bool:
    """Whether its class is called with more than nothing."""
    return any(p.default is p.empty and p.kind not in _STARS for p in inspect.signature(kind).parameters.values())


_STARS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def change_of(name: str) -> type[Change]:
    """The class of a name in records: its words and look are in no other place. Own edits are all `Custom`."""
    return EDITS.get(name, Custom)


def check_name(name: Any) -> None:
    """Raise a PlanError if records and pages cannot call an edit so; `|` stands between the parts of an arm's key."""
    if not (isinstance(name, str) and name.strip() and name.isprintable() and "|" not in name):
        expected = "text that can be printed, without '|'"
        raise PlanError("an edit of your own needs a name", got=shown(name), expected=expected)


@answers_for_calls(PlanError)
@dataclass(frozen=True, eq=False, repr=False)
class Custom(Edit):
    """A function of one's own, `f(live [n, d], at) -> [n, d]`: what `Arm("double", [3], op=f)` makes.

    A row on which it raises, or gives NaN or infinity, is a failed cell; one that raises everywhere is refused before a
    run.

    Attributes:
        name: What the arm is called.
        function: The function, or an object that can be called.
        repeats: One cell for each donor of the host, which the function is then given.
        identity: In a folder, what stored cells know it by: text that changes when the edit does something else than
            before. A hash of how the function is written is added to it. None takes the function's own attribute
            `identity`; an edit in memory needs neither.
    """

    name: str
    function: Callable[[Tensor, EditContext], Tensor]
    repeats: bool = False
    identity: str | None = None
    words = "an edit of the user's own"

    def __post_init__(self) -> None:
        function: Any = self.function
        if not callable(function):
            expected = "op(live, at) -> vectors"
            raise PlanError("an arm's op is a function", got=shown(function), expected=expected)
        check_name(self.name)
        if self.name in EDITS:
            raise PlanError(
                f"{self.name!r} is an edit of its own, so an op cannot take that name",
                got=f"Arm({self.name!r}, ..., op=...)",
                fix="give your edit another name",
            )
        need(self.repeats, bool, "an arm's repeats", PlanError, expected="True or False")
        text = getattr(function, "identity", None) if self.identity is None else self.identity
        if text is not None and not (isinstance(text, str) and text.strip()):
            fix = "identity='doubled, v1', for example"
            raise PlanError("an edit's identity is text", got=shown(text), expected="text that is not empty", fix=fix)
        object.__setattr__(self, "identity", text)
        object.__setattr__(self, "needs", frozenset({"donor"}) if self.repeats else frozenset())

    def __call__(self, live: Tensor, at: EditContext) -> Tensor:
        """What the function gives."""
        return self.function(live, at)

    def stored_as(self) -> str | None:
        """The identity, and how the function is written."""
        return None if self.identity is None else f"{self.identity} {written(self.function)}"

    @property
    def together(self) -> object:
        """Rows of one function, whatever its arms are called."""
        return _Same(self.function)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Custom):
            return False
        mine, theirs = ((x.name, x.repeats, x.identity) for x in (self, other))
        return mine == theirs and self.function is other.function

    def __hash__(self) -> int:
        return hash((self.name, self.identity, id(self.function)))


@dataclass(frozen=True, eq=False)
class _Same:
    """One object, whatever it calls equal, and whether or not it can be hashed."""

    thing: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.thing is other.thing

    def __hash__(self) -> int:
        return id(self.thing)


# ---- what tells two edits of one's own apart -------------------------------------------------------------------------


def written(thing: Any, seen: frozenset[int] = frozenset()) -> str:
    """A hash of how a function, a class or an object's class is written, and of the plain values that it holds.

    Plain values are numbers and texts in closures, defaults, attributes and the globals that a function names;
    functions among these count as they are written. Where Python cannot show a source, its compiled code stands for it.
    Everything else is for the `identity` to say.

    Args:
        thing: What is hashed.
        seen: The functions, by `id`, that led here and are not followed again.
    """
    held: dict[str, Any] = {}
    while isinstance(thing, partial):
        held |= {f"argument {i}": value for i, value in enumerate(thing.args)} | thing.keywords
        thing = thing.func
    if inspect.ismethod(thing):
        held |= _attributes(thing.__self__)
        thing = thing.__func__
    if inspect.isfunction(thing):
        held |= _reached(thing)
    elif not inspect.isclass(thing):
        held |= _attributes(thing)
        thing = type(thing)
    try:
        source = inspect.getsource(thing)
    except (OSError, TypeError):
        source = _compiled(thing)
    values = sorted((name, repr(value)) for name, value in held.items() if _plain(value))
    seen |= {id(thing)}
    helpers = [(name, value) for name, value in held.items() if inspect.isfunction(value) and id(value) not in seen]
    values += sorted((name, written(value, seen)) for name, value in helpers)
    return hashlib.sha256(json.dumps([source, values]).encode()).hexdigest()[:12]


def _compiled(thing: Any) -> str:
    """What a function, or each function of a class, was compiled to, without its place in a file."""
    if inspect.isclass(thing):
        own = sorted((name, part) for name, part in vars(thing).items() if inspect.isfunction(part))
        return repr([(name, _compiled(part)) for name, part in own])
    code = getattr(thing, "__code__", thing)
    if not inspect.iscode(code):
        return ""
    constants = [_compiled(one) if inspect.iscode(one) else repr(one) for one in code.co_consts]
    return repr((code.co_code.hex(), code.co_names, constants))


def _attributes(thing: Any) -> dict[str, Any]:
    return {f".{name}": value for name, value in getattr(thing, "__dict__", {}).items()}


def _reached(function: Any) -> dict[str, Any]:
    """What a function reaches by its defaults, its closure and the globals that it names."""
    given = inspect.signature(function).parameters.values()
    defaults = {f"{p.name}=": p.default for p in given if p.default is not p.empty}
    try:
        names = inspect.getclosurevars(function)
    except ValueError:  # a closure that is not filled yet
        return defaults
    return {**names.globals, **names.nonlocals, **defaults}


def _plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_plain, value))
    return value is None or isinstance(value, bool | int | float | complex | str | bytes)
