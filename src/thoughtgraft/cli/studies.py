"""The studies as commands: `thoughtgraft run STUDY`, made from each study's options, and the demo."""

from __future__ import annotations

import inspect
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from thoughtgraft.cli import options
from thoughtgraft.errors import PlanError
from thoughtgraft.studies import checks
from thoughtgraft.studies.options import in_order, stored_options
from thoughtgraft.studies.registry import STUDIES, carry_out
from thoughtgraft.studies.study import Door

Config = Annotated[
    Path | None,
    typer.Option(
        callback=checks.existing_place,
        help="Options from a TOML file, such as hosts = 20; what is typed as well wins.",
    ),
]
Like = Annotated[
    Path | None,
    typer.Option(
        callback=checks.existing_place,
        help="Options of another run, by its folder or its run.json; what is typed as well wins.",
    ),
]
_FIRST = ("--config", "--like")


class StudyGroup(TyperGroup):
    """`thoughtgraft run`: its commands are the studies, each imported when it is asked for."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.made = self.commands = _Commands(self.commands)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Where a file of options comes first, it says which study."""
        name, _, value = args[0].partition("=") if args else ("", "", "")
        if name in _FIRST and (value or len(args) > 1):
            study, _ = stored_options(Path(value or args[1]))
            if not study:
                raise PlanError(f"{value or args[1]} does not say which study", fix='add a line such as study = "demo"')
            args = [study, *args]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Each study with what it asks."""
        rest = {name: command.short_help for name, command in self.made.made.items() if name not in STUDIES}
        with formatter.section("Commands"):
            formatter.write_dl(list((STUDIES.words | rest).items()))


class _Commands(MutableMapping[str, Any]):
    """The commands by name; a study's is made when it is first looked at."""

    def __init__(self, made: Mapping[str, Any]) -> None:
        self.made = dict(made)

    def __getitem__(self, name: str) -> Any:
        if name not in self.made:
            self.made[name] = study_command(name)
        return self.made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self.made[name] = command

    def __delitem__(self, name: str) -> None:
        del self.made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*STUDIES, *self.made]))

    def __len__(self) -> int:
        return len(set(self))


def study_command(name: str) -> Any:
    """The command of a study: an option for each of its fields, with its type, default, limits and words.

    Raises:
        KeyError: There is no such study.
    """

    def call(given: Mapping[str, Any], out: Path, dry_run: bool) -> None:
        carry_out(name, given, door(out, dry_run))

    made = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    command = with_options(name, call, out=(inspect.Parameter.empty, options.Out), dry_run=(False, options.DryRun))
    made.command(name, short_help=STUDIES.words[name])(command)
    return typer.main.get_command(made)


def with_options(name: str, call: Callable[..., None], **more: tuple[Any, Any]) -> Callable[..., None]:
    """A function that typer makes a command of: an option for each field of a study's options, and some more.

    Args:
        name: The study.
        call: Gets the options that were given, by typing or by a file, and the values of those beside them by name.
        more: The options beside them: default (`Parameter.empty` where one has to be given) and annotation.
    """
    study = STUDIES[name]
    fields = {field: study.Options.model_fields[field] for field in in_order(study.Options)}

    def command(ctx: typer.Context, **values: Any) -> None:
        places = [values.pop(key) for key in ("like", "config")]
        beside = {key: values.pop(key) for key in more}
        given: dict[str, Any] = {}
        for place in places:
            given |= {} if place is None else _options_of(place, name)
        call(given | typed(ctx, values), **beside)

    def option(name: str, default: Any, annotation: Any) -> inspect.Parameter:
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

    first, *last = [option(key, *told) for key, told in more.items()]
    files = [option("config", None, Config), option("like", None, Like)]
    own = [options.parameter(field, info) for field, info in fields.items()]
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    signature = inspect.Signature([context, first, *own, *files, *last])
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    command.__doc__ = inspect.getdoc(type(study))
    return command


def typed(ctx: typer.Context, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those values that were typed, and are not defaults."""
    sources = {name: ctx.get_parameter_source(name) for name in values}
    return {name: value for name, value in values.items() if getattr(sources[name], "name", "") == "COMMANDLINE"}


def door(out: Path, dry_run: bool) -> Door:
    """The command line's: it tells the terminal, and its command is what was typed."""
    from thoughtgraft.cli.console import Terminal

    command = shlex.join(["thoughtgraft", *sys.argv[1:]])
    return Door(out=out, said=Terminal(), command=command, rehearsal=dry_run)


def _options_of(place: Path, name: str) -> dict[str, Any]:
    """The options that a file holds for this study."""
    study, found = stored_options(place)
    if study not in ("", name):
        fix = f"thoughtgraft run {study} ..., or leave it out"
        raise PlanError(f"{place} holds options of another study", got=study, expected=name, fix=fix)
    return found


app = typer.Typer(
    cls=StudyGroup, help="Run a study into a folder; the same command continues it.", no_args_is_help=True
)


@app.callback()
def run() -> None:
    """Run a study into a folder; the same command continues it."""


def demo(
    ctx: typer.Context,
    out: options.Out = Path("runs/demo"),
    hosts: Annotated[int, typer.Option(min=2, help="Problems; each is a host and may donate.")] = 100,
    donors: Annotated[int, typer.Option(min=1, help="Donors of each host.")] = 10,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    tracker: options.Tracker = "none",
    engine: options.Engine = "local",
    workers: options.Workers = None,
    certify: options.Certify = "auto",
    dry_run: options.DryRun = False,
) -> None:
    """Run a real resampling study on the embedded model `tiny-codi` and write its report.

    100 unseen word problems, 10 donors each: at each of 6 slots the problem's continuous thought is replaced by
    the donor's, 6,000 times in all, beside controls and ablations. Needs no download.
    """
    values = {"hosts": hosts, "donors": donors, "seed": seed, "device": device, "tracker": tracker}
    values |= {"engine": engine, "workers": workers, "certify": certify}
    carry_out("resampling", {"preset": "demo"} | typed(ctx, values), door(out, dry_run))


def run_drift(given: Mapping[str, Any], out: Path, dry_run: bool, as_json: bool) -> None:
    """`thoughtgraft drift`: with --json, the table on stdout and all that is told on stderr."""
    from rich.console import Console

    from thoughtgraft.cli.console import Terminal
    from thoughtgraft.studies.drift.report import JSON_FILE

    said = Terminal(Console(stderr=as_json))
    carry_out("drift", given, replace(door(out, dry_run), said=said))
    if as_json and not dry_run:
        typer.echo((out / JSON_FILE).read_text(encoding="utf-8"), nl=False)


drift = with_options(
    "drift",
    run_drift,
    out=(Path("runs/drift"), options.Out),
    dry_run=(False, options.DryRun),
    as_json=(False, options.AsJson),
)


def run_zoo(given: Mapping[str, Any], out: Path | None, dry_run: bool, as_json: bool) -> None:
    """`thoughtgraft zoo`: without --out what cards say, at once."""
    if out is not None:
        carry_out("zoo", given, door(out, dry_run))
        return
    from thoughtgraft.cli.console import Terminal
    from thoughtgraft.studies.zoo.cards import card_row, card_table, unmeasured
    from thoughtgraft.studies.zoo.design import ZooOptions

    asked, said = ZooOptions.of(given), Terminal()
    rows = [card_row(name, asked.problems) for name in asked.names]
    if as_json:
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    said.show(card_table(rows, asked.problems))
    for line in unmeasured(rows, asked.problems):
        said.line(line)


ZooOut = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        callback=checks.writable_folder,
        help="Measure everything, and write zoo.md, figures and tables here; without it: what the models' cards say.",
    ),
]
zoo = with_options("zoo", run_zoo, out=(None, ZooOut), dry_run=(False, options.DryRun), as_json=(False, options.AsJson))
