"""Text of a source whose encoding is not UTF-8: which values have no form in UTF-8.

The server sends text as the characters that it holds, whatever its encoding, but ends the transaction at the first that
it cannot express: bytes that its encoding does not map to any character, and in a database of encoding SQL_ASCII, which
holds bytes as they came, bytes that are not UTF-8. Such values are found by the server, before it sends them.

Belongs here: the conditions, and the text that stands for such bytes. Does not belong here: what becomes of the rows.
"""

from __future__ import annotations

from totesys_assets.sql_text import literal

_EUC_JP = (
    "a2af-a2b9 a2c2-a2c9 a2d1-a2db a2eb-a2f1 a2fa-a2fd a3a1-a3af a3ba-a3c0 a3db-a3e0 a3fb-a3fe a4f4-a4fe a5f7-a5fe "
    "a6b9-a6c0 a6d9-a6fe a7c2-a7d0 a7f2-a7fe a8c1-acfe adbf add7-adde adfd-affe cfd4-cffe f4a7-fefe 8fa1a1-8fa2ae "
    "8fa2b7 8fa2ba-8fa2c1 8fa2c5-8fa2ea 8fa2f2-8fa6e0 8fa6e6 8fa6e8 8fa6eb 8fa6ed-8fa6f0 8fa6fd-8fa7c1 8fa7cf-8fa7f1 "
    "8fa8a1-8fa8fe 8fa9a3 8fa9a5 8fa9a7 8fa9aa 8fa9ae 8fa9b1-8fa9c0 8fa9d1-8fa9fe 8faab9 8faaf8-8faafe 8fabbc 8fabc4 "
    "8fabf8-8faffe 8fede4-8ff3f2 8ff5a1-8ffefe"
)
# Of each encoding of PostgreSQL that has them, the codes without a character, as the server's own tables have it.
# EUC_TW, EUC_JIS_2004 and MULE_INTERNAL are not listed: there the server's refusal stops the table, with a sentence.
UNMAPPED = {
    "LATIN3": "a5 ae be c3 d0 e3 f0",
    "ISO_8859_6": "a1-a3 a5-ab ae-ba bc-be c0 db-df f3-ff",
    "ISO_8859_7": "ae d2 ff",
    "ISO_8859_8": "a1 bf-de fb-fc ff",
    "WIN1250": "81 83 88 90 98",
    "WIN1251": "98",
    "WIN1252": "81 8d 8f-90 9d",
    "WIN1253": "81 88 8a 8c-8f 90 98 9a 9c-9f aa d2 ff",
    "WIN1254": "81 8d-90 9d-9e",
    "WIN1255": "81 8a 8c-90 9a 9c-9f ca d9-df fb-fc ff",
    "WIN1257": "81 83 88 8a 8c 90 98 9a 9c 9f a1 a5",
    "WIN1258": "81 8a 8d-90 9a 9d-9e",
    "WIN874": "81-84 86-90 98-9f db-de fc-ff",
    "EUC_KR": (
        "a2e9-a2fe a5ab-a5af a5ba-a5c0 a5d9-a5e0 a5f9-a5fe a6e5-a6fe a7f0-a7fe a8a5 a8a7 a8b0 aaf4-aafe abf7-abfe "
        "acc2-acd0 acf2-affe c9a1-c9fe fea1-fefe"
    ),
    "EUC_CN": (
        "a2a1-a2b0 a2e3-a2e4 a2ef-a2f0 a2fd-a2fe a4f4-a4fe a5f7-a5fe a6b9-a6c0 a6d9-a6fe a7c2-a7d0 a7f2-a7fe a8bb-a8c4 "
        "a8ea-a9a3 a9f0-affe d7fa-d7fe f8a1-fefe"
    ),
    "EUC_JP": _EUC_JP,
}
_TAIL = r"[\u0080-\u00bf]"
# In SQL_ASCII every byte is a character of its own.
_UTF8 = (
    rf"^([\u0001-\u007f]|[\u00c2-\u00df]{_TAIL}|\u00e0[\u00a0-\u00bf]{_TAIL}|[\u00e1-\u00ec\u00ee\u00ef]{_TAIL}{{2}}"
    rf"|\u00ed[\u0080-\u009f]{_TAIL}|\u00f0[\u0090-\u00bf]{_TAIL}{{2}}|[\u00f1-\u00f3]{_TAIL}{{3}}"
    rf"|\u00f4[\u0080-\u008f]{_TAIL}{{2}})*$"
)


def invalid(text: str, encoding: str) -> str | None:
    """PostgreSQL condition: the expression ``text`` cannot be sent. None where every text can."""
    # A collation may be one that knows no regular expressions.
    plain = f'({text})::text COLLATE "C"'
    if encoding == "SQL_ASCII":
        return rf"({plain} ~ '[\u0080-\u00ff]' AND {plain} !~ {literal(_UTF8)})"
    if encoding not in UNMAPPED:
        return None
    return f"({plain} ~ {literal(f'[{_characters(UNMAPPED[encoding])}]')})"


def _characters(codes: str) -> str:
    """Ranges of codes as they stand in a regular expression."""
    return "".join("-".join(rf"\U{int(code, 16):08x}" for code in each.split("-")) for each in codes.split())


def escaped(text: str, encoding: str) -> str:
    r"""PostgreSQL expression of ``text`` in which bytes beyond ASCII are written ``\nnn``, and a backslash twice."""
    return f"encode(convert_to({text}, {literal(encoding)}), 'escape')"
