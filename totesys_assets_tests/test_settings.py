"""Settings: what each variable does, what holds without it, and what is said of a value that cannot be used."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from totesys_assets.capture.ledger import Entry, Ledger
from totesys_assets.errors import SettingsError
from totesys_assets.lake.tables import Lake
from totesys_assets.settings import Settings
from totesys_assets.variables import FIRST_DAY, FIRST_DAY_FILE, LOG_FILE, VARIABLES

pytestmark = pytest.mark.pure

TOTESYS = "postgresql://reader:s3cret@db.example:5432/totesys"
WAREHOUSE = "postgresql://writer:s3cret@db.example:5432/warehouse"
TOPIC = "arn:aws:sns:eu-west-2:123456789012:alerts"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def read(home: Path, **variables: str) -> Settings:
    return Settings.from_env({"TOTESYS_HOME": str(home), **variables})


def noted(home: Path, first_day: str) -> None:
    home.mkdir()
    (home / FIRST_DAY_FILE).write_text(first_day, encoding="ascii")


def test_without_any_variable_everything_is_embedded_in_a_folder_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings.from_env({}) == Settings(
        home=tmp_path / ".totesys",
        lake_uri=str(tmp_path / ".totesys" / "lake"),
        warehouse_schema="public",
        totesys_url=None,
        warehouse_url=None,
        first_day=date(2022, 11, 3),
        files_uri=str(tmp_path / ".totesys" / "files"),
    )


def test_an_empty_variable_is_as_good_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = (
        "TOTESYS_URL",
        "WAREHOUSE_URL",
        "LAKE_URI",
        "TOTESYS_HOME",
        "WAREHOUSE_SCHEMA",
        "TOTESYS_FIRST_DAY",
        "TOTESYS_ALLOW_SUPERUSER",
        "TOTESYS_ALERT_TOPIC",
        "TOTESYS_UI_URL",
        "TOTESYS_STALE_MINUTES",
        "TOTESYS_RECORD_DAYS",
    )
    assert Settings.from_env(dict.fromkeys(names, "")) == Settings.from_env({})


def test_every_variable_is_read(home: Path) -> None:
    settings = read(
        home,
        TOTESYS_URL=TOTESYS,
        WAREHOUSE_URL=WAREHOUSE,
        LAKE_URI="s3://bucket/prefix",
        WAREHOUSE_SCHEMA="analytics",
        TOTESYS_FIRST_DAY="2024-08-19",
        TOTESYS_ALLOW_SUPERUSER="1",
        TOTESYS_ALERT_TOPIC=TOPIC,
        TOTESYS_UI_URL="https://totesys.example/",
        TOTESYS_STALE_MINUTES="45",
        TOTESYS_RECORD_DAYS="90",
        FILES_URI="s3://files/dropped/",
        TOTESYS_RATES_URL="https://example.com/rates.zip",
    )
    assert settings == Settings(
        home,
        "s3://bucket/prefix",
        "analytics",
        TOTESYS,
        WAREHOUSE,
        date(2024, 8, 19),
        True,
        TOPIC,
        "https://totesys.example",
        45,
        files_uri="s3://files/dropped",
        rates_url="https://example.com/rates.zip",
        record_days=90,
    )


def test_the_environment_is_read_when_it_is_asked_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOTESYS_HOME", str(home))
    monkeypatch.setenv("WAREHOUSE_SCHEMA", "first")
    assert Settings.from_env().warehouse_schema == "first"
    monkeypatch.setenv("WAREHOUSE_SCHEMA", "second")
    assert Settings.from_env().warehouse_schema == "second"


def test_the_passwords_are_not_shown_with_the_settings(home: Path) -> None:
    settings = read(home, TOTESYS_URL=TOTESYS, WAREHOUSE_URL=WAREHOUSE)
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings)


def test_the_home_may_begin_with_a_tilde_and_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = Settings.from_env({"TOTESYS_HOME": "~/state"})
    assert settings.home == tmp_path / "state"
    assert settings.lake_uri == str(tmp_path / "state" / "lake")


@pytest.mark.parametrize(
    "url",
    [
        TOTESYS,
        "postgres://reader@db.example/totesys",
        "postgresql://db.example/totesys?sslmode=require",
        "postgresql:///totesys?host=/var/run/postgresql",
        "host=db.example dbname=totesys user=reader password=s3cret",
    ],
)
def test_a_database_is_given_in_any_form_that_libpq_reads_and_passed_on_as_it_is(home: Path, url: str) -> None:
    settings = read(home, TOTESYS_URL=url, WAREHOUSE_URL=url)
    assert (settings.totesys_url, settings.warehouse_url) == (url, url)


@pytest.mark.parametrize("variable", ["TOTESYS_URL", "WAREHOUSE_URL"])
@pytest.mark.parametrize(
    "url",
    [
        "s3cret",
        "mysql://reader:s3cret@db.example/totesys",
        "postgresql:/reader:s3cret@db.example/totesys",
        "postgresql://reader:s3cret@[db.example/totesys",
        "postgresql://",
        "host=db.example pasword=s3cret",
    ],
)
def test_what_is_no_database_url_is_refused_in_a_sentence_that_names_the_variable_and_not_the_password(
    home: Path, variable: str, url: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read(home, **{variable: url})
    assert str(caught.value) == (
        f"{variable} is not a PostgreSQL URL. Set it in the form postgresql://user:password@host:port/database."
    )
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None  # libpq quotes parts of what it cannot read


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("postgresql+psycopg2://u:s3cret@h/d", "begins with 'postgresql+psycopg2', which is for another library"),
        ("postgres+asyncpg://u:s3cret@h/d", "begins with 'postgres+asyncpg', which is for another library"),
        ("jdbc:postgresql://h/d", "begins with 'jdbc:', which is for another library"),
        ("postgresql://u:s3cret@h/d?schema=x", "has a parameter that libpq does not know, 'schema'"),
        ("postgresql://u:s3c@ret@h/d", "must be percent-encoded in a URL"),
        ("postgresql://u:s3c/ret@h:5432/d", "must be percent-encoded in a URL"),
        ("postgresql://u:1/ret@h:5432/d", "must be percent-encoded in a URL"),
        ("postgresql://u:s3c%ret@h/d", "must be percent-encoded in a URL"),
        ("postgresql://u:p@s3:w/c%ret@127.0.0.1:5432/d", "must be percent-encoded in a URL"),
    ],
)
def test_a_url_in_another_librarys_form_or_with_a_raw_password_is_told_which_it_is(
    home: Path, url: str, sentence: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read(home, TOTESYS_URL=url)
    assert str(caught.value).startswith("TOTESYS_URL ")
    assert sentence in str(caught.value)
    assert "s3c" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p%40ss%3Aw%2Fo%25rd@h:5432/d",
        "postgresql:///d?host=/var/run/postgresql&port=5433&user=a@b",
        "postgresql://u:p#q@h1:1,h2:2/d?target_session_attrs=read-write",
        "postgresql://u:p@[::1]:5432/d",
    ],
)
def test_what_is_right_is_taken_and_blanks_around_it_are_not(home: Path, url: str) -> None:
    assert read(home, TOTESYS_URL=f" {url}\n").totesys_url == url


def test_the_schema_of_totesys_is_public_unless_it_is_said(home: Path) -> None:
    assert read(home).totesys_schema == "public"
    assert read(home, TOTESYS_SCHEMA="green").totesys_schema == "green"


def test_a_search_path_in_the_url_is_not_ignored_in_silence(home: Path) -> None:
    url = "postgresql://reader@db.example/totesys?options=-csearch_path%3Dgreen"
    with pytest.raises(SettingsError, match="name the schema of ToteSys in TOTESYS_SCHEMA"):
        read(home, TOTESYS_URL=url)
    assert read(home, TOTESYS_URL=url, TOTESYS_SCHEMA="green").totesys_schema == "green"


def test_a_lake_in_a_folder_is_made_absolute(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "somebody"))
    assert read(home, LAKE_URI="lake").lake_uri == str(tmp_path / "lake")
    assert read(home, LAKE_URI="/data/lake/").lake_uri == "/data/lake"
    assert read(home, LAKE_URI="~/lake").lake_uri == str(tmp_path / "somebody" / "lake")
    assert read(home, LAKE_URI="file:///data/lake").lake_uri == "/data/lake"
    assert read(home, LAKE_URI="file://localhost/data/my%20lake/").lake_uri == "/data/my lake"


@pytest.mark.parametrize(
    ("name", "url"),
    [
        *((name, False) for name in ("la%ke", "la#ke", "la?ke", "la'ke\"x", "a+b&c=d", "c:lake", "{x};$HOME*", " -~")),
        *((name, True) for name in ("my lake", "lägé-湖", "% 25", "a#b?c")),
    ],
)
def test_a_folder_of_any_name_is_written_to_and_read(home: Path, tmp_path: Path, name: str, url: bool) -> None:
    folder = tmp_path / name
    settings = read(home, LAKE_URI=f"file://{quote(str(folder))}" if url else str(folder))
    assert settings.lake_uri == str(folder)
    now = datetime.now(UTC)
    for partition in ("a", "b"):
        Ledger(Lake(settings.lake_uri)).append([Entry("x", partition, "s", 1, now, "run")])
    lake = Lake(settings.lake_uri)
    assert sorted(Ledger(lake).newest()["x"]) == ["a", "b"]
    lake.compact()
    assert sorted(Ledger(Lake(settings.lake_uri)).totals()["x"]) == ["a", "b"]
    assert {path.name for path in tmp_path.iterdir()} == {name}
    assert list(folder.glob("ledger/*.parquet"))


@pytest.mark.parametrize("name", ["la%20ke", "la[ab]ke", "x]", "a\\b", "a|b", "a^b", "a\nb", "%%41", "\udcff"])
def test_a_name_that_no_delta_table_can_have_is_refused(home: Path, tmp_path: Path, name: str) -> None:
    for uri in (str(tmp_path / name), f"file://{quote(str(tmp_path / name), errors='surrogateescape')}"):
        with pytest.raises(SettingsError, match=r"^LAKE_URI leads to .* in its name, and no Delta table"):
            read(home, LAKE_URI=uri)
    with pytest.raises(SettingsError, match=r"^TOTESYS_HOME leads to "):
        read(tmp_path / name)
    for prefix in (name, f"some//{name}", "some//prefix"):
        with pytest.raises(SettingsError, match=r"^LAKE_URI leads to "):
            read(home, LAKE_URI=f"s3://bucket/{prefix}")


def test_a_lake_in_a_bucket_is_used_as_it_is_but_for_a_closing_slash(home: Path) -> None:
    assert read(home, LAKE_URI="s3://bucket").lake_uri == "s3://bucket"
    assert read(home, LAKE_URI="s3://bucket//").lake_uri == "s3://bucket"
    assert read(home, LAKE_URI="s3://bucket/some/prefix/").lake_uri == "s3://bucket/some/prefix"


@pytest.mark.parametrize(
    "uri",
    [
        "s3://",
        "s3:///prefix",
        "s3://AKIAEXAMPLE:s3cret@bucket/prefix",
        "gs://bucket/prefix",
        "https://bucket.s3.amazonaws.com",
        "file://",
        "file://data/lake",
        "postgresql://writer:s3cret@db.example/warehouse",
        "postgresql://db.example/warehouse?password=s3cret",
    ],
)
def test_what_is_no_place_for_a_lake_is_refused_in_a_sentence_without_the_password(home: Path, uri: str) -> None:
    with pytest.raises(
        SettingsError, match=r"^LAKE_URI is .*: set it to a folder or to s3://bucket/prefix\.$"
    ) as caught:
        read(home, LAKE_URI=uri)
    assert "s3cret" not in str(caught.value)


def test_the_first_day_is_that_of_the_real_totesys(home: Path) -> None:
    assert read(home).first_day == FIRST_DAY == date(2022, 11, 3)
    assert read(home, TOTESYS_URL=TOTESYS).first_day == FIRST_DAY


def test_an_embedded_totesys_notes_its_first_day_in_a_file(home: Path) -> None:
    noted(home, "2024-08-19\n")
    assert read(home).first_day == date(2024, 8, 19)


def test_the_variable_counts_more_than_the_file(home: Path) -> None:
    noted(home, "2024-08-19")
    assert read(home, TOTESYS_FIRST_DAY="2023-01-02").first_day == date(2023, 1, 2)


def test_the_file_of_an_embedded_totesys_says_nothing_of_another(home: Path) -> None:
    noted(home, "2024-08-19")
    assert read(home, TOTESYS_URL=TOTESYS).first_day == FIRST_DAY
    (home / "lake").mkdir()
    assert read(home, TOTESYS_URL=TOTESYS, LAKE_URI=str(home / "other")).first_day == FIRST_DAY


def test_the_lake_in_its_home_keeps_its_first_day_whichever_totesys_is_named(home: Path) -> None:
    noted(home, "2024-08-19")
    (home / "lake").mkdir()
    assert read(home, TOTESYS_URL=TOTESYS).first_day == date(2024, 8, 19)
    assert read(home, TOTESYS_URL=TOTESYS, LAKE_URI=f"file://{home}/lake/").first_day == date(2024, 8, 19)
    assert read(home, TOTESYS_URL=TOTESYS, TOTESYS_FIRST_DAY="2023-01-02").first_day == date(2023, 1, 2)


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("TOTESYS_URLL", "TOTESYS_URL"),
        ("TOTESYS_URI", "TOTESYS_URL"),
        ("TOTESY_URL", "TOTESYS_URL"),
        ("TOTESYS_RUL", "TOTESYS_URL"),
        ("LAKE_URL", "LAKE_URI"),
        ("WAREHOUSE_URI", "WAREHOUSE_URL"),
        ("TOTESYS_FIRST_DAYS", "TOTESYS_FIRST_DAY"),
    ],
)
def test_a_misspelt_name_is_refused_unless_the_right_one_is_set(home: Path, misspelt: str, meant: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(home, **{misspelt: "secret"})
    assert str(caught.value).startswith(f"{misspelt} is set, which the platform does not read, and {meant} is not:")
    assert read(home, **{misspelt: ""}) == read(home)
    value = {"TOTESYS_FIRST_DAY": "2024-01-01"}.get(meant, "postgresql://x/y" if "URL" in meant else "here")
    assert read(home, **{meant: value, misspelt: "secret"}) == read(home, **{meant: value})


@pytest.mark.parametrize("name", [each.name for each in VARIABLES if not each.name.startswith(("FILES_", "SPARK_"))])
def test_one_slip_in_any_name_is_refused(name: str) -> None:
    for misspelt in (f"{name}X", name[:-1], f"{name[:-1]}X", f"{name[:9]}X{name[9:]}", f"{name[:-2]}{name[:-3:-1]}"):
        with pytest.raises(SettingsError, match=f"^{misspelt} is set, which the platform does not read, and {name}"):
            Settings.from_env({misspelt: "x"})


def test_other_names_are_not_taken_for_misspelt_ones(home: Path) -> None:
    of_others = (
        "TOTESYS_IMAGE",
        "TOTESYS_DAGSTER_URL",
        "WAREHOUSE_READER",
        "WAREHOUSE_OWNER_URL",
        "SPARK_HOME",
        "TOTE",
    )
    assert read(home, **dict.fromkeys(of_others, "x")) == read(home)


def test_the_log_is_followed_where_the_variable_or_the_home_says_so(home: Path) -> None:
    assert not read(home).follows_log
    assert read(home, TOTESYS_URL=TOTESYS, TOTESYS_LOG="on").follows_log
    home.mkdir(exist_ok=True)
    (home / LOG_FILE).touch()
    assert read(home).follows_log
    assert not read(home, TOTESYS_LOG="off").follows_log
    assert not read(home, TOTESYS_URL=TOTESYS).follows_log, "the file is about the embedded ToteSys"
    with pytest.raises(SettingsError, match="TOTESYS_LOG is 'yes': set it to off or on"):
        read(home, TOTESYS_LOG="yes")


def test_a_first_day_to_come_is_refused(home: Path) -> None:
    today = datetime.now(UTC).date()
    assert read(home, TOTESYS_FIRST_DAY=str(today)).first_day == today
    with pytest.raises(SettingsError, match="a day to come: set it to the day of the first rows of ToteSys"):
        read(home, TOTESYS_FIRST_DAY=str(today + timedelta(days=1)))


def test_a_first_day_that_no_shop_can_have_is_refused(home: Path) -> None:
    assert read(home, TOTESYS_FIRST_DAY="1970-01-01").first_day == date(1970, 1, 1)
    said = "^TOTESYS_FIRST_DAY is 0001-01-01, before 1970-01-01, which no shop needs: set it to the day of "
    with pytest.raises(SettingsError, match=said):
        read(home, TOTESYS_FIRST_DAY="0001-01-01")


@pytest.mark.parametrize("value", ["yesterday", "19/08/2024", "2024-02-30", "2024-08-19T00:00:00"])
def test_a_first_day_that_is_no_date_is_refused_with_an_example(home: Path, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(home, TOTESYS_FIRST_DAY=value)
    assert str(caught.value) == f"TOTESYS_FIRST_DAY is '{value}': set it to a date such as 2022-11-03."


def test_a_file_that_holds_no_date_is_named(home: Path) -> None:
    noted(home, "rubbish")
    with pytest.raises(SettingsError) as caught:
        read(home)
    assert str(caught.value) == f"{home / FIRST_DAY_FILE} is 'rubbish': set it to a date such as 2022-11-03."


def test_a_superuser_may_log_in_on_the_embedded_totesys_and_elsewhere_only_when_that_is_allowed(home: Path) -> None:
    assert read(home).superuser_allowed
    assert not read(home, TOTESYS_URL=TOTESYS).superuser_allowed
    assert not read(home, TOTESYS_URL=TOTESYS, TOTESYS_ALLOW_SUPERUSER="0").superuser_allowed
    assert read(home, TOTESYS_URL=TOTESYS, TOTESYS_ALLOW_SUPERUSER="1").superuser_allowed


@pytest.mark.parametrize("value", ["true", "no", "2", " "])
def test_a_switch_that_is_neither_on_nor_off_is_refused(home: Path, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(home, TOTESYS_ALLOW_SUPERUSER=value)
    assert str(caught.value) == f"TOTESYS_ALLOW_SUPERUSER is {value!r}: set it to 1, or unset it."


@pytest.mark.parametrize(
    "value", ["alerts", "arn:aws:sqs:eu-west-2:123456789012:alerts", f"{TOPIC} ", "arn:aws:sns:::x"]
)
def test_what_is_no_topic_is_refused(home: Path, value: str) -> None:
    with pytest.raises(SettingsError, match=r"^TOTESYS_ALERT_TOPIC is .*: set it to the ARN of an SNS topic, "):
        read(home, TOTESYS_ALERT_TOPIC=value)


@pytest.mark.parametrize("value", ["totesys.example", "ftp://totesys.example", "https://ops:s3cret@totesys.example"])
def test_what_is_no_address_of_a_ui_is_refused_and_not_quoted(home: Path, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(home, TOTESYS_UI_URL=value)
    assert str(caught.value) == ("TOTESYS_UI_URL is not the address of a UI: set it to https://host, without a login.")


@pytest.mark.parametrize("value", ["0", "-5", "1.5", "half an hour"])
def test_what_is_no_number_of_minutes_is_refused(home: Path, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(home, TOTESYS_STALE_MINUTES=value)
    assert str(caught.value) == f"TOTESYS_STALE_MINUTES is '{value}': set it to a number of minutes, 1 or more."


@pytest.mark.parametrize("variable", ["WAREHOUSE_SCHEMA", "TOTESYS_SCHEMA"])
@pytest.mark.parametrize("name", ["pg_catalog", "pg_mine", "information_schema", "a" * 64, "ä" * 32, "5 %", " "])
def test_a_name_that_no_schema_of_the_platform_can_have_is_refused(tmp_path: Path, name: str, variable: str) -> None:
    with pytest.raises(SettingsError, match=f"^{variable} is .* cannot be a schema of the platform"):
        read(tmp_path, **{variable: name})
    assert read(tmp_path, WAREHOUSE_SCHEMA="a" * 63).warehouse_schema == "a" * 63


@pytest.mark.parametrize("value", ["-1", "1", "6", "a month", "30.5"])
def test_days_for_which_records_are_kept_are_a_week_or_more_or_none(value: str, home: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        read(home, TOTESYS_RECORD_DAYS=value)
    assert str(caught.value) == f"TOTESYS_RECORD_DAYS is {value!r}: set it to a number of days, 7 or more, or to 0."
    assert read(home, TOTESYS_RECORD_DAYS="0").record_days == 0
