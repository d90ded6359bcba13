"""Section: what the words of an operations report mean."""

from __future__ import annotations

from thoughtgraft.analysis.verdicts import Verdict
from thoughtgraft.report.document import Section, Table

TERMS = (
    ("continuous thought", "a hidden vector that the model feeds back to itself instead of writing a word"),
    ("BOT", "the begin-of-thought position: the model has read the question and thought nothing yet"),
    ("CTk", "the position that consumes the k-th thought, counted from 0"),
    ("residual stream after layer l", "what a block of the model hands to the next; blocks count from 0"),
    ("cell", "one position at one layer"),
    ("probe", "a simple model that learns a label from the residual stream of some problems and is asked about others"),
    ("linear probe", "ridge regression of class indicators with a penalty fixed by the features alone; nearest mean"),
    ("balanced accuracy", "the mean over classes of the share that is named right; chance is 1 / classes"),
    ("R²", "share of a number's variance that is predicted on problems not learnt from; below 0: worse than the mean"),
    ("fold", "a division into problems to learn from and problems to be asked about; equal questions stay together"),
    ("words", "the same question asked of the question's text alone (TF-IDF of words and pairs, linear model)"),
    ("gain over words", "score of the probe − score of the text baseline, paired by fold"),
    ("control task", "labels that are a fixed random function of something superficial that repeats between questions"),
    ("selectivity", "score − score on the control task: what is not mere memory of the probe (Hewitt, Liang 2019)"),
    ("corrected t", "an interval that allows for folds sharing training problems (Nadeau, Bengio 2003)"),
    ("p", "share of label permutations that score as high, (b + 1) / (B + 1)"),
    ("p max-T", "the same against the highest score anywhere on the map: adjusted for having looked everywhere"),
    ("Holm", "p-values adjusted so that the chance of any false claim on the map stays below alpha"),
    ("q (BH)", "p-values adjusted for the share of false findings among those listed"),
    ("Mantel r", "correlation over pairs of problems of likeness of thoughts with likeness of labels"),
    ("PERMANOVA", "whether classes differ in place: distances between against within, labels permuted"),
    ("debiased CKA", "likeness of two arrangements of the same problems, with the bias of many features removed"),
    ("effect of a cell", "the smaller of gain over words and selectivity: above 0 only where both are"),
    ("effect of a position", "that of its best layer"),
    ("simultaneous interval", "wider, so that the intervals of all cells of a map hold together; verdicts rest on it"),
    ("undefined", "the number does not exist for these data; the note beside it says why"),
    *((str(word), f"verdict: {word.says('the margin')}") for word in Verdict),
)


def section() -> Section:
    """The glossary."""
    return Section("definitions", "Definitions", (Table(("term", "meaning"), TERMS, "In the order of their use."),))
