"""Section: what every word in the report means, for a reader who has only this file."""

from __future__ import annotations

from thoughtgraft.analysis.verdicts import INVALID, Agreement, Verdict
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
    (
        "interval alone",
        "in repeated runs about 95% of such intervals hold the true value; two-way clustered t, or where few hosts "
        "differ an exact interval of shares",
    ),
    (
        "simultaneous interval",
        "made wider so that in about 95% of runs all intervals of a family, such as the single slots of one method, "
        "hold together (max-t); verdicts are made from it",
    ),
    ("margin", "the effect that is counted as large by the rule, in percentage points; fixed before a run"),
    ("Holm", "p-values of no effect, adjusted so that the chance of any false one in the family stays below alpha"),
    ("max-T", "a permutation p adjusted over the slots; it treats the donors drawn as fixed"),
    ("pigeonhole", "a bootstrap that resamples hosts and donors independently; it errs on the wide side"),
    ("power within", "the chance that such a run calls an impact of 0 NEGLIGIBLE: 'no effect' is a claim too"),
    ("MDE", "minimum detectable effect: what a run of this size finds with 80% power"),
    ("failed cell", "its edit raised, gave NaN or infinity, or overflowed: no answer, counted, in no estimate"),
    (INVALID, "a gate failed, so nothing may be claimed"),
    ("undefined", "the number does not exist for these data; the note beside it says why"),
    ("certificate", "checks that model, protocol and engine must pass before a number counts"),
)


def section(context: Context) -> Section:
    """The glossary."""
    spec, rule = context.run.spec, context.analysis.decision.rule
    words = [(str(word), word.says(f"the margin ({rule.margin_pp:g} pp)")) for word in Verdict]
    words += [(str(w), w.says(f"{rule.agreement_bar:g}")) for w in Agreement if str(w) not in dict(words)]
    judged = () if context.old is not None else tuple((name, f"verdict: {meaning}") for name, meaning in words)
    rows = (
        *TERMS,
        *judged,
        (
            "protocol",
            f"a complete rule of inference (prompt, masks, number of thoughts, indexing); here: {spec.protocol}",
        ),
    )
    return Section("definitions", "Definitions", (Table(("term", "meaning"), rows, "In the order of their use."),))
