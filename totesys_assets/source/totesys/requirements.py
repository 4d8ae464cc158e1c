"""What the platform requires of a table of ToteSys, as one snapshot shows it.

Does not belong here: what its tables are like (structure.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from totesys_assets.catalogue.catalogue import Table
from totesys_assets.errors import SchemaDrift, TableBusy, WrongDatabase
from totesys_assets.source.totesys.structure import SourceTable, others_query

if TYPE_CHECKING:
    from totesys_assets.source.totesys.snapshot import Snapshot

_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}


def require(snapshot: Snapshot, table: Table) -> None:
    """Raise WrongDatabase, TableBusy or SchemaDrift unless ``table`` is there, readable and as it should be."""
    found = snapshot.tables.get(table.name)
    if found is None:
        there = snapshot.rows(others_query(snapshot.schema, snapshot.tables))
        others = ", ".join(f'"{name}"' for (name,) in there) or "no tables at all"
        raise WrongDatabase(
            f'TOTESYS_URL points at database "{snapshot.database}", which has no table "{table.name}" in schema '
            f'"{snapshot.schema}" (found: {others}). Set TOTESYS_URL to the ToteSys database, and TOTESYS_SCHEMA if '
            "its tables are in another schema."
        )
    if not found.readable:
        raise WrongDatabase(
            f'The login of TOTESYS_URL may not read table "{table.name}". '
            f"Grant it: GRANT SELECT ON {snapshot.relation(table)} TO that role, and USAGE on the schema."
        )
    # Said before PostgreSQL says it: its error would end the transaction, and with it the other tables' turn.
    if found.filtered:
        raise WrongDatabase(
            f'Row-level security of table "{table.name}" may hide rows from the login of TOTESYS_URL, and hidden '
            "rows look like deleted ones. Let it see them all: ALTER ROLE that role BYPASSRLS."
        )
    _require_kind(snapshot, table, found)
    if not found.locked:
        why = snapshot.held.get(table.name, "it got another part while the snapshot was taken")
        raise TableBusy(f'Table "{table.name}" is left for the next refresh: {why}.')
    # One that must have a value is no addition: rows mean something else since.
    left_out = [name for name in found.columns if name not in table.by_name and name not in found.required]
    known = {name: type_ for name, type_ in found.columns.items() if not (snapshot.ignores_new and name in left_out)}
    _require_columns(table, known)


def _require_kind(snapshot: Snapshot, table: Table, found: SourceTable) -> None:
    """Refuse what hides changes: changes are known by the transaction ids that heap tables keep of their rows."""
    why = None
    if kind := _KINDS.get(found.kind):
        why = f"is {kind}, and such a relation hides changes. Set TOTESYS_URL to the database that holds the table"
    elif found.odd_part:
        why = "has a part that is a foreign table, and foreign tables hide changes. Detach it"
    elif found.odd_storage:
        why = (
            f"is stored by the access method {found.odd_storage}, which may hide changes. "
            "Only heap tables can be captured"
        )
    elif computed := [column.name for column in table.columns if column.name in found.computed]:
        why = (
            f'has a column that is computed when it is read, "{computed[0]}", and such a column hides changes. '
            "Let ToteSys store it (GENERATED ALWAYS AS … STORED)"
        )
    if why:
        raise WrongDatabase(f'"{table.name}" in database "{snapshot.database}" {why}.')


def _require_columns(table: Table, found: dict[str, str]) -> None:
    expected = {column.name: column.type for column in table.columns}
    if found == expected:
        return
    differences = [f'"{name}" is missing' for name in expected if name not in found]
    differences += [f'"{name}" ({type_}) is new' for name, type_ in found.items() if name not in expected]
    differences += [
        f'"{name}" is {found[name]} instead of {type_}'
        for name, type_ in expected.items()
        if name in found and found[name] != type_
    ]
    raise SchemaDrift(
        f'Table "{table.name}" of ToteSys has changed: {"; ".join(differences)}. Nothing of it was captured. '
        "Change catalogue/totesys.sql (and the star SQL that should use it) to match, then refresh."
    )
