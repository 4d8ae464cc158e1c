"""The simulator: a ToteSys to try things on, filled with years of invented trade and then kept alive.

Belongs here: rows that behave as those of the real ToteSys do, and the traffic of its application and back office.
Does not belong here: starting a server, or anything that reads ToteSys for the lake.
"""

from __future__ import annotations

import random
import re
import string
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from importlib import resources
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql

# Rows at scale 1: ToteSys as it stood after two years.
SALES = 11_180
PURCHASES = 4_650
DESIGNS = 470
FIRST_DESIGNS = 10  # present before the first order

OPENS, CLOSES = timedelta(hours=8), timedelta(hours=19)
# Reference rows are stamped at the first opening, orders come at least this much later.
HEAD_START = timedelta(seconds=10)

# How long a connection that was lost is tried again: a server restart takes a few seconds.
RECONNECT_SECONDS = 30.0
RETRY_SECONDS = 0.25
# After a stall the traffic does not make up for more than this.
BACKLOG_SECONDS = 1.0

CURRENCIES = ("GBP", "USD", "EUR")
PAYMENT_TYPES = ("SALES_RECEIPT", "SALES_REFUND", "PURCHASE_PAYMENT", "PURCHASE_REFUND")
SALES_RECEIPT, PURCHASE_PAYMENT = 1, 3

# (line 1, line 2, district, city, postal code, country, phone)
ADDRESSES: tuple[tuple[str, str | None, str | None, str, str, str, str], ...] = (
    ("14 Harbour Steps", None, "Avon", "Clevebridge", "20417", "Norway", "1701 482913"),
    ("208 Lantern Row", None, None, "Saint Orla", "77120-4418", "Portugal", "0316 559204"),
    ("9 Weavers Court", "Unit 4", "Bedfordshire", "Millbrook", "08841", "Republic of Korea", "4402 118736"),
    ("3310 Cobbler Street", None, None, "Westholm", "02813", "Denmark", "0098 640175"),
    ("57 Juniper Walk", None, "Borders", "Kirkfell", "41902-0031", "United Kingdom", "7715 203948"),
    ("821 Quarry Lane", "Floor 2", None, "Ostermere", "10558", "Germany", "5540 871362"),
    ("46 Saffron Hill", None, "Buckinghamshire", "Thornbury Vale", "63307-9914", "Japan", "0263 447810"),
    ("1175 Beacon Parade", None, None, "Port Amity", "00924", "Puerto Rico", "9087 315526"),
    ("33 Granary Wharf", "The Old Mill", "Cambridgeshire", "Elmsworth", "30281", "Netherlands", "6120 094473"),
    ("5 Chapel Rise", None, None, "Nordhaven", "88416-2200", "Iceland", "2894 760318"),
    ("640 Meadow Gate", None, None, "Lower Ashby", "52190", "Democratic People's Republic of Korea", "0450 928167"),
    ("72 Tanner Close", "Suite 11", None, "Fairwater", "70633", "Australia", "3378 551209"),
    ("19 Ropewalk", None, "Berkshire", "Castle Penrose", "04466-7783", "Bouvet Island (Bouvetoya)", "8106 427795"),
    ("2204 Orchard Drive", None, None, "Santa Belmonte", "91847", "Brazil", "1452 680034"),
    ("381 Foundry Road", None, "Borders", "Greymoor", "36072-5109", "Svalbard & Jan Mayen Islands", "0737 219856"),
    ("8 Lavender Mews", "Flat B", None, "Vieux-Marais", "57719", "France", "4961 303842"),
    ("117 Pilgrim Way", None, "Borders", "Dunlaggan", "60205", "Ireland", "2218 794601"),
    ("4500 Summit Avenue", None, None, "Cedar Plains", "85530-1147", "United States of America", "5093 148827"),
    ("63 Silk Street", None, None, "Lindenau", "01275", "Austria", "0684 936510"),
    ("990 Ferry Approach", "Pier 3", "Avon", "Maris Bay", "43861", "Papua New Guinea", "7349 062218"),
    ("27 Clockhouse Yard", None, "Berkshire", "Upper Tarn", "29904-3356", "Canada", "1180 475593"),
    ("1502 Almond Grove", None, None, "Torre Vella", "68137", "Spain", "9925 510476"),
    ("11 Bell Alley", "Basement", "Berkshire", "Stowbridge", "74428", "Falkland Islands (Malvinas)", "0541 883907"),
    ("356 Palm Crescent", None, None, "Coral Reach", "96799", "American Samoa", "6674 219035"),
    ("84 Vineyard Terrace", None, "Bedfordshire", "Monte Ferro", "00187", "Italy", "3802 667149"),
    ("715 Birch Hollow", None, None, "Kuusijärvi", "33520-8096", "Finland", "2017 394458"),
    ("2 Lighthouse Point", "Annexe", "Avon", "Cape Verity", "51683", "Antigua and Barbuda", "8430 072261"),
    ("439 Marigold Street", None, None, "Nova Rijeka", "47290", "Bosnia and Herzegovina", "5756 918304"),
    ("68 Smithy Fold", None, "Buckinghamshire", "Hollowdale", "82064-1730", "New Zealand", "0129 546687"),
    ("1208 Observatory Hill", None, None, "Alto Sereno", "15344", "Chile", "4683 205519"),
)

# (name, location, manager). Leds is a typo of the source.
DEPARTMENTS = (
    ("Sales", "Manchester", "Harriet Ashdown"),
    ("Purchasing", "Manchester", "Teodor Lindqvist"),
    ("Production", "Leeds", "Maeve Carrow"),
    ("Dispatch", "Leds", "Idris Bellamy"),
    ("Finance", "Manchester", "Colette Marchbanks"),
    ("Facilities", "Manchester", "Rufus Penhale"),
    ("Communications", "Leeds", "Anjali Thorne"),
    ("HR", "Leeds", "Osian Wakeley"),
)

# (legal name, legal address, commercial contact, delivery contact)
COUNTERPARTIES = (
    ("Alder and Daughters", 18, "Bryony Hale", "Mr. Felix Osgood"),
    ("Quill, Tremaine and Foss", 4, "Jasper Wren", "Nadia Coyle II"),
    ("Northgate Supplies Ltd", 7, "Ingrid Solberg", "Tobias Finch"),
    ("Marlowe Inc", 21, "Dr. Petra Vance", "Casper Lyle"),
    ("Brightwater - Sons", 12, "Owen Larkspur", "Estelle Moray"),
    ("Hartley LLC", 5, "Gwen Ravenscroft", "Dominic Shaw"),
    ("Padberg, Lueilwitz and Johnson", 16, "Lydia Strand", "Niamh O'Dowd"),
    ("Fennimore Group", 30, "Arthur Blythe", "Yusuf Demir"),
    ("Sable & Thistle", 9, "Ms. Clara Winslow", "Piers Holloway"),
    ("Castellan, Grove and Pike", 25, "Rosalind Keane", "Marta Zielinska PhD"),
    ("Ottoline Traders", 2, "Hugo Averill", "Selma Northcott"),
    ("Kestrel - Dunmore", 14, "Bea Trelawny", "Ivo Sandström"),
    ("Pemberton and Sons", 28, "Noel Fairfax", "Judith Amory"),
    ("Vellum, Stroud and Hart", 22, "Miriam Locke", "Gareth Pugh"),
    ("Lockhart Wholesale", 17, "Sidney Crane", "Alma Rossi"),
    ("Tamarind Collective", 11, "Edith Barlow", "Quentin Marsh Jr."),
    ("Whitlock, Reyes and Daly", 26, "Vera Lindley", "Conrad Noakes"),
    ("Juniper House Ltd", 6, "Mrs. Paula Denholm", "Leo Hargreave"),
    ("Ashgrove - Bellweather", 29, "Simone Dacre", "Kit Rowntree"),
    ("D'Arcy Linen Co", 19, "Ralph Mostyn", "Zara Whitcombe"),
)

# (first name, last name, department)
STAFF = (
    ("Imogen", "Farrow", 1),
    ("Caleb", "Whitmore", 2),
    ("Saskia", "Dunne", 6),
    ("Rowan", "Ellery", 3),
    ("Beatrix", "Nolan", 8),
    ("Emeka", "Adair", 3),
    ("Freya", "Holbrook", 2),
    ("Dashiell", "Moss", 7),
    ("Leonie", "Castell", 2),
    ("Kwame", "Sterling", 1),
    ("Tabitha", "Rooke", 5),
    ("Anselm", "Pryor", 5),
    ("Marguerite", "Lisle", 4),
    ("Jonah", "Sinclair", 7),
    ("Wren", "Abernathy", 3),
    ("Dilys", "MacBride", 6),
    ("Niall", "O'Keefe", 3),
    ("Soraya", "Vane", 8),
    ("Lucian", "Hobbs", 4),
    ("Perpetua", "Quayle", 1),
)

DESIGN_NAMES = (
    "Bronze",
    "Concrete",
    "Cotton",
    "Fresh",
    "Frozen",
    "Granite",
    "Metal",
    "Plastic",
    "Rubber",
    "Soft",
    "Steel",
    "Wooden",
)
PATHS = (
    "/boot",
    "/etc",
    "/etc/defaults",
    "/home/user/dir",
    "/lib",
    "/lost+found",
    "/media",
    "/net",
    "/opt",
    "/opt/lib",
    "/private/var",
    "/srv/designs",
    "/usr",
    "/usr/local/bin",
    "/usr/local/src",
    "/usr/share",
    "/var/log",
    "/var/spool",
)
STREETS = ("Anchor Street", "Bobbin Lane", "Canvas Row", "Drover Road", "Harvest Way", "Needle Court", "Station Parade")
TOWNS = ("Bradford", "Leeds", "Liverpool", "Manchester", "Salford", "Sheffield")
MANAGERS = ("Abel Norcross", "Esme Halloran", "Ivy Pemberton", "Magnus Reid", "Odette Langley", "Tariq Somerville")

Report = Callable[[str], None]


class DatabaseNotEmptyError(ValueError):
    """The database that ``create`` was given already has tables of ToteSys."""


# --- Creation -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """How many rows a scale asks for. Reference tables never grow, designs grow with the root of the scale."""

    sales: int
    purchases: int
    designs: int

    @classmethod
    def at(cls, scale: float) -> Self:
        """Sizes at ``scale``; at least one order of each kind."""
        return cls(
            sales=max(1, round(SALES * scale)),
            purchases=max(1, round(PURCHASES * scale)),
            designs=max(FIRST_DESIGNS + 1, round(DESIGNS * scale**0.5)),
        )


def create(
    url: str,
    *,
    scale: float = 1.0,
    seed: int = 1,
    until: datetime | None = None,
    days: int = 730,
    report: Report | None = None,
) -> None:
    """Make ToteSys in the empty database at ``url`` and fill it, in one transaction.

    ``scale`` 1 gives about 11,000 sales orders and 4,600 purchase orders, whatever ``days`` is: they are spread over
    the office hours of the ``days`` days that end at ``until`` (UTC; now when not given). The same arguments give the
    same rows. ``report`` is told what was done. The first day of the data is that of the earliest ``created_at``.
    Raises DatabaseNotEmptyError when a table of ToteSys is already there, ValueError for a scale, or days, that leave
    nothing to make.
    """
    tell = report or (lambda _: None)
    until = _naive_utc(until or datetime.now(UTC))
    hours = office_hours(until - timedelta(days=days), until)
    if scale <= 0 or not hours or hours[0][1] - hours[0][0] <= HEAD_START:
        raise ValueError(
            f"scale {scale:g} and days {days} leave no order to make: give a scale above 0, and days that hold a "
            f"Monday to Friday, 08:00 to 19:00, before {until:%Y-%m-%d %H:%M} UTC."
        )
    sizes = Sizes.at(scale)
    ddl = resources.files("totesys_assets.catalogue").joinpath("totesys.sql").read_text(encoding="utf-8")
    tables = re.findall(r"^CREATE TABLE (\w+)", ddl, re.MULTILINE)
    with psycopg.connect(url) as connection:
        _prepare_session(connection, seed)
        _refuse_existing(connection, tables)
        connection.execute(ddl)
        tell(f"made {len(tables)} tables")
        with _foreign_keys_set_aside(connection, tables):
            _fill_reference(connection, hours[0][0])
            _fill_trade(connection, sizes, hours, until)
        for table in tables:
            _finish(connection, table)
    tell(
        f"placed {_spaced(sizes.sales)} sales orders and {_spaced(sizes.purchases)} purchase orders "
        f"from {hours[0][0]:%Y-%m-%d} to {hours[-1][1]:%Y-%m-%d}"
    )


def office_hours(since: datetime, until: datetime) -> list[tuple[datetime, datetime]]:
    """List spans (opening, closing) of Monday to Friday, 08:00 to 19:00, from the day of ``since`` up to ``until``."""
    first = datetime.combine(since.date(), datetime.min.time())
    midnights = (first + timedelta(days=day) for day in range((until.date() - since.date()).days + 1))
    spans = ((day + OPENS, min(day + CLOSES, until)) for day in midnights if day.isoweekday() <= 5)
    return [(opening, closing) for opening, closing in spans if opening < closing]


def _naive_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


# draw(n, stream, size) is a number from 0 to size - 1, the same for the same seed whatever the plan of the query:
# random() would depend on the order in which rows are made. PostgreSQL inlines these.
PREPARE_SESSION = """
SET TimeZone TO 'UTC';
SET DateStyle TO 'ISO';
SET LOCAL work_mem TO '256MB';
SET LOCAL maintenance_work_mem TO '256MB';
CREATE FUNCTION pg_temp.draw(n bigint, stream bigint, size bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS 'SELECT (hashint8extended(n, hashint8extended(stream, {seed})) & 9223372036854775807) % size';
CREATE FUNCTION pg_temp.digit(value bigint, place bigint) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT substr('0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ', (value / place % 36)::int + 1, 1) $$;
"""

EXISTING_TABLES = """
SELECT table_name
FROM information_schema.tables
WHERE table_schema = current_schema() AND table_name = ANY(%s)
ORDER BY table_name
"""

FOREIGN_KEYS = """
SELECT relname, conname, pg_get_constraintdef(pg_constraint.oid)
FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
WHERE contype = 'f' AND relname = ANY(%s) AND connamespace = current_schema()::regnamespace
ORDER BY relname, conname
"""


def _prepare_session(connection: psycopg.Connection, seed: int) -> None:
    connection.execute(sql.SQL(PREPARE_SESSION).format(seed=sql.Literal(seed)))


def _refuse_existing(connection: psycopg.Connection, tables: Sequence[str]) -> None:
    found = [row[0] for row in connection.execute(EXISTING_TABLES, [list(tables)])]
    if found:
        raise DatabaseNotEmptyError(
            f'The database "{connection.info.dbname}" already has tables of ToteSys ({", ".join(found)}): '
            "drop them, or give the URL of an empty database."
        )


@contextmanager
def _foreign_keys_set_aside(connection: psycopg.Connection, tables: Sequence[str]) -> Iterator[None]:
    """Drop the foreign keys of ``tables`` for the while, and restore them as they were.

    Checking a table once is far cheaper than checking each of its rows as it comes. An error needs no cleaning up:
    it rolls the drop back with all the rest.
    """
    keys = connection.execute(FOREIGN_KEYS, [list(tables)]).fetchall()
    for table, name, _ in keys:
        drop = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}")
        connection.execute(drop.format(sql.Identifier(table), sql.Identifier(name)))
    yield
    for table, name, definition in keys:
        add = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}")
        connection.execute(add.format(sql.Identifier(table), sql.Identifier(name), sql.SQL(definition)))


def _finish(connection: psycopg.Connection, table: str) -> None:
    """Let the sequence of ``table`` go on after its highest key, and let the planner know its size."""
    names = {"table": sql.Identifier(table), "key": sql.Identifier(f"{table}_id")}
    setval = "SELECT setval(pg_get_serial_sequence(%s, %s), (SELECT max({key}) FROM {table}))"
    connection.execute(sql.SQL(setval).format(**names), [table, f"{table}_id"])
    connection.execute(sql.SQL("ANALYZE {table}").format(**names))


Rows = Sequence[tuple[str | int | None, ...]]


def _reference_rows() -> Iterator[tuple[str, tuple[str, ...], Rows]]:
    """Each reference table with the columns, and their values, that are not its key or its stamps."""
    places = ("address_line_1", "address_line_2", "district", "city", "postal_code", "country", "phone")
    yield "address", places, ADDRESSES
    yield "department", ("department_name", "location", "manager"), DEPARTMENTS
    yield "currency", ("currency_code",), [(code,) for code in CURRENCIES]
    yield "payment_type", ("payment_type_name",), [(name,) for name in PAYMENT_TYPES]
    companies = ("counterparty_legal_name", "legal_address_id", "commercial_contact", "delivery_contact")
    yield "counterparty", companies, COUNTERPARTIES
    people = ("first_name", "last_name", "department_id", "email_address")
    yield "staff", people, [(first, last, home, _mailboxes(first, last)[0]) for first, last, home in STAFF]


def _mailboxes(first: str, last: str) -> list[str]:
    """E-mail addresses that a member of staff may have; the first is the usual one."""
    names = (f"{first}.{last}", f"{first[0]}.{last}", f"{last}.{first}")
    return [f"{name}@terrifictotes.com".lower() for name in names]


def _fill_reference(connection: psycopg.Connection, stamp: datetime) -> None:
    for table, columns, rows in _reference_rows():
        names = sql.SQL(", ").join(map(sql.Identifier, (*columns, "created_at", "last_updated")))
        copy_in = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)
        with connection.cursor().copy(copy_in) as copy:
            for row in rows:
                copy.write_row((*row, stamp, stamp))


FILL_DESIGNS = """
INSERT INTO design (design_id, created_at, design_name, file_location, file_name, last_updated)
WITH drawn AS (
    SELECT n, pg_temp.draw(n, 101, %(open_ms)s) AS at
    FROM generate_series(1, %(designs)s) AS n
), placed AS (
    SELECT
        n,
        CASE WHEN n <= %(first_designs)s THEN %(opening)s
             ELSE (%(opens)s::timestamp[])[day] + (at - (%(starts)s::bigint[])[day]) * interval '1 millisecond'
        END AS created_at
    FROM drawn, LATERAL width_bucket(at, %(starts)s::bigint[]) AS day
), named AS (
    SELECT
        row_number() OVER (ORDER BY created_at, n) AS design_id,
        created_at,
        (%(design_names)s::text[])[1 + pg_temp.draw(n, 102, cardinality(%(design_names)s::text[]))] AS design_name,
        (%(paths)s::text[])[1 + pg_temp.draw(n, 103, cardinality(%(paths)s::text[]))] AS file_location,
        to_char(created_at - pg_temp.draw(n, 104, 730) * interval '1 day', 'YYYYMMDD') AS drawn_on,
        pg_temp.draw(n, 105, 1679616) AS code
    FROM placed
)
SELECT
    design_id,
    created_at,
    design_name,
    file_location,
    lower(design_name || '-' || drawn_on || '-' || pg_temp.digit(code, 1) || pg_temp.digit(code, 36)
        || pg_temp.digit(code, 1296) || pg_temp.digit(code, 46656)) || '.json',
    created_at
FROM named
ORDER BY design_id
"""

# One row per event: an order, its transaction and its payment, in the order in which they came.
MAKE_EVENTS = """
CREATE TEMP TABLE event (
    transaction_id int, payment_id int, order_id int, is_sale boolean, created_at timestamp(3),
    staff_id int, counterparty_id int, currency_id int, address_id int, quantity int, unit_price numeric(10,2),
    delivery_date date, payment_date date
) ON COMMIT DROP
"""

# A delivery is agreed for a moment within seven days, a payment within six: the dates that follow from it are what
# gives the first and the last of these days fewer orders. Neighbours swap their payment numbers once in 400.
FILL_EVENTS = """
INSERT INTO event
WITH drawn AS (
    SELECT n, n <= %(sales)s AS is_sale, pg_temp.draw(n, 1, %(open_ms)s) AS at
    FROM generate_series(1, %(events)s) AS n
), placed AS (
    SELECT
        n,
        is_sale,
        (%(opens)s::timestamp[])[day] + (at - (%(starts)s::bigint[])[day]) * interval '1 millisecond' AS created_at
    FROM drawn, LATERAL width_bucket(at, %(starts)s::bigint[]) AS day
), numbered AS (
    SELECT
        count(*) OVER arrival AS id,
        CASE WHEN is_sale THEN count(*) FILTER (WHERE is_sale) OVER arrival
             ELSE count(*) FILTER (WHERE NOT is_sale) OVER arrival
        END AS order_id,
        is_sale,
        created_at
    FROM placed
    WINDOW arrival AS (ORDER BY created_at, n ROWS UNBOUNDED PRECEDING)
)
SELECT
    id,
    CASE WHEN id > 1 AND id # 1 <= %(events)s AND (id / 2 = 1 OR pg_temp.draw(id / 2, 2, 10000) < 24) THEN id # 1
         ELSE id
    END,
    order_id,
    is_sale,
    created_at,
    1 + pg_temp.draw(id, 3, %(staff)s),
    1 + pg_temp.draw(id, 4, %(counterparties)s),
    1 + pg_temp.draw(id, 5, %(currencies)s),
    1 + pg_temp.draw(id, 6, %(addresses)s),
    CASE WHEN is_sale THEN 1001 + pg_temp.draw(id, 7, 98973) ELSE 1 + pg_temp.draw(id, 7, 999) END,
    CASE WHEN is_sale THEN 200 + pg_temp.draw(id, 8, 201) ELSE 332 + pg_temp.draw(id, 8, 99576) END * 0.01,
    created_at + pg_temp.draw(id, 9, 7 * 86400) * interval '1 second',
    created_at + pg_temp.draw(id, 10, 6 * 86400) * interval '1 second'
FROM numbered
ORDER BY numbered.id
"""

# A sale is of any design that exists by then.
FILL_SALES_ORDERS = """
INSERT INTO sales_order (sales_order_id, created_at, last_updated, design_id, staff_id, counterparty_id, units_sold,
    unit_price, currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id)
SELECT
    order_id,
    created_at,
    created_at,
    1 + pg_temp.draw(transaction_id, 11,
        width_bucket(created_at, (SELECT array_agg(design.created_at ORDER BY design_id) FROM design))),
    staff_id,
    counterparty_id,
    quantity,
    unit_price,
    currency_id,
    delivery_date,
    payment_date,
    address_id
FROM event
WHERE is_sale
"""

# Item codes: a step that shares no factor with 36^7 visits every code of seven characters before it repeats one.
FILL_PURCHASE_ORDERS = """
INSERT INTO purchase_order (purchase_order_id, created_at, last_updated, staff_id, counterparty_id, item_code,
    item_quantity, item_unit_price, currency_id, agreed_delivery_date, agreed_payment_date,
    agreed_delivery_location_id)
SELECT
    order_id,
    created_at,
    created_at,
    staff_id,
    counterparty_id,
    pg_temp.digit(code, 1) || pg_temp.digit(code, 36) || pg_temp.digit(code, 1296) || pg_temp.digit(code, 46656)
        || pg_temp.digit(code, 1679616) || pg_temp.digit(code, 60466176) || pg_temp.digit(code, 2176782336),
    quantity,
    unit_price,
    currency_id,
    delivery_date,
    payment_date,
    address_id
FROM event, LATERAL (SELECT mod(pg_temp.draw(0, 12, 78364164096) + order_id * 48431717405, 78364164096)) AS item (code)
WHERE NOT is_sale
"""

FILL_TRANSACTIONS = """
INSERT INTO transaction (transaction_id, transaction_type, sales_order_id, purchase_order_id, created_at, last_updated)
SELECT
    transaction_id,
    CASE WHEN is_sale THEN 'SALE' ELSE 'PURCHASE' END::"TransactionType",
    CASE WHEN is_sale THEN order_id END,
    CASE WHEN NOT is_sale THEN order_id END,
    created_at,
    created_at
FROM event
"""

# The morning batch pays what is dated that day, never on a weekend, and never what came in on its own payment date.
FILL_PAYMENTS = """
INSERT INTO payment (payment_id, created_at, last_updated, transaction_id, counterparty_id, payment_amount,
    currency_id, payment_type_id, paid, payment_date, company_ac_number, counterparty_ac_number)
SELECT
    payment_id,
    created_at,
    CASE WHEN paid THEN batch ELSE created_at END,
    transaction_id,
    counterparty_id,
    quantity * unit_price,
    currency_id,
    CASE WHEN is_sale THEN %(sales_receipt)s ELSE %(purchase_payment)s END::int,
    paid,
    payment_date,
    10000000 + pg_temp.draw(transaction_id, 13, 90000000),
    10000000 + pg_temp.draw(transaction_id, 14, 90000000)
FROM
    event,
    LATERAL (
        SELECT payment_date + time '07:55:10.9'
            + pg_temp.draw(payment_date - date '2000-01-01', 15, 1500) * interval '1 millisecond'
    ) AS morning (batch),
    LATERAL (
        SELECT batch <= %(until)s AND payment_date > created_at::date AND extract(isodow FROM payment_date) < 6
    ) AS settled (paid)
"""


def _fill_trade(
    connection: psycopg.Connection, sizes: Sizes, hours: Sequence[tuple[datetime, datetime]], until: datetime
) -> None:
    opening = hours[0][0]
    spans = [(opening + HEAD_START, hours[0][1]), *hours[1:]]
    starts = [0]
    for opens, closes in spans:
        starts.append(starts[-1] + (closes - opens) // timedelta(milliseconds=1))
    values = {
        "sales": sizes.sales,
        "events": sizes.sales + sizes.purchases,
        "designs": sizes.designs,
        "first_designs": FIRST_DESIGNS,
        "opening": opening,
        "opens": [opens for opens, _ in spans],
        "starts": starts[:-1],
        "open_ms": starts[-1],
        "until": until,
        "design_names": list(DESIGN_NAMES),
        "paths": list(PATHS),
        "staff": len(STAFF),
        "counterparties": len(COUNTERPARTIES),
        "currencies": len(CURRENCIES),
        "addresses": len(ADDRESSES),
        "sales_receipt": SALES_RECEIPT,
        "purchase_payment": PURCHASE_PAYMENT,
    }
    connection.execute(FILL_DESIGNS, values)
    connection.execute(MAKE_EVENTS)
    connection.execute(FILL_EVENTS, values)
    for statement in (FILL_SALES_ORDERS, FILL_PURCHASE_ORDERS, FILL_TRANSACTIONS, FILL_PAYMENTS):
        connection.execute(statement, values)


# --- Traffic --------------------------------------------------------------------------------------------------------

# What the back office changes of a row: (table, column).
CHANGES = (
    ("sales_order", "design_id"),
    ("sales_order", "staff_id"),
    ("sales_order", "agreed_delivery_date"),
    ("sales_order", "agreed_delivery_location_id"),
    ("purchase_order", "staff_id"),
    ("purchase_order", "item_code"),
    ("purchase_order", "agreed_delivery_date"),
    ("purchase_order", "agreed_delivery_location_id"),
    ("design", "file_location"),
)
REFERRED = {"design_id": "design", "staff_id": "staff", "agreed_delivery_location_id": "address"}

PLACE_SALE = """
INSERT INTO sales_order (created_at, last_updated, design_id, staff_id, counterparty_id, units_sold, unit_price,
    currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id)
VALUES (CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, %(design)s, %(staff)s, %(counterparty)s, %(quantity)s, %(price)s,
    %(currency)s, to_char(CURRENT_TIMESTAMP + %(delivery)s, 'YYYY-MM-DD'),
    to_char(CURRENT_TIMESTAMP + %(payment)s, 'YYYY-MM-DD'), %(address)s)
RETURNING sales_order_id, agreed_payment_date
"""

PLACE_PURCHASE = """
INSERT INTO purchase_order (created_at, last_updated, staff_id, counterparty_id, item_code, item_quantity,
    item_unit_price, currency_id, agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id)
VALUES (CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, %(staff)s, %(counterparty)s, %(item)s, %(quantity)s,
    %(price)s, %(currency)s, to_char(CURRENT_TIMESTAMP + %(delivery)s, 'YYYY-MM-DD'),
    to_char(CURRENT_TIMESTAMP + %(payment)s, 'YYYY-MM-DD'), %(address)s)
RETURNING purchase_order_id, agreed_payment_date
"""

OPEN_TRANSACTION = """
INSERT INTO transaction (transaction_type, sales_order_id, purchase_order_id, created_at, last_updated)
VALUES (%s, %s, %s, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)
RETURNING transaction_id
"""

EXPECT_PAYMENT = """
INSERT INTO payment (created_at, last_updated, transaction_id, counterparty_id, payment_amount, currency_id,
    payment_type_id, paid, payment_date, company_ac_number, counterparty_ac_number)
VALUES (CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, %(transaction)s, %(counterparty)s, %(quantity)s * %(price)s::numeric,
    %(currency)s, %(payment_type)s, false, %(payment_date)s, %(company_account)s, %(counterparty_account)s)
"""

ADD_DESIGN = """
INSERT INTO design (created_at, design_name, file_location, file_name, last_updated)
VALUES (CURRENT_TIMESTAMP, %s, %s, %s, CURRENT_TIMESTAMP)
RETURNING design_id
"""

# Weekdays only, as text: nothing here fails on a payment_date that is no date.
SETTLE = """
UPDATE payment
SET paid = true, last_updated = CURRENT_TIMESTAMP
WHERE payment_id IN (
    SELECT payment_id
    FROM payment
    WHERE NOT paid AND payment_date = ANY(%s) AND payment_date > to_char(created_at, 'YYYY-MM-DD')
    ORDER BY payment_date, payment_id
    LIMIT %s
    FOR UPDATE SKIP LOCKED
)
RETURNING payment_date
"""
SETTLES_BACK, SETTLES_AHEAD = 366, 7  # days around today that a settled payment may be dated

YOUNG_TRANSACTION = """
SELECT transaction_id, sales_order_id, purchase_order_id
FROM transaction
WHERE transaction_id >= (SELECT max(transaction_id) FROM transaction) - %s
    AND (sales_order_id IS NOT NULL OR purchase_order_id IS NOT NULL)
ORDER BY transaction_id
LIMIT 1
FOR UPDATE
"""

Event = Callable[[psycopg.Connection], str]


class Traffic:
    """The people and programs that write to ToteSys while it lives; each method is one committed transaction.

    A context manager that holds one connection, and opens another when that one is lost. Methods return a sentence
    that says what happened, and tell it to ``on_event``. With a ``seed``, the same calls on the same rows do the same.
    """

    def __init__(self, url: str, *, seed: int | None = None, on_event: Report | None = None) -> None:
        self._url = url
        self._random = random.Random(seed)  # noqa: S311 - invents trade, guards nothing  # nosec B311
        self._on_event = on_event or (lambda _: None)
        self._connection: psycopg.Connection | None = None

    def __enter__(self) -> Self:
        self._connection = self._connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.close()

    def new_sale(self) -> str:
        """Place a sales order with its transaction and its payment."""
        return self._commit(self._sell)

    def new_purchase(self) -> str:
        """Place a purchase order with its transaction and its payment."""
        return self._commit(self._buy)

    def new_design(self) -> str:
        """Add a design that sales may be of from now on."""
        return self._commit(self._design)

    def silent_update(self) -> str:
        """Change a column of an order, or of a design, of any age, and leave ``last_updated`` as it was."""
        return self._commit(lambda connection: self._update(connection, stamped=False))

    def stamped_update(self) -> str:
        """Change a column of an order, or of a design, of any age, as the application does: with ``last_updated``."""
        return self._commit(lambda connection: self._update(connection, stamped=True))

    def settle_payments(self) -> str:
        """Mark a few payments as paid, with one ``last_updated``: those due first, then those of the days ahead.

        Right after ``create`` nothing is due, and a ToteSys where no payment moves is no use to try things on.
        As in the morning batch, a payment dated on a weekend, or on the day it was made, is never paid.
        """
        return self._commit(self._settle)

    def delete_order(self) -> str:
        """Delete an order, most often a young one, with its transaction and its payment."""
        return self._commit(self._delete)

    def change_reference(self) -> str:
        """Change an address, the head or the place of a department, or a member of staff."""
        change = self._random.choice((self._move_address, self._reorganize_department, self._move_staff))
        return self._commit(change)

    def step(self) -> str:
        """Make one event of any kind: mostly new orders, now and then a deletion or a changed reference row."""
        (event,) = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))
        return event(self)

    def run(self, rate: float, stop: threading.Event, limit: int | None = None) -> int:
        """Make ``rate`` events per second, at irregular gaps, until ``stop`` is set or ``limit`` were made.

        Returns how many were made.
        """
        if rate <= 0:
            raise ValueError(f"rate is {rate:g} events per second: give a number above 0.")
        made = 0
        due = time.monotonic()
        while limit is None or made < limit:
            due = max(due + self._random.expovariate(rate), time.monotonic() - BACKLOG_SECONDS)
            if stop.wait(max(0.0, due - time.monotonic())):
                break
            self.step()
            made += 1
        return made

    # Connection

    def _connect(self) -> psycopg.Connection:
        connection = psycopg.connect(self._url, autocommit=True)
        connection.execute("SET TimeZone TO 'UTC'")
        return connection

    def _reconnect(self) -> psycopg.Connection:
        deadline = time.monotonic() + RECONNECT_SECONDS
        while True:
            try:
                return self._connect()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(RETRY_SECONDS)

    def _commit(self, event: Event) -> str:
        """Do ``event`` in one transaction; again on a new connection when this one turns out to be lost.

        When it is lost in the very commit, the event may happen twice: one more order, which harms nobody.
        """
        if self._connection is None:
            raise RuntimeError("Traffic has no connection: use it as `with Traffic(url) as traffic:`.")
        while True:
            try:
                with self._connection.transaction():
                    sentence = event(self._connection)
                break
            except psycopg.OperationalError:
                if not self._connection.closed:
                    raise
                self._connection = self._reconnect()
        self._on_event(sentence)
        return sentence

    # Events

    def _sell(self, connection: psycopg.Connection) -> str:
        order = self._terms(connection) | {
            "design": self._any(connection, "design"),
            "quantity": self._random.randint(1001, 99973),
            "price": self._cents(200, 400),
        }
        number, payment_date = _row(connection.execute(PLACE_SALE, order))
        transaction = _row(connection.execute(OPEN_TRANSACTION, ["SALE", number, None]))[0]
        self._expect_payment(connection, order, transaction, payment_date, SALES_RECEIPT)
        country = _row(connection.execute("SELECT country FROM address WHERE address_id = %(address)s", order))[0]
        return f"new sales order {number}, {_spaced(order['quantity'])} units to {country}"

    def _buy(self, connection: psycopg.Connection) -> str:
        order = self._terms(connection) | {
            "item": self._item_code(),
            "quantity": self._random.randint(1, 999),
            "price": self._cents(332, 99907),
        }
        number, payment_date = _row(connection.execute(PLACE_PURCHASE, order))
        transaction = _row(connection.execute(OPEN_TRANSACTION, ["PURCHASE", None, number]))[0]
        self._expect_payment(connection, order, transaction, payment_date, PURCHASE_PAYMENT)
        return f"new purchase order {number}, {order['quantity']} of item {order['item']}"

    def _terms(self, connection: psycopg.Connection) -> dict[str, Any]:
        """Agree on what sales and purchases have in common."""
        return {
            "staff": self._any(connection, "staff"),
            "counterparty": self._any(connection, "counterparty"),
            "currency": self._any(connection, "currency"),
            "address": self._any(connection, "address"),
            "delivery": timedelta(seconds=self._random.randrange(7 * 86400)),
            "payment": timedelta(seconds=self._random.randrange(6 * 86400)),
        }

    def _expect_payment(
        self, connection: psycopg.Connection, order: dict[str, Any], transaction: int, payment_date: str, kind: int
    ) -> None:
        payment = order | {
            "transaction": transaction,
            "payment_type": kind,
            "payment_date": payment_date,
            "company_account": self._random.randint(10_000_000, 99_999_999),
            "counterparty_account": self._random.randint(10_000_000, 99_999_999),
        }
        connection.execute(EXPECT_PAYMENT, payment)

    def _design(self, connection: psycopg.Connection) -> str:
        name = self._random.choice(DESIGN_NAMES)
        drawn_on = _today(connection) - timedelta(days=self._random.randrange(730))
        code = "".join(self._random.choices(string.ascii_lowercase + string.digits, k=4))
        file_name = f"{name.lower()}-{drawn_on:%Y%m%d}-{code}.json"
        values = [name, self._random.choice(PATHS), file_name]
        number = _row(connection.execute(ADD_DESIGN, values))[0]
        return f"new design {number}, {name}"

    def _update(self, connection: psycopg.Connection, *, stamped: bool) -> str:
        table, column = self._random.choice(CHANGES)
        found = self._any_by_age(connection, table, column)
        if found is None:
            return f"no {_words(table)} to change"
        key, old = found
        new = self._another(connection, column, old)
        _write(connection, table, key, {column: new}, stamped=stamped)
        return f"{_words(table)} {key}: {column} {old} is now {new}" + ("" if stamped else ", silently")

    def _another(self, connection: psycopg.Connection, column: str, old: Any) -> Any:
        """Choose a value for ``column`` of an order or a design that differs from ``old``."""
        if column in REFERRED:
            return self._any(connection, REFERRED[column], but=old)
        if column == "agreed_delivery_date":
            today = _today(connection)
            days = (str(today + timedelta(days=ahead)) for ahead in range(1, 15))
            return self._random.choice([day for day in days if day != old])
        if column == "item_code":
            while (code := self._item_code()) == old:  # as in a second run with the same seed
                pass
            return code
        return self._random.choice([path for path in PATHS if path != old])

    def _settle(self, connection: psycopg.Connection) -> str:
        today = _today(connection)
        days = (today + timedelta(days=offset) for offset in range(-SETTLES_BACK, SETTLES_AHEAD + 1))
        weekdays = [str(day) for day in days if day.isoweekday() <= 5]
        dates = [row[0] for row in connection.execute(SETTLE, [weekdays, self._random.randint(1, 8)])]
        if not dates:
            return "no payment to settle"
        return f"{_counted(len(dates), 'payment')} settled, dated {' and '.join(sorted(set(dates)))}"

    def _delete(self, connection: psycopg.Connection) -> str:
        age = int(self._random.expovariate(1 / 20))
        found = connection.execute(YOUNG_TRANSACTION, [age]).fetchone()
        if found is None:
            return "no order to delete"
        transaction, sales_order, purchase_order = found
        connection.execute("DELETE FROM payment WHERE transaction_id = %s", [transaction])
        connection.execute("DELETE FROM transaction WHERE transaction_id = %s", [transaction])
        if sales_order is not None:
            connection.execute("DELETE FROM sales_order WHERE sales_order_id = %s", [sales_order])
            return f"sales order {sales_order} deleted, with its transaction and its payment"
        connection.execute("DELETE FROM purchase_order WHERE purchase_order_id = %s", [purchase_order])
        return f"purchase order {purchase_order} deleted, with its transaction and its payment"

    def _move_address(self, connection: psycopg.Connection) -> str:
        address = self._any(connection, "address")
        street = f"{self._random.randint(1, 2999)} {self._random.choice(STREETS)}"
        phone = f"{self._random.randrange(10_000):04} {self._random.randrange(1_000_000):06}"
        _write(connection, "address", address, {"address_line_1": street, "phone": phone}, stamped=True)
        return f"address {address} is now {street}, phone {phone}"

    def _reorganize_department(self, connection: psycopg.Connection) -> str:
        department = self._any(connection, "department")
        read = "SELECT department_name, location, manager FROM department WHERE department_id = %s"
        name, location, manager = _row(connection.execute(read, [department]))
        # Leds stays: pipelines must bring the source's typos over as they are.
        if location == "Leds" or self._random.random() < 0.5:
            head = self._random.choice([other for other in MANAGERS if other != manager])
            _write(connection, "department", department, {"manager": head}, stamped=True)
            return f"department {name} is now led by {head}"
        town = self._random.choice([other for other in TOWNS if other != location])
        _write(connection, "department", department, {"location": town}, stamped=True)
        return f"department {name} moved to {town}"

    def _move_staff(self, connection: psycopg.Connection) -> str:
        staff = self._any(connection, "staff")
        read = "SELECT first_name, last_name, department_id, email_address FROM staff WHERE staff_id = %s"
        first, last, department, mailbox = _row(connection.execute(read, [staff]))
        if self._random.random() < 0.5:
            new = self._any(connection, "department", but=department)
            _write(connection, "staff", staff, {"department_id": new}, stamped=True)
            return f"{first} {last} moved to department {new}"
        address = self._random.choice([other for other in _mailboxes(first, last) if other != mailbox])
        _write(connection, "staff", staff, {"email_address": address}, stamped=True)
        return f"{first} {last} is now at {address}"

    # Choices

    def _any(self, connection: psycopg.Connection, table: str, but: int | None = None) -> int:
        """Key of any row of a table of few rows, save ``but``; the same for the same seed and rows."""
        query = "SELECT {key} FROM {table} WHERE {key} IS DISTINCT FROM %s ORDER BY hashint8extended({key}, %s) LIMIT 1"
        chosen = connection.execute(sql.SQL(query).format(**_names(table)), [but, self._random.getrandbits(62)])
        return int(_row(chosen)[0])

    def _any_by_age(self, connection: psycopg.Connection, table: str, column: str) -> tuple[int, Any] | None:
        """Key and ``column`` of any row of a table of many rows, found through its index; None when it is empty."""
        names = _names(table, column)
        span = _row(connection.execute(sql.SQL("SELECT min({key}), max({key}) FROM {table}").format(**names)))
        if span[0] is None:
            return None
        read = "SELECT {key}, {column} FROM {table} WHERE {key} >= %s ORDER BY {key} LIMIT 1 FOR UPDATE"
        return connection.execute(sql.SQL(read).format(**names), [self._random.randint(*span)]).fetchone()

    def _item_code(self) -> str:
        return "".join(self._random.choices(string.ascii_uppercase + string.digits, k=7))

    def _cents(self, low: int, high: int) -> Decimal:
        return Decimal(self._random.randint(low, high)) / 100


# Of a hundred events, how many are of a kind.
WEIGHTS: dict[Callable[[Traffic], str], int] = {
    Traffic.new_sale: 49,
    Traffic.new_purchase: 21,
    Traffic.new_design: 2,
    Traffic.silent_update: 10,
    Traffic.stamped_update: 5,
    Traffic.settle_payments: 7,
    Traffic.delete_order: 3,
    Traffic.change_reference: 3,
}


def _names(table: str, column: str | None = None) -> dict[str, sql.Identifier]:
    names = {"table": sql.Identifier(table), "key": sql.Identifier(f"{table}_id")}
    return names | ({"column": sql.Identifier(column)} if column else {})


def _write(connection: psycopg.Connection, table: str, key: int, values: dict[str, Any], *, stamped: bool) -> None:
    """Update one row: with ``last_updated`` as the application does, or without as the back office does."""
    changes: list[sql.Composable] = [sql.SQL("{} = %s").format(sql.Identifier(column)) for column in values]
    if stamped:
        changes.append(sql.SQL("last_updated = CURRENT_TIMESTAMP"))
    query = sql.SQL("UPDATE {table} SET {changes} WHERE {key} = %s")
    connection.execute(query.format(changes=sql.SQL(", ").join(changes), **_names(table)), [*values.values(), key])


def _row(cursor: psycopg.Cursor) -> tuple[Any, ...]:
    """Fetch the one row that the statement must give."""
    row = cursor.fetchone()
    if row is None:
        raise LookupError("ToteSys lacks reference rows that traffic needs: fill it with create() first.")
    return row


def _today(connection: psycopg.Connection) -> date:
    today: date = _row(connection.execute("SELECT CURRENT_DATE"))[0]
    return today


def _words(table: str) -> str:
    return table.replace("_", " ")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
