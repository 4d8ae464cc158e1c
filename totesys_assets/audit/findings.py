"""Findings of the audit: a sentence and some numbers for each check.

Belongs here: the names of the checks, what each claims, and the wording. Does not belong here: comparing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from totesys_assets.days import WHOLE

# The checks of the audit, with what each of them claims. The texts are shown in Dagster.
CONTENT, LEDGER, OVERDUE, HISTORY, ROWS, RECORDS, MONEY, REFERENCES, VIEWS = (
    "content_equals_source",
    "ledger_agrees",
    "nothing_overdue",
    "history_plausible",
    "rows_equal_source",
    "records_equal_lake",
    "money_equals_source",
    "references_found",
    "views_agree",
)
CLAIMS = {
    CONTENT: "In every day whose fingerprint says that it was captured, the lake's current rows are those of the "
    "source, column by column. The comparison uses digests that the source itself computes, where it can, not the path "
    "of the capture. What differs here, the fingerprints have missed; the nightly comparison brings it in.",
    LEDGER: "The ledger notes no version that the lake does not hold.",
    OVERDUE: "What waits for a refresh was written since the last one that was complete, and the probe, which saves a "
    "refresh where nothing changed, does not say that nothing did.",
    HISTORY: "Every version follows from the one before it. No row was deleted and came back equal in every column, "
    "unless the log told of its deletion: where one did, look whether the source had it all the while, for then the "
    "deletion in the history is a false one. The newest versions are dated when they were written, or, by the log, "
    "committed.",
    ROWS: "The warehouse's current rows are those of the source, by number and key.",
    RECORDS: "The warehouse holds every record that follows from the lake's versions, in every column, and no other.",
    MONEY: "The sums of money, by currency, are those of the source.",
    REFERENCES: "Every record finds the dimension rows that it refers to. One that does not refers to a row in the "
    "dead letters.",
    VIEWS: "What the history shows as current and not deleted are the very records that the current view shows, and "
    "of each row one record is current.",
}
# Those of marts, of what PostgreSQL keeps beside tables, and of what converts money.
SUMS, KEPT, COUNTRIES, CONVERTED, FRESH_RATES, PLAUSIBLE_RATES = (
    "sums_equal_facts",
    "kept_agrees",
    "countries_known",
    "currencies_have_rates",
    "rates_are_fresh",
    "rates_plausible",
)
CLAIMS |= {
    SUMS: "Each breakdown of the mart has all rows of its fact and all their money, on every day and to the penny in "
    "every currency.",
    KEPT: "What PostgreSQL keeps beside the table, counts of versions or sums by name of design, is what follows from "
    "its rows.",
    COUNTRIES: "Every name of a country in an address has its ISO code. What is sold where it has none is in every "
    "total, and on no map.",
    CONVERTED: "Every order and payment has a rate of its day. One without is counted as unconverted, and is in no sum "
    "of converted money.",
    FRESH_RATES: "The newest exchange rate is at most 6 days old, unless it came with the platform.",
    PLAUSIBLE_RATES: "No exchange rate of a currency of ToteSys is more than 10 % away from the one that was published "
    "before it, and every rate is above zero.",
}
# Names listed in a finding.
_EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """One check of one asset. ``pending`` counts the partitions that wait for a refresh and were left out.

    A check that compared nothing has not passed. A ``warning`` is about the data in the source, not about the
    platform's copy of them; or it says that nothing could be compared yet.
    """

    asset: str
    check: str
    passed: bool
    detail: str
    pending: int = 0
    numbers: dict[str, int | str] = field(default_factory=dict)
    warning: bool = False

    @property
    def outcome(self) -> Literal["equal", "pending", "warning", "different"]:
        """Equal: compared without a difference. Pending: nothing can be compared before the next refresh."""
        if self.passed:
            return "equal"
        if not self.warning:
            return "different"
        return "pending" if self.pending else "warning"


def some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    listed = [("the whole table" if name == WHOLE else name) for name in sorted(names)]
    more = f" and {len(listed) - _EXAMPLES:,} more" if len(listed) > _EXAMPLES else ""
    return ", ".join(listed[:_EXAMPLES]) + more
