"""Section: what was run: model, protocol, hosts and donors, and every arm with its size."""

from __future__ import annotations

from collections import defaultdict

from thoughtgraft.analysis.power import minimum_effect
from thoughtgraft.report.context import Context
from thoughtgraft.report.document import Section, Table, key_values
from thoughtgraft.report.formats import count, number, percent, plural
from thoughtgraft.report.tables import slot_order

HEADER = ("method", "slots", "later thoughts", "donors", "hosts", "donors per host", "generations", "failed")


def section(context: Context) -> Section:
    """The design, as facts and as a table of arms."""
    spec, frame = context.run.spec, context.analysis.frame
    right = context.run.records.drop_duplicates("problem_id").base_correct
    n = len(frame.hosts)
    facts = [
        ("study", spec.study),
        ("model", f"{spec.model} (identity {spec.model_hash})"),
        (
            "protocol",
            f"{spec.protocol}, {plural(spec.num_latents, 'continuous thought')} (CT0 to CT{spec.num_latents - 1})"
            f"{'; ' if context.flaw else ''}{context.flaw}",
        ),
        ("problems", f"{spec.problems} (content {spec.problem_hash})"),
        ("hosts in the records", f"{n} of {spec.n_hosts} planned"),
        ("donors per host", str(spec.n_donors)),
        ("accuracy without any edit", f"{percent(right.mean())} of {plural(n, 'host')}"),
        ("generations in the records", f"{count(frame.n_rows)} of {count(spec.n_cells)} planned"),
        ("longest answer", "not recorded" if spec.max_new_tokens is None else f"{spec.max_new_tokens} tokens"),
        ("seed", str(spec.seed)),
        ("plan", spec.plan_hash),
    ]
    reading = (
        "Each host problem receives, at one slot or several, a thought of a donor problem (swap) or something else "
        "(ablations); the model then answers, and the answer is compared with the host's unedited one. "
        f"With {plural(n, 'host')} and a spread between hosts of 30 pp, the smallest impact found with 80% power is "
        f"{number(100 * minimum_effect(n)) if n > 1 else 'undefined'} pp; what this run's own spread allows is in the "
        "position table (MDE)."
    )
    return Section("design", "Design", (key_values(facts, reading), arms(context)))


def arms(context: Context) -> Table:
    """Every arm, slots with equal sizes joined in one row."""
    frame = context.analysis.frame
    joined: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for key, cells in frame.arms.items():
        draws = int(cells.draw.max()) + 1 if len(cells) else 0
        many = str(draws) if draws > 1 or cells.has_donors else "–"
        sizes = (count(cells.n_hosts), many, count(len(cells)), count(cells.n_failed))
        joined[(key.method, key.downstream or "–", key.stratum or "–", *sizes)].append(frame.label(key.slots))
    order = ["baseline", "noop", "self", "swap"]
    rows = []
    for (method, down, stratum, hosts, many, cells_each, failed), labels in joined.items():
        each = " each" if len(labels) > 1 else ""
        slots = ", ".join(slot_order(labels)).replace("none", "–")
        rows.append((method, slots, down, stratum, hosts, many, f"{cells_each}{each}", failed))
    rows.sort(key=lambda row: (order.index(row[0]) if row[0] in order else len(order), row[0], row[2], row[3], row[1]))
    reading = (
        "The arms in the records. Later thoughts: what the unedited slots after the edit receive (recompute: computed "
        "anew; freeze_input, freeze_kv: held at the clean run's). Donors: how they were drawn. Baseline, noop and self "
        "edit nothing and check the machinery."
    )
    return Table(HEADER, tuple(rows), reading, frozenset({4, 5, 6, 7}), title="Arms")
