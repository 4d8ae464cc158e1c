"""How the simulator words tables in what it tells."""


def words(table: str) -> str:
    """A table's name as a reader would say it."""
    return table.replace("_", " ")
