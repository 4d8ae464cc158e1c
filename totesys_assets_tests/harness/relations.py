"""What an administrator does to ToteSys: tables that take another's place, parts that come and go, rewrites, settings.

Belongs here: the statements, made of small numbers, so that a failing series can be replayed and made smaller. Does not
belong here: the application's statements, which are in writers.py, and in which order things happen (machine.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from threading import Event, Thread

import psycopg

from totesys_assets_tests.harness.servers import HOSTILE
from totesys_assets_tests.harness.source import COLUMNS, Observer

# Tables of which another may take the place, with what is different in that one.
_SHADOWED = {"payment": "payment_amount = payment_amount + 1", "design": "design_name = 'Shadow'"}
_FIRST_OF_CHILDREN = 1_000_000  # no other row ever has such a key
_REWRITES = {
    "rewritten": "ALTER TABLE {table} ALTER COLUMN last_updated TYPE timestamp(3) USING last_updated + interval '0'",
    "changed and rewritten": "ALTER TABLE {table} ALTER COLUMN last_updated TYPE timestamp(3) "
    "USING last_updated + interval '1 second'",
    "truncated and filled again": "CREATE TEMPORARY TABLE kept ON COMMIT DROP AS SELECT * FROM ONLY {table}; "
    "TRUNCATE ONLY {table}; INSERT INTO {table} SELECT * FROM kept",
    "truncated": "TRUNCATE ONLY {table}",
}
REWRITES = tuple(_REWRITES)
ALTERATIONS = ("fill a shadow", "swap with the shadow", "make a child", "detach the child", "attach the child")


class Administrator:
    """Somebody who alters tables, and gives up at once when others have locks on them."""

    def __init__(self, source_url: str, warehouse_url: str, wrote: Callable[[], None] = lambda: None) -> None:
        self._source_url, self._warehouse_url, self._wrote = source_url, warehouse_url, wrote
        self._children = count(_FIRST_OF_CHILDREN)

    def run(self, statement: str) -> bool:
        """Run a statement, or several as one, in a session of its own; False when it was refused."""
        try:
            with Observer(self._source_url) as session:
                session.run("SET lock_timeout = 60")
                session.run(statement)
        except psycopg.Error:
            return False
        self._wrote()
        return True

    def alter(self, what: str, number: int) -> bool:
        """One of ALTERATIONS, on the table that ``number`` picks."""
        table = tuple(_SHADOWED)[number % len(_SHADOWED)]
        return self.run(self._statement(what, table))

    def _statement(self, what: str, table: str) -> str:
        if what == "fill a shadow":  # whose rows bear older transaction ids when it takes the table's place
            key = COLUMNS[table][0]
            return (
                f"CREATE TABLE IF NOT EXISTS {table}_shadow (LIKE {table} INCLUDING ALL); DELETE FROM {table}_shadow; "
                f"INSERT INTO {table}_shadow SELECT * FROM ONLY {table}; "
                f"UPDATE {table}_shadow SET {_SHADOWED[table]} WHERE {key} % 2 = 0"
            )
        if what == "swap with the shadow":
            return (
                f"ALTER TABLE {table} RENAME TO {table}_swapped; ALTER TABLE {table}_shadow RENAME TO {table}; "
                f"ALTER TABLE {table}_swapped RENAME TO {table}_shadow"
            )
        if what == "make a child":
            child, columns = next(self._children), ", ".join(COLUMNS["design"][1:])
            return (
                "CREATE TABLE IF NOT EXISTS design_child (LIKE design INCLUDING ALL); "
                f"INSERT INTO design_child SELECT {child}, {columns} FROM ONLY design ORDER BY design_id LIMIT 1"
            )
        return f"ALTER TABLE design_child {'NO INHERIT' if what.startswith('detach') else 'INHERIT'} design"

    def change_settings(self, number: int, *, hostile: bool) -> None:
        """Change the defaults of the platform's sessions that begin from now on, at the source or the warehouse."""
        url = (self._source_url, self._warehouse_url)[number % 2]
        with Observer(url) as session:
            ((database, user),) = session.run("SELECT quote_ident(current_database()), quote_ident(current_user)")
            of = (f"ALTER DATABASE {database}", f"ALTER ROLE {user} IN DATABASE {database}")[number // 2 % 2]
            if not hostile:
                session.run(f"{of} RESET ALL")
                return
            for name, value in list(HOSTILE.items())[number::12]:
                session.run(f"{of} SET {name} = '{value}'")

    @contextmanager
    def under_way(self, how: str, table: str) -> Iterator[None]:
        """``table`` is being rewritten when the block begins, and is done as soon as the block has to wait for it."""
        with Observer(self._source_url) as session:
            try:
                session.run("SET lock_timeout = 60; BEGIN")
                session.run(_REWRITES[how].format(table=table))
            except psycopg.Error:
                session.run("ROLLBACK")
                yield
                return
            over = Event()
            committing = Thread(target=self._commit_when_waited_for, args=(session, over))
            committing.start()
            try:
                yield
            finally:
                over.set()
                committing.join()

    def _commit_when_waited_for(self, session: Observer, over: Event) -> None:
        with Observer(self._source_url) as watching:
            while not over.wait(0.01) and watching.run("SELECT count(*) FROM pg_locks WHERE NOT granted") == [("0",)]:
                pass
        session.run("COMMIT")
