"""Figures of problems: distribution, heat map, scatter of methods, decoded thoughts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from thoughtgraft.edits.known import Swap
from thoughtgraft.edits.site import slots_label
from thoughtgraft.records.schema import Family
from thoughtgraft.records.spec import DECODED_FILE
from thoughtgraft.report.document import estimate, plural, records_of, shorten
from thoughtgraft.report.figures.kit import BLUE, INK, Skipped, drawable, light_grid, look, slot_ticks
from thoughtgraft.studies.resampling.analysis import Analysis
from thoughtgraft.studies.resampling.figures import edit_of, edited
from thoughtgraft.studies.run import Run

DISTRIBUTION_TITLE = "Distribution over problems of the share of donors that changed the answer"
BINS = 11


@dataclass(frozen=True)
class SlotDistribution:
    """Per slot: shares of problems [slot, bin], bin centres [bin], mean [slot] and number of problems."""

    shares: np.ndarray
    centres: np.ndarray
    means: tuple[float, ...]
    labels: tuple[str, ...]
    caption: str
    name: str = "distribution"
    title: str = DISTRIBUTION_TITLE
    sharey: bool = False
    panels: int = 1
    size: tuple[float, float] = (8.0, 3.8)

    @classmethod
    def from_analysis(cls, analysis: Analysis) -> SlotDistribution | Skipped:
        """From the single-slot swaps of the primary stratum."""
        frame = analysis.frame
        arms = frame.singles(frame.primary)
        if not arms:
            return Skipped(cls.name, DISTRIBUTION_TITLE, "The run has no single-slot swaps.")
        donors = max(int(cells.draw.max()) + 1 for cells in arms.values())
        bins = min(donors + 1, BINS)
        edges = (np.arange(bins + 1) - 0.5) / (bins - 1) if bins > 1 else np.array([-0.5, 0.5])
        rows, means, ns = [], [], []
        for cells in arms.values():
            values = cells.host_mean(cells.changed, len(frame.hosts))
            values = values[np.isfinite(values)]
            rows.append(np.histogram(values, edges)[0] / len(values))
            means.append(float(values.mean()))
            ns.append(len(values))
        caption = (
            f"For each slot a sideways histogram over problems (n = {plural(max(ns), 'problem')} per slot, up to "
            f"{plural(donors, 'donor')} each): the wider the bar, the more problems have this share of changed "
            "answers. Dash: mean over problems. It shows spread, not uncertainty: there are no intervals here."
        )
        labels = tuple(cells.arm.place() for cells in arms.values())
        return cls(np.array(rows), (edges[:-1] + edges[1:]) / 2, tuple(means), labels, caption)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw on one pair of axes."""
        light_grid(ax)
        step = float(self.centres[1] - self.centres[0]) if len(self.centres) > 1 else 0.2
        widest = float(self.shares.max())
        for k, shares in enumerate(self.shares):
            width = 0.84 * shares / widest
            ax.barh(self.centres, width, height=0.82 * step, left=k - width / 2, color=BLUE, alpha=0.55, zorder=2)
            ax.plot([k - 0.3, k + 0.3], [self.means[k]] * 2, color=INK, linewidth=1.8, zorder=3)
        slot_ticks(ax, self.labels)
        ax.set_ylim(-step / 2 - 0.02, 1 + step / 2 + 0.02)
        ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
        ax.set_ylabel("donors that changed\nthe answer")
        ax.set_xlabel(f"swapped thought (the widest bar is {widest:.0%} of the problems)")
        ax.set_title(self.title)


TITLE = "Share of donors that changed the answer, by problem and slot"


@dataclass(frozen=True)
class ProblemBySlot:
    """`share` [problem, slot] in 0..1, sorted by sensitivity; `wrong` [problem] marks those wrong without any edit."""

    share: np.ndarray
    wrong: np.ndarray
    labels: tuple[str, ...]
    caption: str
    name: str = "problems_by_slot"
    title: str = TITLE
    sharey: bool = False
    panels: int = 1

    @property
    def size(self) -> tuple[float, float]:
        """Inches; tall enough for a row of the map to be seen."""
        return (8.0, float(np.clip(1.6 + 0.055 * len(self.share), 3.4, 9.0)))

    @classmethod
    def from_analysis(cls, analysis: Analysis) -> ProblemBySlot | Skipped:
        """From the single-slot swaps, in the order of the per-problem table."""
        frame = analysis.frame
        arms = frame.singles(frame.primary)
        if not arms:
            return Skipped(cls.name, TITLE, "The run has no single-slot swaps.")
        table = analysis.per_problem.table
        place = {host: i for i, host in enumerate(frame.hosts)}
        order = [place[host] for host in table.problem_id]
        share = np.stack([cells.host_mean(cells.changed, len(frame.hosts))[order] for cells in arms.values()], axis=1)
        donors = max(int(cells.draw.max()) + 1 for cells in arms.values())
        caption = (
            f"One row per problem (n = {len(order)}), most sensitive on top (shrunken share of changed answers, as in "
            f"the per-problem table); one column per slot; shade: share of up to {plural(donors, 'donor')} whose "
            "thought changed the answer. A mark at the left: the model was wrong on this problem without any edit. "
            "Shares of so few donors are coarse; their intervals are in the per-problem table."
        )
        labels = tuple(cells.arm.place() for cells in arms.values())
        return cls(share, ~table.base_correct.to_numpy(dtype=bool), labels, caption)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw on one pair of axes, with its colour bar."""
        from matplotlib import colormaps

        # Light to dark, so that it reads the same in greyscale; what was not run is flat grey.
        colours = colormaps["Blues"].with_extremes(bad="#C9C9C9")
        n = len(self.share)
        image = ax.imshow(
            np.ma.masked_invalid(self.share), aspect="auto", cmap=colours, vmin=0, vmax=1, interpolation="nearest"
        )
        rows = np.flatnonzero(self.wrong)
        size = float(np.clip(220 / max(n, 1), 1.5, 5))
        ax.plot(
            np.full(len(rows), -0.78), rows, "x", color="#D55E00", markersize=size, markeredgewidth=1, clip_on=False
        )
        ax.set_xlim(-1.0, len(self.labels) - 0.5)
        ax.set_xticks([-0.78, *range(len(self.labels))], ["wrong\nunedited", *self.labels])
        ax.get_xticklabels()[0].set_fontsize(6.5)
        ax.tick_params(length=0)
        ticks = sorted({0, n - 1, *range(9, n, 10 if n <= 60 else 20)})
        ax.set_yticks(ticks, [str(tick + 1) for tick in ticks])
        ax.set_ylabel("problem, by rank of sensitivity")
        ax.set_xlabel("swapped thought")
        ax.spines[:].set_visible(False)
        bar = ax.figure.colorbar(image, ax=ax, shrink=0.6, pad=0.02)
        bar.set_label("share of donors that changed the answer")
        bar.outline.set_visible(False)
        ax.set_title(self.title)


SCATTER_TITLE = "Impact of swapping against impact of ablating, by slot (percentage points)"


@dataclass(frozen=True)
class Dot:
    """One slot, by its label: impacts (ablation, swap) in pp, their intervals, and the joint region [point, 2]."""

    slot: str
    x: tuple[float, float, float]
    y: tuple[float, float, float]
    region: np.ndarray


@dataclass(frozen=True)
class SwapAgainstAblation:
    """One panel for each ablation that was run at three slots or more."""

    dots: tuple[tuple[str, tuple[Dot, ...], str], ...]
    limits: tuple[float, float]
    caption: str
    name: str = "agreement"
    title: str = SCATTER_TITLE
    sharey: bool = False

    @property
    def panels(self) -> int:
        """One for each ablation."""
        return len(self.dots)

    @property
    def size(self) -> tuple[float, float]:
        """Inches; panels are square."""
        return {1: (4.8, 5.0), 2: (8.0, 4.7), 3: (9.6, 4.2)}.get(self.panels, (8.0, 8.8))

    @classmethod
    def from_analysis(cls, analysis: Analysis) -> SwapAgainstAblation | Skipped:
        """From the position and agreement tables, with the covariance of the hosts' means for the joint regions."""
        table = edited(analysis)
        table = table[table.slots.map(len) == 1]
        agreements = {row["method_b"]: row for row in records_of(analysis.agreement)}
        if not agreements:
            return Skipped(
                cls.name, SCATTER_TITLE, "It needs swap and an ablation (mean, zero, skip or noise) at three slots."
            )
        impacts = {(edit_of(row), *row["slots"]): row for row in records_of(table)}
        panels = []
        for other, row in agreements.items():
            slots = [slot for slot in row["slots"] if (Swap.name, slot) in impacts and (other, slot) in impacts]
            dots = [_dot(analysis, slot, impacts[other, slot], impacts[Swap.name, slot], other) for slot in slots]
            r = f"r = {estimate(row['r'], row['r_low'], row['r_high'], 2)}"
            panels.append(
                (other, tuple(dots), f"{r}; {plural(row['n_slots'], 'slot')}, {plural(row['n_hosts'], 'host')}")
            )
        reach = np.concatenate([[*d.x, *d.y, *d.region.ravel()] for _, dots, _ in panels for d in dots])
        reach = reach[np.isfinite(reach)]
        pad = 0.06 * max(float(np.ptp(reach)), 1.0)
        caption = (
            f"Each point is a slot; crosses are its two {analysis.decision.rule.level} intervals, each alone; the "
            "shaded region is the joint 95% region (normal approximation; correlation of the two impacts over "
            "hosts). On the diagonal both methods cost the same. r is over slots, as they stand; its interval is "
            "from resampling hosts and donors jointly, and n stands in each panel. The verdict is made of r "
            "corrected for noise, in the table. Six points cannot carry a p-value, so none is given."
        )
        return cls(tuple(panels), (float(reach.min()) - pad, float(reach.max()) + pad), caption)

    def plot(self, ax: Any, panel: int = 0) -> None:
        """Draw one ablation's panel."""
        other, dots, text = self.dots[panel]
        colour, marker = look(other)
        light_grid(ax, "both")
        ax.plot(self.limits, self.limits, color="#999999", linewidth=0.8, linestyle="--", zorder=1)
        for dot in dots:
            if len(dot.region):
                ax.fill(*dot.region.T, color=colour, alpha=0.13, linewidth=0, zorder=2)
            ax.plot(dot.x[1:], [dot.y[0]] * 2, color=colour, linewidth=1, zorder=3)
            ax.plot([dot.x[0]] * 2, dot.y[1:], color=colour, linewidth=1, zorder=3)
            ax.plot(dot.x[0], dot.y[0], marker, color=colour, markersize=5, zorder=4)
        for place, names in self._labels(dots):
            ax.annotate(names, place, xytext=(4, 4), textcoords="offset points", fontsize=7.5, zorder=5)
        ax.set_xlim(self.limits)
        ax.set_ylim(self.limits)
        ax.set_aspect("equal")
        ax.set_xlabel(f"accuracy lost by {other} (pp)")
        if panel == 0 or (panel == 2 and self.panels == 4):
            ax.set_ylabel("accuracy lost by swap (pp)")
        ax.set_title(text, fontsize=8.5, fontweight="normal")

    def _labels(self, dots: tuple[Dot, ...]) -> list[tuple[tuple[float, float], str]]:
        """Where to write which slots: points too close for labels of their own share one."""
        near = 0.05 * (self.limits[1] - self.limits[0])
        groups: list[list[Dot]] = []
        for dot in dots:
            for group in groups:
                if max(abs(group[0].x[0] - dot.x[0]), abs(group[0].y[0] - dot.y[0])) < near:
                    group.append(dot)
                    break
            else:
                groups.append([dot])
        return [((group[0].x[0], group[0].y[0]), ", ".join(dot.slot for dot in group)) for group in groups]


def _dot(analysis: Analysis, slot: int, ablation: dict[str, Any], swap: dict[str, Any], other: str) -> Dot:
    frame = analysis.frame
    x = frame.host_by_slot(Family(other))[:, slot]
    y = frame.host_by_slot(frame.primary)[:, slot]
    both = np.isfinite(x) & np.isfinite(y)
    spread = x[both].std() * y[both].std() if both.sum() > 2 else 0.0
    rho = float(np.cov(x[both], y[both], bias=True)[0, 1] / spread) if spread > 0 else 0.0
    sx, sy = ablation["se_twoway"], swap["se_twoway"]
    region = np.empty((0, 2))
    if sx > 0 and sy > 0:
        angle = np.linspace(0, 2 * np.pi, 90)
        root = np.linalg.cholesky(np.array([[sx**2, rho * sx * sy], [rho * sx * sy, sy**2]]) + 1e-9 * np.eye(2))
        circle = np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.sqrt(stats.chi2.ppf(0.95, 2))
        region = circle @ root.T + [ablation["impact_pp"], swap["impact_pp"]]
    ends = [tuple(row[name] for name in ("impact_pp", "ci_low", "ci_high")) for row in (ablation, swap)]
    return Dot(swap["label"], ends[0], ends[1], region)


THOUGHTS_TITLE = "What each thought decodes to: its most probable tokens"
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
    title: str = THOUGHTS_TITLE
    sharey: bool = False
    panels: int = 1

    @property
    def size(self) -> tuple[float, float]:
        """Inches."""
        return (8.6, 0.7 + 1.15 * len(self.lanes))

    @classmethod
    def from_run(cls, run: Run, problem_ids: Sequence[str]) -> DecodedThoughts | Skipped:
        """From `decoded.parquet`, for the given problems, in this order."""
        if not run.holds(DECODED_FILE) or not len(decoded := run.decoded()):
            return Skipped(cls.name, THOUGHTS_TITLE, "The run has no decoded thoughts (decoded.parquet).")
        lanes = []
        for problem_id in problem_ids:
            part = decoded[decoded.problem_id.astype(str) == problem_id].sort_values(["slot", "rank"])
            if not len(part):
                continue
            slots = []
            for _, top in part.groupby("slot"):
                slots.append(
                    tuple((drawable(str(t)), float(p)) for t, p in zip(top.token, top.prob, strict=True))[:TOP]
                )
            gold = run.rows_of_problems.get(problem_id, {}).get("gold")
            answer = "" if gold is None else f"  → {gold}"
            lanes.append(Lane(drawable(shorten(run.question(problem_id), 118) + answer), tuple(slots)))
        if not lanes:
            return Skipped(cls.name, THOUGHTS_TITLE, "The decoded thoughts of the chosen problems are not in the run.")
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
        ax.set_xticks([k + 0.5 for k in range(columns)], [slots_label((k,)) for k in range(columns)])
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
        ax.set_title(self.title)
