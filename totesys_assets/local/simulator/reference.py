"""What invented trade is drawn from: people, places, companies and designs, and the reference rows made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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

Rows = Sequence[tuple[str | int | None, ...]]


def reference_rows() -> Iterator[tuple[str, tuple[str, ...], Rows]]:
    """Each reference table with the columns, and their values, that are not its key or its stamps."""
    places = ("address_line_1", "address_line_2", "district", "city", "postal_code", "country", "phone")
    yield "address", places, ADDRESSES
    yield "department", ("department_name", "location", "manager"), DEPARTMENTS
    yield "currency", ("currency_code",), [(code,) for code in CURRENCIES]
    yield "payment_type", ("payment_type_name",), [(name,) for name in PAYMENT_TYPES]
    companies = ("counterparty_legal_name", "legal_address_id", "commercial_contact", "delivery_contact")
    yield "counterparty", companies, COUNTERPARTIES
    people = ("first_name", "last_name", "department_id", "email_address")
    yield "staff", people, [(first, last, home, mailboxes(first, last)[0]) for first, last, home in STAFF]


def mailboxes(first: str, last: str) -> list[str]:
    """E-mail addresses that a member of staff may have; the first is the usual one."""
    names = (f"{first}.{last}", f"{first[0]}.{last}", f"{last}.{first}")
    return [f"{name}@terrifictotes.com".lower() for name in names]
