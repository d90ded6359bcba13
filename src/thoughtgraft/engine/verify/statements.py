"""What every check proves, and what follows if it fails; a check made from its figure and its bound."""

from __future__ import annotations

from dataclasses import dataclass

from thoughtgraft.records.certificate import Check


def at_most(name: str, figure: float, bound: float, detail: str = "") -> Check:
    """A check that passes at a figure of at most `bound`."""
    return _check(name, figure, f"<= {bound:.3g}", figure <= bound, detail)


def at_least(name: str, figure: float, bound: float, detail: str = "") -> Check:
    """A check that passes at a figure of at least `bound`."""
    return _check(name, figure, f">= {bound:.3g}", figure >= bound, detail)


def exactly(name: str, figure: float, wanted: float, detail: str = "") -> Check:
    """A check that passes at this figure only."""
    return _check(name, figure, f"= {wanted:g}", figure == wanted, detail)


def _check(name: str, figure: float, threshold: str, passed: bool, detail: str) -> Check:
    statement = STATEMENTS[name]
    return Check(name, statement.proves, figure, threshold, passed, statement.consequence, detail)


@dataclass(frozen=True)
class Statement:
    """A check in words: `proves` holds if it passes, `consequence` threatens if it does not."""

    name: str
    proves: str
    consequence: str
    core: bool = True


_ALL = (
    Statement(
        "thoughts fed",
        "counted at the model's input, every slot is fed one vector, made by the model from the state before it",
        "another number of thoughts is studied than the slots say, or a token is taken for a thought",
    ),
    Statement(
        "edits arrive",
        "heard at the model's input, a swapped slot receives exactly what the donor was fed at that slot, and what "
        "follows is made from the edited state",
        "an edit goes to another place, comes from another place, or is made after the vector was used",
    ),
    Statement(
        "null edit",
        "running every slot through the edit path with no edit changes nothing",
        "differences between arms would include the engine's own",
    ),
    Statement(
        "self-swap identity",
        "putting back a problem's own saved thought changes nothing, at every slot",
        "thoughts are read at one place and written at another, as in a shifted index",
    ),
    Statement(
        "the checks can fail",
        "a thought put back with a relative error of 1e-2 is seen at every slot that can be, above the bound used here",
        "a bound this wide would let mistakes pass",
    ),
    Statement(
        "no dead slot",
        "whatever is put into a slot, something of it reaches the answer",
        "the slot is structurally null: its effect is 0 by construction, which says nothing about the model",
    ),
    Statement(
        "donor swaps reach the logits",
        "at every slot that differs between problems, another problem's thought changes the output",
        "a slot whose edit cannot be seen would be reported as 0% impact",
    ),
    Statement(
        "transplant",
        "with the donor's question and thoughts both in place, a host's row gives the donor's output",
        "the machinery does not move what it says it moves",
    ),
    Statement(
        "batch invariance",
        "a problem alone gives the same output as among others",
        "answers would depend on the batch size",
    ),
    Statement(
        "order invariance",
        "the problems in reverse order give the same outputs",
        "answers would depend on the order of the problems",
    ),
    Statement(
        "padding probe",
        "a longer question beside a problem does not change its output",
        "answers depend on the length of the problems beside them: padding is read as if it were part of the question",
    ),
    Statement(
        "fast equals reference",
        "the batched engine, a plain loop of one problem, and one pass without a cache over what that loop fed agree, "
        "clean and swapped",
        "the fast engine computes something else",
    ),
    Statement(
        "determinism",
        "the same call twice gives the same bits",
        "numbers cannot be made again",
    ),
    Statement(
        "self-swap identity of keys and values",
        "after a self-swap every layer's keys and values at the slots are those of the clean run",
        "the answer looks right while what later tokens attend to is not",
        core=False,
    ),
    Statement(
        "hidden positions are not seen",
        "noise in the filler before shorter questions changes nothing",
        "the mask lets through what it should hide",
        core=False,
    ),
    Statement(
        "visible positions are seen",
        "noise in any token of the question, and in pads that the protocol shows, changes the output",
        "the mask hides what the protocol shows",
        core=False,
    ),
    Statement(
        "cache isolation",
        "after all these edits the saved thoughts and the clean run are bit for bit what they were",
        "a run changes what later runs reuse",
    ),
    Statement(
        "library agrees",
        "in a real run of these arms, the first logits of every record are those of the model library's own forward "
        "pass and cache, fed what the arm's definition says",
        "adapter and engine share a mistake: a norm applied twice, a wrong position, one kind of edit that does "
        "something else than its name says",
    ),
    Statement(
        "cells and donors",
        "its records are the plan's cells, each once, with the key that its definition gives; donors are other "
        "problems of the stratum, each once, drawn anew by the rule, and the same in every arm",
        "a record is another experiment's, or a comparison is not of the same pairs",
    ),
    Statement(
        "answers are greedy",
        "each token of every answer, and its end, is the best one allowed after those before it",
        "answers are not the model's: a draft was taken where the edit would have written something else",
    ),
    Statement(
        "answers are graded",
        "texts, numbers, right and wrong, changed and adopted are read from the tokens again, by other code; one gold "
        "answer is wrong by a hair, one is a donor's",
        "accuracies and adoption are not what their names say",
    ),
    Statement(
        "scores by definition",
        "log-probabilities of gold and donor's numbers, their change, and the divergence at the number are computed "
        "again from the library's logits",
        "a score is of other words, of another problem, one token late, or the wrong way round",
    ),
    Statement(
        "edited vectors by definition",
        "norm and cosine of what an edit feeds are those of the vector that its definition gives",
        "an edit feeds something else, or rounds it",
    ),
    Statement(
        "states by definition",
        "saved thoughts, and residual streams after every block at every position, are those of the library's pass",
        "edits draw on, or probes read, the states of another position or layer",
    ),
    Statement(
        "what is never written",
        "with the highest logits on what greedy decoding leaves out, and answers cut in their numbers, the answers "
        "are still the best allowed tokens",
        "answers hold what the official code cannot write, or end in the clean answer's number",
    ),
    Statement(
        "wild answers",
        "with an output layer that makes long answers hang on every bit of the state, and saved thoughts that were "
        "changed, the tokens are still the best allowed, and texts leave special ones out",
        "a refused draft leaves traces in what follows, or an edit does not read what was saved",
    ),
    Statement(
        "official cases",
        "prompts, thoughts, logits, swaps and zeros are those that the official code printed for the same weights",
        "this is not the published method: another prompt, projection, norm, LoRA scale or position",
        core=False,
    ),
    Statement(
        "weights are the file's",
        "every parameter is the file's (LoRA merged anew in another way), the file's hash is unchanged, and the "
        "adapter projects as the file's prj does",
        "part of the model is not the one that was published",
        core=False,
    ),
    Statement(
        "fingerprint",
        "the answers to the questions that the model's card records are the recorded ones",
        "this is not the model that the card describes, or it is not run as it was",
        core=False,
    ),
)

STATEMENTS = {statement.name: statement for statement in _ALL}
"""Every check by name, in the order in which they run."""
