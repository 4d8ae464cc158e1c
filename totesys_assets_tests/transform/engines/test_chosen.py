"""Which engine the settings name, and that without them nothing of Spark is imported or installed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from totesys_assets.errors import SettingsError
from totesys_assets.settings import Settings
from totesys_assets.transform.engines.chosen import chosen
from totesys_assets.transform.engines.in_duckdb import InDuckDb

pytestmark = pytest.mark.pure
PROJECT = Path(__file__).parents[3]


def read(**env: str) -> Settings:
    return Settings.from_env({"TOTESYS_HOME": "/tmp/home", **env})


def test_duckdb_is_the_engine_unless_another_is_named() -> None:
    assert isinstance(chosen(read()), InDuckDb)
    assert isinstance(chosen(read(TOTESYS_ENGINE="duckdb", SPARK_REMOTE="sc://elsewhere")), InDuckDb)


def test_spark_is_told_without_its_secrets() -> None:
    settings = read(TOTESYS_ENGINE="spark", SPARK_REMOTE="sc://spark.example.com:443/;use_ssl=true;token=secret")
    assert repr(chosen(settings)) == "InSpark(sc://spark.example.com:443)"
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"TOTESYS_ENGINE": "flink"}, "TOTESYS_ENGINE is 'flink': set it to duckdb or spark."),
        ({"TOTESYS_ENGINE": "spark"}, "TOTESYS_ENGINE is spark, and SPARK_REMOTE is not set"),
        *(
            ({"TOTESYS_ENGINE": "spark", "SPARK_REMOTE": each}, "^SPARK_REMOTE is no such address: set it to")
            for each in (
                "spark://h:7077",
                "sc://",
                "h:15002",
                "sc://h:x",
                "sc://u:secret@h",
                "sc://h/a",
                "sc://h?token=secret",
            )
        ),
    ],
)
def test_an_address_that_can_be_none_is_refused_in_a_sentence(env: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as failure:
        chosen(read(**env))
    assert "secret" not in str(failure.value)


def test_without_the_setting_nothing_of_spark_is_imported() -> None:
    program = """import sys, totesys_assets.definitions as d
d.warm_up()
ours = {name.partition('.')[0] for name in sys.modules} & {'pyspark', 'pysail'}
print(sorted(ours), 'spark_session' in str(sys.modules.keys()))"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] False"


def test_only_the_lock_of_spark_has_packages_of_spark() -> None:
    def locked(file: str) -> set[str]:
        return set(re.findall(r"^([a-z0-9._-]+)[^ ]*==", (PROJECT / file).read_text(encoding="utf-8"), re.M))

    of_spark = locked("requirements-spark.lock")
    assert {"pyspark-client", "pysail"} <= of_spark
    assert not of_spark & (locked("requirements.lock") | locked("requirements-runtime.lock"))
