"""Section: what the thoughts of a few chosen problems and pairs decode to."""

from __future__ import annotations

from thoughtgraft.report.chosen import Pair, chosen_pairs
from thoughtgraft.report.context import Context
from thoughtgraft.report.document import Block, Prose, Section, Table
from thoughtgraft.report.formats import percent, visible

TOP = 3


def section(context: Context) -> Section:
    """Figure of a few problems, then pairs of host and donor slot by slot."""
    blocks: list[Block] = [*context.figure("decoded_thoughts")]
    pairs = chosen_pairs(context.run, context.analysis)
    if context.run.decoded is not None and pairs:
        text = (
            f"Pairs below are swaps at CT{pairs[0].slot}, the single slot of largest impact; each is the first of its "
            "kind by id, among hosts that are right unedited. They illustrate; they are not evidence."
        )
        blocks.append(Prose(text))
        blocks += [_pair(context, pair) for pair in pairs]
    elif not pairs:
        blocks.append(
            Prose("No pairs to show: the run has no single-slot swaps on hosts that are right unedited.", "note")
        )
    return Section("thoughts", "What the thoughts decode to", tuple(blocks))


def _pair(context: Context, pair: Pair) -> Table:
    record = pair.record
    host, donor = str(record["problem_id"]), str(record["donor_id"])
    rows = []
    for slot in range(context.run.spec.num_latents):
        mark = "  ← swapped" if slot == pair.slot else ""
        rows.append((f"CT{slot}{mark}", _top(context, host, slot), _top(context, donor, slot)))
    reading = (
        f"Host {host}: {context.run.question(host, 260)} Gold {record['gold']}, clean answer {record['base_pred']}. "
        f"Donor {donor}: {context.run.question(donor, 260)} Its clean answer {record['donor_pred']}. With the donor's "
        f"CT{pair.slot} the host answers {record['pred'] or 'nothing that parses'}. Cells: the {TOP} most probable "
        "tokens of each clean thought."
    )
    title = f"{pair.why[0].upper()}{pair.why[1:]}: {record['base_pred']} → {record['pred'] or 'nothing'}"
    return Table(("slot", "host's thought", "donor's thought"), tuple(rows), reading, title=title)


def _top(context: Context, problem_id: str, slot: int) -> str:
    decoded = context.run.decoded
    if decoded is None:
        return "not recorded"
    part = (
        decoded[(decoded.problem_id.astype(str) == problem_id) & (decoded.slot == slot)].sort_values("rank").head(TOP)
    )
    shown = [f"{visible(str(token))} ({percent(prob, 0)})" for token, prob in zip(part.token, part.prob, strict=True)]
    return ", ".join(shown) or "not recorded"
