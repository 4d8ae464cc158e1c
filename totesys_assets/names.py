"""Names that more than one room uses: groups of assets, jobs, a sensor, a check, and the tags of runs and steps.

Belongs here: the strings, and who reads them. Does not belong here: names of tables and columns, which are in the
catalogue. This module imports nothing, so that every room may import it.
"""

# The groups of assets, as the first part of their keys. Sources beside ToteSys have their own.
TOTESYS, STAR, MART, WAREHOUSE = "totesys", "star", "mart", "warehouse"
# Those that are made of captured tables. Every other group is a source.
MADE = frozenset({STAR, MART, WAREHOUSE})

REFRESH, EVERYTHING, AUDIT, COMPACT = "refresh", "refresh_everything", "audit", "compact_lake"
FETCH_RATES, PURGE = "fetch_exchange_rates", "purge_records"
# The sensor that requests refreshes.
CHANGES = "changes"
# A process that is about to stop Dagster touches this file in the home. A waiting tick of the sensor then ends.
STOPPING_FILE = "stopping"
# Held, in the home, by the process of `totesys up`.
UP_LOCK = "up.lock"
# The check that no row of a captured table is in the dead letters.
NO_DEAD_LETTERS = "no_dead_letters"
# The check that a comparison found nothing of a captured table that the log, or a fingerprint, had not told of.
NOTHING_MISSED = "nothing_missed"

# All refreshes have this tag: they run one after the other, and the sensor waits for them. Those that are one of
# several ranges have another value, for some of them may run at once. The last names both, for Dagster's filters.
REFRESH_TAG = {"totesys/refresh": "true"}
RANGE_TAG = {"totesys/refresh": "range"}
REFRESHES = {"totesys/refresh": ["true", "range"]}
# Tags of a refresh; staleness/decide.py says what they tell.
CHANGES_ONLY_TAG = "totesys/changes-only"
SEEN_TAG = "totesys/seen"
LOOKED_AT_TAG = "totesys/looked-at"
ACCEPT_DELETIONS_TAG = "totesys/accept-deletions"
ADOPT_LAKE_TAG = "totesys/adopt-lake"
# A run of Dagster's has one range of partitions. This tag names the other days that the run covers.
OTHER_DAYS_TAG = "totesys/other-days"
# Tables the look skipped. A successful run with this tag does not make them up to date.
LEFT_OUT_TAG = "totesys/left-out"
# Somebody named the days of this run. Its success does not make other days up to date.
BACKFILL_TAG = "totesys/backfill"
# What a refresh is about, and how many versions it added, table by table: for people who look at the list of runs.
TABLES_TAG, DAYS_TAG, VERSIONS_TAG = "totesys/tables", "totesys/days", "totesys/versions"
# When the sensor last knew that nothing waited, before what this refresh brings was committed; seconds since 1970.
QUIET_UNTIL_TAG = "totesys/quiet-until"
# On a run that failed: a message told of it. On one that ECS began no task for: why.
TOLD_TAG, REFUSED_TAG = "totesys/told", "totesys/refused"
# Where a run is to be executed, set by whoever starts it, or where the launcher has put it.
PLACE_TAG = "totesys/place"
# A tag of steps that names their lane: a group of steps of which the executor starts only so many at once.
LANE_TAG = "totesys/lane"

# Dagster's own tags, as literals: their constants are in private modules. The strings are kept in databases and
# documented, so they outlive those modules; a test compares them with the constants.
RANGE_START_TAG, RANGE_END_TAG = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
PRIORITY_TAG = "dagster/priority"
SENSOR_NAME_TAG = "dagster/sensor_name"
WILL_RETRY_TAG = "dagster/will_retry"
# Tags with this prefix are not shown. The second is on runs that a code server's process executes.
HIDDEN_TAG_PREFIX = ".dagster/"
GRPC_INFO_TAG = ".dagster/grpc_info"
