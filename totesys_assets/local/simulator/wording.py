"""How the simulator words numbers and tables in what it tells."""


def words(table: str) -> str:
    """A table's name as a reader would say it."""
    return table.replace("_", " ")


def counted(number: int, noun: str) -> str:
    """The number with its noun, in the plural unless it is one."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
