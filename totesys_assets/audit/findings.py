"""What an audit finds: one sentence and some numbers for each thing that it looked at."""

from __future__ import annotations

from dataclasses import dataclass, field

# The checks of the audit, with what each of them claims. The texts are shown in Dagster.
CONTENT, LEDGER, ROWS, RECORDS, MONEY, REFERENCES = (
    "content_equals_source",
    "ledger_agrees",
    "rows_equal_source",
    "records_equal_lake",
    "money_equals_source",
    "references_found",
)
CLAIMS = {
    CONTENT: "In every day whose fingerprint says that it was captured, the lake's current rows are those of ToteSys, "
    "column by column. The comparison uses digests that ToteSys itself computes, not the path of the capture. What "
    "differs here, the fingerprints have missed; the nightly comparison that follows brings it in.",
    LEDGER: "The ledger notes no version that the lake does not hold.",
    ROWS: "The warehouse's current rows are those of ToteSys, by number and key.",
    RECORDS: "The warehouse holds every record that follows from the lake's versions, in every column, and no other.",
    MONEY: "The sums of money, by currency, are those of ToteSys.",
    REFERENCES: "Every record finds the dimension rows that it refers to. One that does not refers to a row in the "
    "dead letters.",
}


@dataclass(frozen=True)
class Finding:
    """One check of one asset. ``pending`` counts the partitions that wait for a refresh and were left out.

    A ``warning`` is about the data as ToteSys has them, not about what the platform made of them.
    """

    asset: str
    check: str
    passed: bool
    detail: str
    pending: int = 0
    numbers: dict[str, int | str] = field(default_factory=dict)
    warning: bool = False
