"""Errors of the API: one sentence in JSON, with the status that says whose matter it is."""

from __future__ import annotations

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from totesys_assets.errors import ConnectionFailed, NoRates, PlatformError
from totesys_assets.insights.reading import STATEMENT_TIMEOUT

_AWAY_SECONDS = "5"
_NO_ROUTE = HTTPException(404).detail
_NOTHING_THERE = (
    "There is nothing at this address. Tables are at /v1/tables, questions at /v1/questions, the description of the "
    "API at /openapi.json."
)


def explain(api: FastAPI) -> None:
    """Have ``api`` answer errors in sentences."""
    api.add_exception_handler(HTTPException, _refused)
    api.add_exception_handler(RequestValidationError, _not_understood)
    api.add_exception_handler(PlatformError, _failed)


def _sentence(status: int, text: str, **headers: str) -> JSONResponse:
    return JSONResponse({"error": text}, status, headers)


def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    if error.status_code == 404 and error.detail == _NO_ROUTE:
        return _sentence(404, _NOTHING_THERE)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _not_understood(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    first = error.errors()[0]
    return _sentence(422, f"{first['loc'][-1]}: {first['msg']}.")


def _failed(_: Request, error: Exception) -> JSONResponse:
    """What the warehouse says. Where it is, and why it is away, is for those who run it."""
    cause = error.__cause__
    if isinstance(error, ConnectionFailed):
        return _sentence(503, "The warehouse cannot be reached. Try again soon.", **{"Retry-After": _AWAY_SECONDS})
    if isinstance(error, NoRates):
        return _sentence(422, str(error))
    if isinstance(cause, psycopg.DataError):
        return _sentence(422, f"A value cannot be read: {cause.diag.message_primary or cause}.")
    if isinstance(cause, psycopg.errors.QueryCanceled):
        return _sentence(504, f"The answer takes longer than {STATEMENT_TIMEOUT}. Ask for less.")
    if isinstance(cause, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        missing = cause.diag.message_primary
        return _sentence(503, f"The warehouse has not all tables yet, or is older than this API: {missing}.")
    if isinstance(cause, psycopg.errors.InsufficientPrivilege):
        return _sentence(503, f"The API's login lacks a right: {cause.diag.message_primary}.")
    return _sentence(500, "The warehouse refused a statement of the API.")
