"""The reference pages of docs/, made from the code: the commands from click, the settings from settings.py.

``python -m totesys_assets_tests.reference`` writes them (``make reference``); test_documents.py compares them.
"""

from __future__ import annotations

import re
from pathlib import Path

import click

from totesys_assets.commands import main
from totesys_assets.commands.edge import DEBUG_VARIABLE
from totesys_assets.dagster_home import DAGSTER_URL_VARIABLE
from totesys_assets.provision import ADMIN, OWNER, READER, VIEWER
from totesys_assets.variables import VARIABLES, Variable

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
_MADE = "<!-- Made by `make reference` from the code. Change it there. -->"
# A fixed width: a terminal's own would make another page of the same help.
_WIDTH = 100

_COMMANDS = """\
# Commands

Each entry is what `totesys COMMAND --help` prints. `make install` puts `totesys` into `.venv/bin`; activate that
environment first: `source .venv/bin/activate`.

| exit code | meaning |
|---|---|
| 0 | The command did everything. `up` and `serve` also end so after Ctrl-C. |
| 1 | Something failed, differs or was refused. Standard error says what in a sentence. |
| 2 | The command was misused. |
| 129, 130, 143 | The command ended, within seconds, after its terminal was closed, Ctrl-C or SIGTERM. |

Only `refresh`, `up` and `simulate` create a home, the folder of the local state. The other commands say where one is.
"""

_SETTINGS = """\
# Settings

The platform reads its settings from environment variables. An unset or empty variable takes the value in the last
column. *Embedded* means that the platform runs its own PostgreSQL server in `TOTESYS_HOME`. A value that cannot be
used is refused with a sentence that says what to set.

## For every command

"""

_OTHERS = (
    Variable(
        "DAGSTER_HOME",
        "Your own Dagster instance, in place of the one in `TOTESYS_HOME`: the absolute path of a folder that exists. "
        "Its `dagster.yaml` says where Dagster keeps its records.",
        "`dagster` in `TOTESYS_HOME`",
    ),
    Variable(
        DAGSTER_URL_VARIABLE,
        "The database of Dagster's records. The `dagster.yaml` of the home and of the image read it; `totesys "
        "provision` creates that database. Commands that use the embedded servers set it by themselves.",
        "embedded",
    ),
    Variable(
        DEBUG_VARIABLE, "`1` shows the traceback of an error, as `--debug` does.", "one sentence, without traceback"
    ),
)

_PROVISION = (
    Variable(
        ADMIN,
        "A login with `CREATEDB` and `CREATEROLE`, a superuser or not. `PGUSER` and `PGPASSWORD` may supply it.",
        "refused",
    ),
    Variable(OWNER, "The owner's login, which creates and migrates the tables, with its password.", "refused"),
    Variable("WAREHOUSE_URL", "The loader's login, with its password.", "refused"),
    Variable(READER, "The readers' login for BI, with its password.", "no such role is created"),
    Variable(DAGSTER_URL_VARIABLE, "Dagster's login, in a database of its own, with its password.", "refused"),
    Variable(VIEWER, "The login of a UI that only shows, in Dagster's database.", "nobody logs in so"),
)


def commands() -> str:
    """docs/reference/commands.md."""
    names = sorted(main.commands)
    sections = [_help(main, "totesys", None), *(_help(main.commands[name], f"totesys {name}", name) for name in names)]
    listed = "\n".join(f"- [`totesys {name}`](#totesys-{name}): {_first_line(main.commands[name])}" for name in names)
    return "\n".join([_MADE, _COMMANDS, listed, "", *sections])


def _first_line(command: click.Command) -> str:
    return re.split(r"(?<=\.)\s", (command.help or "").strip().partition("\n\n")[0])[0].replace("\n", " ")


def _help(command: click.Command, title: str, name: str | None) -> str:
    parent = None if name is None else click.Context(main, info_name="totesys", **main.context_settings)
    settings = {**command.context_settings, "terminal_width": _WIDTH, "max_content_width": _WIDTH}
    with click.Context(command, parent=parent, info_name=name or "totesys", **settings) as context:
        text = command.get_help(context)
    return f"## {title}\n\n```text\n{text}\n```\n"


def settings() -> str:
    """docs/reference/settings.md."""
    return "".join(
        [
            f"{_MADE}\n{_SETTINGS}",
            _table((*VARIABLES, *_OTHERS)),
            "\n## For `totesys provision`\n\nThese URLs say what it creates: "
            "[Your own databases](../how-to/own-databases.md).\n\n",
            _table(_PROVISION),
        ]
    )


def _table(variables: tuple[Variable, ...]) -> str:
    rows = [f"| `{each.name}` | {each.meaning} | {each.unset} |\n" for each in variables]
    return "".join(["| variable | meaning | unset |\n|---|---|---|\n", *rows])


PAGES = {"commands.md": commands, "settings.md": settings}

if __name__ == "__main__":
    for page, made in PAGES.items():
        FOLDER.joinpath(page).write_text(made(), encoding="utf-8")
