"""The API's routes: tables in pages and streams, questions, and whether it is well.

Belongs here: what a route takes and answers. Does not belong here: rows (rows.py, streams.py) and errors (errors.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from threading import Semaphore
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator
from starlette.middleware.trustedhost import TrustedHostMiddleware

from totesys_assets.api import errors, rows, streams
from totesys_assets.api.keys import Budget, Door
from totesys_assets.api.offered import Offered, offered
from totesys_assets.insights.questions import PARAMETERS, Question, defaults, questions
from totesys_assets.insights.reading import Reader

PAGE, LARGEST_PAGE = 100, 1000
# Each has a session with the warehouse for as long as its client reads. The warehouse has a hundred, for everybody.
DOWNLOADS = 8
LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
_BEGINS_WITH_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_RESERVED = ("after", "limit", "format", "first", "last")
_DESCRIPTION = (
    "Views, marts, dimensions and questions of the warehouse, read only. Decimals are texts in JSON, so that money "
    "stays exact; days are as 2026-01-31, moments in UTC."
)


def _written(value: object) -> object:
    """``value``, unless it is a number: pydantic would count seconds from 1970, and 20260131 be a day of that year."""
    if isinstance(value, str) and not _BEGINS_WITH_DAY.match(value):
        raise ValueError("write it as 2026-01-31")
    return value


Day = Annotated[date, BeforeValidator(_written)]
Moment = Annotated[datetime, BeforeValidator(_written)]


class TableInfo(BaseModel):
    """What is offered under one name."""

    name: str
    description: str
    key: list[str]
    day: str | None
    columns: dict[str, str]


class Rows(BaseModel):
    """A page of rows; `next` is the value of `after` for the next page, null on the last."""

    rows: list[dict[str, Any]]
    next: str | None


class QuestionInfo(BaseModel):
    """A question, and the parameters that it takes."""

    name: str
    text: str
    description: str
    parameters: dict[str, str]


class QuestionAnswer(BaseModel):
    """A question, what it was asked with, and its answer."""

    question: str
    text: str
    description: str
    parameters: dict[str, Any]
    remarks: list[str]
    rows: list[dict[str, Any]]


class Asked(BaseModel):
    """The parameters of questions. What is not given takes its default: pounds, twelve months and this one."""

    currency: Annotated[str, Query(pattern="^[A-Za-z]{3}$")] | None = None
    basis: Literal["day", "month"] | None = None
    rate_day: Day | None = None
    first: Day | None = None
    last: Day | None = None
    period: Literal["day", "week", "month", "quarter", "year"] | None = None
    today: Day | None = None
    moment: Moment | None = None
    number: Annotated[int, Query(ge=1, lt=2**31)] | None = None
    subject: Literal["sales_order", "purchase_order"] | None = None
    rows: Annotated[int, Query(ge=1, le=LARGEST_PAGE)] | None = None


def build(reader: Reader, hashes: Sequence[str] = (), budget: Budget | None = None) -> FastAPI:
    """The API of the warehouse that ``reader`` reads, for callers with a key that has one of the ``hashes``.

    Without hashes it is for this machine alone: it answers only requests that were sent to it under a local name.
    """
    door, downloads = Door(hashes, budget or Budget()), Semaphore(DOWNLOADS)
    # FastAPI's pages of documentation load their scripts from elsewhere.
    api = FastAPI(title="ToteSys assets", version="1", description=_DESCRIPTION, docs_url=None, redoc_url=None)
    errors.explain(api)
    if not hashes:
        # A page of another site could have its own name lead to this machine, and read what it is answered.
        api.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOCAL_HOSTS])

    @api.get("/healthz", summary="Whether the warehouse can be reached")
    def health() -> dict[str, str]:
        with reader.session():
            return {"status": "ok"}

    guarded: dict[str, Any] = {"dependencies": [Depends(door.open)]}

    @api.get("/v1/tables", summary="What there is", response_model=list[TableInfo], **guarded)
    def tables() -> list[TableInfo]:
        return [_told(each) for each in offered().values()]

    @api.get("/v1/tables/{name}", summary="Rows of a table, by its key", response_model=Rows, **guarded)
    def table(
        name: str,
        request: Request,
        after: Annotated[str | None, Query(description="`next` of the page before")] = None,
        limit: Annotated[int | None, Query(ge=1, le=LARGEST_PAGE, description="JSON: 100 unless given")] = None,
        first: Annotated[Day | None, Query(description="first day, on the table's day column")] = None,
        last: Annotated[Day | None, Query(description="last day")] = None,
        format: Annotated[  # noqa: A002 - its name in the URL
            Literal["json", "csv", "arrow"], Query(description="csv and arrow: all rows, as a stream")
        ] = "json",
    ) -> Response:
        """Any other parameter is a filter: `column=value`, and one of several values if it is given several times."""
        wanted = _wanted(name, request, after, first, last)
        if format == "json":
            with reader.session() as connection:
                found = rows.page(connection, wanted, limit or PAGE)
            return _json({"rows": found.rows, "next": found.next})
        if not downloads.acquire(blocking=False):
            raise HTTPException(429, f"{DOWNLOADS} downloads are under way. Try again in 10 s.", {"Retry-After": "10"})
        chosen = streams.FORMATS[format]
        pieces = _counted(chosen.pieces(reader, wanted, limit), downloads)
        begun = next(pieces, b"")  # here: an error is answered as one, before anything is sent
        headers = {"Content-Disposition": f"attachment; filename={name}.{format}"}
        return streams.Download(begun, pieces, chosen.media_type, headers)

    @api.get("/v1/questions", summary="What can be asked", response_model=list[QuestionInfo], **guarded)
    def asked() -> list[dict[str, Any]]:
        return [
            {
                "name": each.name,
                "text": each.text,
                "description": each.description,
                "parameters": {parameter: PARAMETERS[parameter] for parameter in each.parameters},
            }
            for each in questions().values()
        ]

    @api.get("/v1/questions/{name}", summary="The answer to a question", response_model=QuestionAnswer, **guarded)
    def question(name: str, request: Request, given: Annotated[Asked, Query()]) -> Response:
        wanted = questions().get(name)
        if wanted is None:
            raise HTTPException(404, f'There is no question "{name}". There are: {", ".join(questions())}.')
        parameters = _chosen(wanted, request, given)
        reader.check_rates(parameters)
        found = reader.answer(name, **parameters)
        return _json(
            {
                "question": name,
                "text": wanted.text,
                "description": wanted.description,
                "parameters": parameters,
                "remarks": reader.remarks(parameters),
                "rows": [dict(zip(found.columns, row, strict=True)) for row in found.rows],
            }
        )

    for route in [each for each in api.routes if isinstance(each, APIRoute)]:
        # As RFC 9110 wants it of every GET. Described once, with its GET.
        api.add_api_route(
            route.path,
            route.endpoint,
            methods=["HEAD"],
            dependencies=route.dependencies,
            response_model=route.response_model,
            include_in_schema=False,
        )
    return api


def _counted(pieces: Iterator[bytes], downloads: Semaphore) -> Generator[bytes, None, None]:
    """The pieces; the download ends with the last, with an error, or when nobody wants the next one."""
    try:
        yield from pieces
    finally:
        downloads.release()


def _told(table: Offered) -> TableInfo:
    return TableInfo(
        name=table.name,
        description=table.description,
        key=[*table.key],
        day=table.day,
        columns=dict(table.columns),
    )


def _wanted(name: str, request: Request, after: str | None, first: date | None, last: date | None) -> rows.Wanted:
    table = offered().get(name)
    if table is None:
        raise HTTPException(404, f'There is no table "{name}". There are: {", ".join(offered())}.')
    _require_order(first, last)
    given = request.query_params
    filters = {column: given.getlist(column) for column in given if column not in _RESERVED}
    try:
        return rows.Wanted(table, filters, first, last, after)
    except rows.Unknown as error:
        raise HTTPException(422, str(error)) from error


def _chosen(question: Question, request: Request, given: Asked) -> dict[str, Any]:
    """A value for each parameter of the question: one that is given, or the default."""
    if unknown := [each for each in request.query_params if each not in question.parameters]:
        others = ", ".join(question.parameters) or "none"
        raise HTTPException(422, f'"{question.name}" does not take "{unknown[0]}". It takes: {others}.')
    values = given.model_dump(exclude_none=True)
    today = datetime.now(UTC).date()
    chosen = {**defaults(today), **values}
    if "last" in values and "first" not in values:
        chosen["first"] = defaults(values["last"])["first"]
    if {"first", "last"} <= {*question.parameters}:
        _require_order(chosen["first"], chosen["last"])
    chosen["currency"] = str(chosen["currency"]).upper()
    moment: Any = chosen["moment"]
    chosen["moment"] = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return {each: chosen[each] for each in question.parameters}


def _require_order(first: date | None, last: date | None) -> None:
    if first and last and first > last:
        raise HTTPException(422, f'"first" is {first}, after "last", {last}.')


def _json(document: object) -> Response:
    # FastAPI's own encoder makes a float of a decimal.
    text = json.dumps(document, default=_text, ensure_ascii=False, separators=(",", ":"))
    return Response(text, media_type="application/json")


def _text(value: object) -> str:
    if isinstance(value, date | time):
        return value.isoformat()
    return format(value, "f") if isinstance(value, Decimal) else str(value)
