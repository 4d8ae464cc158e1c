"""Names and texts as SQL, for DuckDB and PostgreSQL alike."""

from __future__ import annotations


def quoted(name: str) -> str:
    """A name as an SQL identifier, for DuckDB and PostgreSQL alike."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL literal, for DuckDB and PostgreSQL alike; only DuckDB can hold the character U+0000."""
    if "\0" in text:  # it would end the statement
        return f"({' || chr(0) || '.join(map(literal, text.split(chr(0))))})"
    return "'" + text.replace("'", "''") + "'"
