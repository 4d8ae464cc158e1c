"""The simulator: a ToteSys to try things on, filled with years of invented trade and then kept alive.

Belongs here: rows that behave as those of the real ToteSys do, and the traffic of its application and back office.
Does not belong here: starting a server, or anything that reads ToteSys for the lake.
"""

from totesys_assets.local.simulator.create import SALES, DatabaseNotEmptyError, create, office_hours
from totesys_assets.local.simulator.events import CHANGES
from totesys_assets.local.simulator.traffic import Traffic

__all__ = ["CHANGES", "SALES", "DatabaseNotEmptyError", "Traffic", "create", "office_hours"]
