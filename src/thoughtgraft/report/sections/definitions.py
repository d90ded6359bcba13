"""Section: what every word in the report means, for a reader who has only this file."""

from __future__ import annotations

from thoughtgraft.report.context import Context
from thoughtgraft.report.document import Section, Table

TERMS = (
    ("continuous thought", "a hidden vector that the model feeds back to itself instead of writing a word"),
    ("slot, CTk", "the place of the k-th vector that the model is fed, counted from 0: CT0, CT1, ..."),
    ("host", "the problem that is being answered and receives an edit"),
    ("donor", "the problem that a thought is taken from"),
    ("baseline, clean run", "the host answered without any edit"),
    ("arm", "one condition: a method, at some slots, with a rule for the thoughts that come after"),
    ("cell, generation", "one answer of the model: an arm on a host, with a donor where the arm needs one"),
    ("swap", "the slot receives the donor's clean thought"),
    (
        "mean, zero, noise",
        "the slot receives the mean thought of the other problems, zeros, or a random direction of equal norm",
    ),
    ("skip", "the slot is left out, and later thoughts move up"),
    ("truncate", "the thoughts end before the slot"),
    ("shuffle", "the slot receives the donor's thought of another slot"),
    ("self, noop", "checks: the host's own thought through the edit path; the edit path with nothing to edit"),
    ("recompute", "thoughts after the edit are computed anew (total effect)"),
    ("freeze_input", "thoughts after the edit are held at the clean ones; they can still look back at the edit"),
    ("freeze_kv", "their keys and values are held too: only the answer can look at the edit (direct effect)"),
    ("impact, pp", "accuracy of the clean run − accuracy of the arm, paired by host, in percentage points"),
    ("impact given correct", "the same among hosts that are right without an edit: it cannot be negative"),
    ("adoption", "the answer after the swap is the donor's answer, among pairs where that can be told"),
    ("null, excess", "adoption when donors are exchanged between hosts; adoption − null"),
    ("Δ log p(gold)", "change of the natural-log probability of the gold answer"),
    ("KL", "how far the distribution of the answer's first token moved from the clean one, in nats"),
    (
        "two-way clustered",
        "host-level and donor-level variation both widen the interval, since donors recur across hosts",
    ),
    ("95% interval", "a t interval unless said otherwise; in repeated runs about 95% of them hold the true value"),
    ("Holm", "p-values adjusted so that the chance of any false claim among the slots stays below alpha"),
    ("max-T", "a permutation p adjusted over the slots; it treats the donors drawn as fixed"),
    ("pigeonhole", "a bootstrap that resamples hosts and donors independently; it errs on the wide side"),
    ("equivalence test", "two one-sided tests that the impact is smaller than the margin: 'no effect' is a claim too"),
    ("MDE", "minimum detectable effect: what a run of this size finds with 80% power"),
    ("SUPPORTED, REFUTED", "the result meets the rule's condition for, or against, the claim"),
    ("UNDERPOWERED", "neither: the run cannot tell; it says nothing against the claim"),
    ("failed cell", "its edit raised, gave NaN or infinity, or overflowed: no answer, counted, in no estimate"),
    ("INVALID", "a gate failed, so nothing may be claimed"),
    ("undefined", "the number does not exist for these data; the note beside it says why"),
    ("certificate", "checks that model, protocol and engine must pass before a number counts"),
)


def section(context: Context) -> Section:
    """The glossary."""
    spec = context.run.spec
    rows = (
        *TERMS,
        (
            "protocol",
            f"a complete rule of inference (prompt, masks, number of thoughts, indexing); here: {spec.protocol}",
        ),
    )
    return Section("definitions", "Definitions", (Table(("term", "meaning"), rows, "In the order of their use."),))
