"""A page as Markdown and as one HTML file."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from thoughtgraft.report.document import Picture, Report, markdown, tone_of


def _environment(*, html: bool) -> Environment:
    env = Environment(
        loader=PackageLoader("thoughtgraft.report", "templates"),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters |= {"tone": tone_of, "md": markdown, "data_uri": data_uri, "fence": fence}
    return env


def data_uri(picture: Picture) -> str:
    """The picture as text that a page can hold, so that the page needs no other file."""
    return "data:image/png;base64," + base64.b64encode(picture.data).decode("ascii")


def fence(text: str) -> str:
    """Text as a Markdown code block that no run of backticks in it can end."""
    longest = max((len(run) for run in "".join(c if c == "`" else " " for c in text).split()), default=0)
    mark = "`" * max(3, longest + 1)
    return f"{mark}\n{text}\n{mark}"


def to_html(report: Report) -> str:
    """The report as one page that needs nothing else and opens offline."""
    return _environment(html=True).get_template("report.html.j2").render(report=report)


def to_markdown(report: Report) -> str:
    """The report as Markdown beside its figures."""
    return _environment(html=False).get_template("report.md.j2").render(report=report)


def to_text(template: str, **values: object) -> str:
    """A small Markdown file from its template; values are escaped by the template's filters."""
    return _environment(html=False).get_template(template).render(**values)


@dataclass(frozen=True)
class ReportPaths:
    """Where the report lies; `figures` holds the PNGs, each with an SVG of the same name beside it.

    A comparison of several runs is a page in Markdown alone: `html` is None.
    """

    md: Path
    html: Path | None
    figures: tuple[Path, ...]

    @property
    def page(self) -> Path:
        """What a reader opens first."""
        return self.html or self.md
