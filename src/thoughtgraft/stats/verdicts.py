"""Verdicts: words that are a pure function of a printed interval and a margin, so that no page can contradict itself.

Every table and sentence of the package takes its verdicts from here. No p-value and no power decides one.
"""

from __future__ import annotations

from enum import StrEnum
from math import isnan

import pandas as pd


class Verdict(StrEnum):
    """What a simultaneous interval [L, U] says of an effect, beside 0 and the margin m > 0 of its question.

    The words are exclusive and, with `UNDEFINED` for an interval that does not exist, cover every case.
    """

    ABOVE = "ABOVE"
    PRESENT = "PRESENT"
    SMALL = "SMALL"
    NEGLIGIBLE = "NEGLIGIBLE"
    OPPOSITE = "OPPOSITE"
    UNRESOLVED = "UNRESOLVED"
    BY_CONSTRUCTION = "BY CONSTRUCTION"
    UNDEFINED = "UNDEFINED"

    def says(self, margin: str) -> str:
        """The verdict in plain words, to follow "the effect is" or a colon.

        Args:
            margin: The margin with its unit, such as "5 pp".
        """
        return _SENTENCES[self].format(margin=margin)

    def holds(self, truth: float, margin: float) -> bool:
        """Whether a true value is as the verdict claims; one that claims nothing holds of every value.

        Args:
            truth: The true effect.
            margin: The margin, in the same unit.
        """
        match self:
            case Verdict.ABOVE:
                return truth > margin
            case Verdict.PRESENT:
                return truth > 0
            case Verdict.SMALL:
                return 0 < truth < margin
            case Verdict.NEGLIGIBLE:
                return -margin < truth < margin
            case Verdict.OPPOSITE:
                return truth < 0
            case _:
                return True

    @property
    def tone(self) -> str:
        """How pages colour it: "found" (an effect is there), "none" (it is not, or is below the margin), "open"."""
        return _TONES.get(self, "open")


_SENTENCES = {
    Verdict.ABOVE: "more than {margin}",
    Verdict.PRESENT: "more than 0; whether it reaches {margin} is open",
    Verdict.SMALL: "more than 0 and less than {margin}",
    Verdict.NEGLIGIBLE: "less than {margin} either way, and not told from 0",
    Verdict.OPPOSITE: "below 0: the other way round",
    Verdict.UNRESOLVED: "not told from 0, nor from {margin} or more: this run cannot say",
    Verdict.BY_CONSTRUCTION: "0 whatever the model learned, so there is nothing to estimate",
    Verdict.UNDEFINED: "without an interval, for the reason noted",
}
_TONES = {
    Verdict.ABOVE: "found",
    Verdict.PRESENT: "found",
    Verdict.SMALL: "found",
    Verdict.OPPOSITE: "found",
    Verdict.NEGLIGIBLE: "none",
    Verdict.BY_CONSTRUCTION: "none",
}


def verdict(
    low: float, high: float, margin: float, *, by_construction: bool = False, too_small: bool = False
) -> Verdict:
    """What the interval [low, high] says; margin > 0 in the same unit.

    Args:
        low: Lower end L of the simultaneous interval; NaN where there is none.
        high: Upper end U.
        margin: The margin m of the question.
        by_construction: The effect is 0 by construction, so that no interval is asked for.
        too_small: No interval is known to hold for so few hosts or donors: UNRESOLVED, whatever its ends.

    Returns:
        ABOVE (L > m), PRESENT (L > 0, L <= m <= U), SMALL (L > 0, U < m), OPPOSITE (U < 0), NEGLIGIBLE (0 within the
        interval, -m < L, U < m), UNRESOLVED (0 and m, or 0 and -m, within it), BY CONSTRUCTION, or UNDEFINED.
    """
    if by_construction:
        return Verdict.BY_CONSTRUCTION
    if isnan(low) or isnan(high):
        return Verdict.UNDEFINED
    if too_small:
        return Verdict.UNRESOLVED
    if low > margin:
        return Verdict.ABOVE
    if low > 0:
        return Verdict.SMALL if high < margin else Verdict.PRESENT
    if high < 0:
        return Verdict.OPPOSITE
    return Verdict.NEGLIGIBLE if -margin < low and high < margin else Verdict.UNRESOLVED


class Agreement(StrEnum):
    """Whether two methods tell one story of the slots; see `agreement_verdict`."""

    SAME_PROFILE = "SAME PROFILE"
    SAME_ORDER = "SAME ORDER, OTHER SIZES"
    OTHER_PROFILE = "OTHER PROFILE"
    UNRESOLVED = "UNRESOLVED"

    def says(self, bar: str) -> str:
        """The verdict in plain words; `bar` is the rule's bar for the correlation, such as "0.5"."""
        return _AGREEMENTS[self].format(bar=bar)

    @property
    def tone(self) -> str:
        """How pages colour it: "found", "none" or "open"."""
        alike = self in (Agreement.SAME_PROFILE, Agreement.SAME_ORDER)
        return "found" if alike else "none" if self is Agreement.OTHER_PROFILE else "open"


_AGREEMENTS = {
    Agreement.SAME_PROFILE: "the slots' effects correlate above {bar}, and no difference of sizes is shown",
    Agreement.SAME_ORDER: "the slots' effects correlate above {bar}, but the two methods' sizes differ",
    Agreement.OTHER_PROFILE: "the slots' effects correlate below {bar}, and the two methods' sizes differ",
    Agreement.UNRESOLVED: "this run cannot say whether the two profiles agree",
}


def agreement_verdict(low: float, high: float, bar: float, interaction_p: float, alpha: float) -> Agreement:
    """What the interval [low, high] of a disattenuated correlation says, with the position x method interaction.

    Args:
        low: Lower end of the interval of r; NaN where there is none.
        high: Upper end.
        bar: The rule's bar for r.
        interaction_p: p of "the two methods' profiles differ by no more than a constant"; NaN where undefined.
        alpha: Its level.

    Returns:
        SAME PROFILE (low > bar, p >= alpha), SAME ORDER, OTHER SIZES (low > bar, p < alpha), OTHER PROFILE
        (high < bar, p < alpha); else, or where a bound or p is undefined, UNRESOLVED.
    """
    if isnan(low) or isnan(high) or isnan(interaction_p):
        return Agreement.UNRESOLVED
    differ = interaction_p < alpha
    if low > bar:
        return Agreement.SAME_ORDER if differ else Agreement.SAME_PROFILE
    return Agreement.OTHER_PROFILE if high < bar and differ else Agreement.UNRESOLVED


def unjudged(table: pd.DataFrame) -> pd.DataFrame:
    """A table without its verdicts, for a page on which another rule's words stand."""
    return table.drop(columns=[name for name in table.columns if str(name).endswith("verdict")])


INVALID = "INVALID"
"""Stands in place of every verdict of a run that failed a gate."""
