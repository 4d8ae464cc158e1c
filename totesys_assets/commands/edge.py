"""The edge of the command line: it turns every error into a sentence and an exit code.

Belongs here: the sentences for errors that no command handles, and output on terminals that cannot show every
character. Does not belong here: commands.

Exit codes: 0 everything was done; 1 something failed, differs or was refused; 2 wrong usage; 130 after Ctrl-C; 143
after SIGTERM.
"""

from __future__ import annotations

import codecs
import errno
import logging
import os
import re
import sys
import tempfile
import threading
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from totesys_assets import spill
from totesys_assets.commands import interrupts
from totesys_assets.errors import PlatformError, SettingsError, TemporaryFilesFailed
from totesys_assets.terminal import err, say

DEBUG_VARIABLE = "TOTESYS_DEBUG"
DEBUG_HELP = "Show the traceback of an error."
LOG = "errors.log"
_PLAIN = {"✓": "OK:", "✗": "X:", "·": "-", "…": "...", "→": "->", "≤": "<="}
_LONGEST = 500
_FULL = os.strerror(errno.ENOSPC)


def _without_marks(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(each, "?") for each in error.object[error.start : error.end]), error.end


class Edge(click.Group):
    """A group of commands that shows every error to the user as a sentence."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, with the option ``--debug``."""
        option = click.Option(
            ["--debug"], is_flag=True, expose_value=False, is_eager=True, callback=debug, help=DEBUG_HELP
        )
        cmd.params.append(option)
        super().add_command(cmd, name)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line. Always ends with SystemExit."""
        _prepare_output()
        code = 1
        try:
            # Else click itself would say "Aborted!" where a signal comes before the command.
            ended = super().main(*args, **{**kwargs, "standalone_mode": False})
            code = ended if isinstance(ended, int) else 0  # that of an exit, which click returns
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except click.ClickException as error:
            code = error.exit_code
            with suppress(OSError, ValueError):  # nobody can be told
                error.show()
        except click.Abort:
            _show(KeyboardInterrupt())
        except BaseException as error:
            _show(error)
        if code and interrupts.received() is not None:
            code = interrupts.exit_code()
        sys.exit(_written() or code)

    def invoke(self, ctx: click.Context) -> None:
        """Run a command. Ctrl-C and a broken pipe, which click would handle itself, are handled here."""
        try:
            super().invoke(ctx)  # what a command returns is no exit code
        except (click.ClickException, click.exceptions.Exit):
            raise
        except (Exception, KeyboardInterrupt) as error:
            _show(error)
            ctx.exit(interrupts.exit_code())


def debug(_context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    """The option ``--debug``, which does the same as TOTESYS_DEBUG=1."""
    if value:
        os.environ[DEBUG_VARIABLE] = "1"


def _prepare_output() -> None:
    codecs.register_error("totesys", _without_marks)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # closed, or no stream of the usual kind
            stream.reconfigure(errors="totesys")  # type: ignore[union-attr]


def quiet_beside() -> None:
    """Log errors of threads and destructors in a file: the caller that waits for them reports what failed.

    Log messages of libraries are not printed either.
    """
    logging.getLogger().addHandler(logging.NullHandler())
    threading.excepthook = lambda failed: _log_quietly(failed.exc_value)
    sys.unraisablehook = _unraisable


def _unraisable(failed: sys.UnraisableHookArgs) -> None:
    if isinstance(failed.exc_value, KeyboardInterrupt):
        interrupts.again()
    else:
        _log_quietly(failed.exc_value)


def _log_quietly(error: BaseException | None) -> None:
    if error is not None and interrupts.received() is None:
        _log(error)


def _written() -> int:
    """Flush the output. Returns 0, or 1 if that fails."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError) as error:
            _show(error)
            with suppress(OSError, ValueError):  # else Python tries again at its end, and prints a traceback
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            return 1
    return 0


def _show(error: BaseException) -> None:
    interrupts.arrived()
    if os.environ.get(DEBUG_VARIABLE) == "1":
        with suppress(OSError):
            sys.stderr.write(_scrubbed("".join(traceback.format_exception(error))))
    with suppress(OSError, ValueError):
        message = sentence(error)
        if message:
            say(err, "[red]✗[/red] ", message)


def sentence(error: BaseException) -> str:
    """The sentence for ``error``; empty if nothing needs to be said."""
    if interrupts.received() is not None or isinstance(error, KeyboardInterrupt):
        return f"Stopped before the end. {interrupts.left('Nothing is left half done: run it again.')}"
    if isinstance(error, BrokenPipeError):
        return ""
    if isinstance(error, MemoryError):
        return "Memory ran out. Free some, or run it on a larger machine; the next refresh does what is left to do."
    causes = _chain(error)
    for each in causes:
        said = spill.sentence(each) if isinstance(each, OSError) else None
        if said or isinstance(each, TemporaryFilesFailed):
            return said or str(each)
    if any(_FULL in str(each) for each in causes):
        full = next((each for each in causes if isinstance(each, OSError) and each.errno == errno.ENOSPC), None)
        return _of_system(full or OSError(errno.ENOSPC, _FULL))
    for each in causes:
        if isinstance(each, (PlatformError, SettingsError)):
            return str(each)
    for each in causes:
        if isinstance(each, OSError) and each.errno is not None:
            return _of_system(each)
    for each in causes:
        if type(each).__module__.partition(".")[0] in ("psycopg", "psycopg2", "duckdb", "_duckdb", "deltalake"):
            from totesys_assets.engine import reason  # here: it is there already if such an error is

            return _scrubbed(
                f"A database or the lake refused a request, or was lost: {reason(_as_exception(each))}. "
                f"Check that it is reachable and try again; what was done so far is kept.{_logged(error)}"
            )
    text = " ".join(str(error).split())[:_LONGEST]
    return _scrubbed(f"An unexpected error: {text or 'no message'} ({type(error).__name__}).{_logged(error)}")


def _as_exception(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else Exception(str(error))


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what caused it, the outermost first."""
    found: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in found:
        found.append(each)
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
    return found


def _of_system(error: OSError) -> str:
    what = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{what or 'Where output and data go: '}no space is left. Free some, or set TOTESYS_HOME and LAKE_URI to "
            "folders on another disk; the next refresh does what is left to do."
        )
    said = os.strerror(error.errno or 0)
    return f"{what}{said[:1].lower()}{said[1:]}." if what else f"The system says: {said}.{_logged(error)}"


def _logged(error: BaseException) -> str:
    if os.environ.get(DEBUG_VARIABLE) == "1":
        return ""
    place = _log(error)
    return f" The traceback is in {place}." if place else " --debug shows the traceback."


def _log(error: BaseException) -> Path | None:
    """Append a traceback to the log in the home, or else to one in the system's temporary folder."""
    text = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, process {os.getpid()}: {' '.join(sys.argv[:2])}\n"
    text += _scrubbed("".join(traceback.format_exception(error))) + "\n"
    home = Path(os.environ.get("TOTESYS_HOME") or ".totesys")
    for folder in (home, Path(tempfile.gettempdir())):
        with suppress(OSError, RuntimeError):
            if folder.is_dir():
                file = (folder / (LOG if folder is home else f"totesys-{LOG}")).absolute()
                with file.open("a", encoding="utf-8", errors="replace") as log:
                    log.write(text)
                return file
    return None


def _scrubbed(text: str) -> str:
    """``text`` without passwords of URLs and connection strings."""
    text = re.sub(r"(://[^/\s:@]*:)[^\s/]+@", r"\1***@", text)
    return re.sub(r"(password\s*=\s*)('(?:[^'\\]|\\.)*'|\S+)", r"\1***", text, flags=re.I)
