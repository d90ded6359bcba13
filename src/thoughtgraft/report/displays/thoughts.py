"""Figure: what each thought of a few problems decodes to: top tokens by slot, shaded by probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from thoughtgraft.report.displays.base import Skipped
from thoughtgraft.report.displays.style import drawable
from thoughtgraft.report.formats import shorten
from thoughtgraft.report.run import RunData

TITLE = "What each thought decodes to: its most probable tokens"
TOP = 3


@dataclass(frozen=True)
class Lane:
    """One problem: its heading, and for each slot the (token, probability) pairs, most probable first."""

    heading: str
    slots: tuple[tuple[tuple[str, float], ...], ...]


@dataclass(frozen=True)
class DecodedThoughts:
    """A table-like picture: one lane per problem, one column per slot."""

    lanes: tuple[Lane, ...]
    caption: str
    name: str = "decoded_thoughts"
    title: str = TITLE
    sharey: bool = False
    panels: int = 1

    @property
    def size(self) -> tuple[float, float]:
        """Inches."""
        return (8.6, 0.7 + 1.15 * len(self.lanes))

    @classmethod
    def from_run(cls, run: RunData, problem_ids: Sequence[str]) -> DecodedThoughts | Skipped:
        """From `decoded.parquet`, for the given problems, in this order."""
        if run.decoded is None or not len(run.decoded):
            return Skipped(cls.name, TITLE, "The run has no decoded thoughts (decoded.parquet).")
        lanes = []
        for problem_id in problem_ids:
            part = run.decoded[run.decoded.problem_id.astype(str) == problem_id].sort_values(["slot", "rank"])
            if not len(part):
                continue
            slots = []
            for _, top in part.groupby("slot"):
                slots.append(
                    tuple((drawable(str(t)), float(p)) for t, p in zip(top.token, top.prob, strict=True))[:TOP]
                )
            gold = run.problems.get(problem_id, {}).get("gold")
            answer = "" if gold is None else f"  → {gold}"
            lanes.append(Lane(drawable(shorten(run.question(problem_id), 118) + answer), tuple(slots)))
        if not lanes:
            return Skipped(cls.name, TITLE, "The decoded thoughts of the chosen problems are not in the run.")
        caption = (
            f"Each lane is a problem (n = {len(lanes)}, chosen by sensitivity: the most sensitive first); each column "
            "a thought, read through the model's own unembedding; top three tokens with their probabilities, darker "
            "= more probable. After the arrow: the gold answer. An illustration, without intervals: that a token can "
            "be read does not show that the model uses it."
        )
        return cls(tuple(lanes), caption)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw the lanes from top to bottom."""
        from matplotlib import colormaps
        from matplotlib.patches import Rectangle

        colours, columns = colormaps["Blues"], max(len(lane.slots) for lane in self.lanes)
        for i, lane in enumerate(self.lanes):
            top = i * (TOP + 1.7)
            ax.text(0, top + 0.9, lane.heading, fontsize=7.5, va="bottom")
            for k, tokens in enumerate(lane.slots):
                for rank, (token, prob) in enumerate(tokens):
                    y = top + 1 + rank
                    shade = colours(0.05 + 0.75 * min(max(prob, 0.0), 1.0))
                    ax.add_patch(Rectangle((k + 0.02, y + 0.04), 0.96, 0.92, facecolor=shade, linewidth=0))
                    ink = "white" if prob > 0.6 else "#222222"
                    text = token if len(token) <= 11 else token[:10] + "…"
                    ax.text(k + 0.06, y + 0.5, text, fontsize=8, va="center", color=ink, clip_on=True)
                    ax.text(k + 0.94, y + 0.5, f"{prob:.0%}", fontsize=6.5, va="center", ha="right", color=ink)
        ax.set_xlim(0, columns)
        ax.set_ylim(len(self.lanes) * (TOP + 1.7) - 0.4, 0)
        ax.set_xticks([k + 0.5 for k in range(columns)], [f"CT{k}" for k in range(columns)])
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
        ax.set_title(self.title)
