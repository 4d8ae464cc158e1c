"""The SQL and the Python that the documents show run, on a platform after its first refresh."""

from __future__ import annotations

import re

import pytest

from totesys_assets_tests.conftest import Platform
from totesys_assets_tests.project.test_documents import INSTRUCTIONS, blocks


@pytest.mark.refreshed
def test_their_sql_and_python_run(platform: Platform) -> None:
    ran = {"sql": 0, "python": 0}
    for document in INSTRUCTIONS:
        for block in blocks(document, "sql"):
            # The only order is delivered to Turkey.
            statements = [
                each for each in re.sub(r"--.*", "", block.replace("'DEU'", "'TUR'")).split(";") if each.strip()
            ]
            # The log is not followed here, and nothing was changed.
            is_none = "_followed" in block or "HAVING" in block
            rows = [0] * len(statements) if is_none else [1, 0, 1, 1][: len(statements)]
            assert [len(platform.query(each)) for each in statements] == rows
            ran["sql"] += len(statements)
        for code in blocks(document, "python"):
            names: dict[str, object] = {}
            exec(code, names)
            frames = [value for key, value in names.items() if key in ("orders", "before", "versions")]
            assert [len(frame) for frame in frames] == [1] * len(frames)  # type: ignore[arg-type]
            ran["python"] += len(frames)
    assert ran == {"sql": 10, "python": 4}
