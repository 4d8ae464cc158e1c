"""The simulator's SQL: one statement a file, in sql/."""

from functools import cache
from importlib import resources


@cache
def statement(name: str) -> str:
    """The text of the statement ``name``."""
    return resources.files(__package__).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
