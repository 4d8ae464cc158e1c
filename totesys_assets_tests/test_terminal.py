"""What commands print: lines that end between words, and the program called as the reader's shell finds it."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

import totesys_assets
from totesys_assets.commands import live
from totesys_assets.terminal import Console, program, reporter, say, show

pytestmark = pytest.mark.pure

PATH = "/srv/data/a/home/whose/name/is/longer/than/a/line/of/forty/lake"


def printed(mark: str, text: str | Text, width: int = 40, *, to_a_terminal: bool = True) -> list[str]:
    file = io.StringIO()
    say(Console(file=file, width=width, force_terminal=to_a_terminal, no_color=True, _environ={}), mark, text)
    return file.getvalue().splitlines()


def test_a_terminal_gets_lines_that_end_between_words_and_begin_below_the_text() -> None:
    text = "20 rows in ToteSys, 20 current in the warehouse-of-all and not one more"
    lines = printed("[green]✓[/green] ", text)
    assert lines == ["✓ 20 rows in ToteSys, 20 current in the", "  warehouse-of-all and not one more"]


def test_a_path_that_is_longer_than_a_line_stays_whole() -> None:
    assert printed("lake  ", f"It is at {PATH} (1.5 MB).") == ["lake  It is at", f"      {PATH}", "      (1.5 MB)."]


def test_a_file_or_pipe_gets_one_line() -> None:
    text = f"It is at {PATH} (1.5 MB), with sixty gigabytes left on its disk"
    assert printed("[red]✗[/red] ", text, to_a_terminal=False) == [f"✗ {text}"]
    broken = "Pine\r\n\n12:00:00 error\u2028\x85\x0b nothing\n"
    assert printed("· ", broken, to_a_terminal=False) == ["· Pine 12:00:00 error nothing"]
    assert printed("· ", "", to_a_terminal=False) == ["· "]


def test_an_event_of_a_live_platform_is_one_line_of_a_terminal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(live, "out", Console(file=file, width=80, force_terminal=True, no_color=True, _environ={}))
    live._say("totesys", "new design 7, Pine\n12:00:00 warehouse loaded nothing")
    (line,) = file.getvalue().splitlines()
    assert line.endswith(" totesys   new design 7, Pine 12:00:00 warehouse loaded nothing")


def test_a_text_is_printed_as_it_is_even_if_it_looks_like_markup() -> None:
    assert printed("", '"[bold]" of [1, 2]') == ['"[bold]" of [1, 2]']
    file = io.StringIO()
    reporter(Console(file=file))("made [red] tables")
    assert file.getvalue() == "· made [red] tables\n"


def test_paragraphs_and_an_empty_text_stay_what_they_are() -> None:
    assert printed("- ", "one\n\ntwo") == ["- one", "  ", "  two"]
    assert printed("up to date", "") == ["up to date"]


def test_a_mark_that_fills_most_of_a_line_gets_one_for_itself() -> None:
    assert printed("  ✓ amount_is_quantity_times_price  ", "no exception", 50) == [
        "  ✓ amount_is_quantity_times_price",
        "    no exception",
    ]


def table_shown(cells: list[str], width: int, *, to_a_terminal: bool = True) -> list[str]:
    grid = Table()
    for name in ("source", "captured", "dead letters", "what it holds"):
        grid.add_column(name)
    grid.add_row(*cells)
    file = io.StringIO()
    show(Console(file=file, width=width, force_terminal=to_a_terminal, no_color=True, _environ={}), grid)
    return [re.sub("\x1b\\[[0-9;]*m", "", line) for line in file.getvalue().splitlines()]


CELLS = ["marketing_spend", "2 h 38 min ago", "1,234,567", "One row per month, country and currency"]


@pytest.mark.parametrize("width", [15, 40, 60, 80, 120])
def test_a_table_loses_nothing_in_a_narrow_terminal_or_pipe(width: int) -> None:
    for to_a_terminal in (True, False):
        lines = table_shown(CELLS, width, to_a_terminal=to_a_terminal)
        shown = " ".join(" ".join(lines).replace("│", " ").split())
        assert all(word in shown for cell in CELLS for word in cell.split()), (width, lines)
        assert max(map(len, lines)) <= max(width, 30) or not to_a_terminal


def test_a_row_is_some_lines_where_the_terminal_is_too_narrow_for_a_table() -> None:
    assert table_shown([*CELLS[:2], "", CELLS[3]], 40) == [
        "source          marketing_spend",
        "  captured      2 h 38 min ago",
        "  what it holds One row per month,",
        "                country and currency",
    ]
    assert table_shown(CELLS, 40, to_a_terminal=False)[0].startswith("┏")
    long = Table("name", "a_heading_that_is_as_long_as_a_line_of_forty")
    long.add_row("Oak", "7")
    file = io.StringIO()
    show(Console(file=file, width=40, force_terminal=True, no_color=True, _environ={}), long)
    assert re.sub("\x1b\\[[0-9;]*m", "", file.getvalue()).splitlines()[0].split() == ["name", "Oak"]


def test_a_table_shows_a_text_as_it_is_even_if_it_looks_like_markup() -> None:
    for text in ("[red]Pine[/red]", "[/x]", ":bug: and \\[a]"):
        for width in (30, 120):
            assert text in "\n".join(table_shown([text, "", "", ""], width))


def test_the_commands_print_all_their_sentences_and_tables_so() -> None:
    package = Path(totesys_assets.__file__).parent
    printing = [path for folder in ("commands", "live") for path in package.joinpath(folder).glob("*.py")]
    texts = [path.read_text(encoding="utf-8") for path in printing]
    assert [line for text in texts for line in re.findall(r"\w+\.print\(.+\)", text)] == []
    assert sum(text.count("show(") for text in texts) > 4


@pytest.fixture
def totesys(tmp_path: Path) -> Path:
    program = tmp_path / "bin" / "totesys"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    return program


def test_the_program_is_called_by_its_name_where_the_shell_finds_it(
    totesys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(totesys), "refresh"])
    monkeypatch.setenv("PATH", str(totesys.parent))
    assert program() == "totesys"


def test_it_is_called_by_the_path_it_was_started_with_where_the_shell_finds_none_or_another(
    totesys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bin/totesys", "refresh"])
    monkeypatch.setenv("PATH", "/nowhere")
    assert program() == "bin/totesys"
    another = tmp_path / "another" / "totesys"
    another.parent.mkdir()
    totesys.rename(another)
    totesys.symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(another.parent))
    assert program() == "bin/totesys"


def test_a_folder_with_a_space_is_quoted_for_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program_there = tmp_path / "my assets" / "totesys"
    program_there.parent.mkdir()
    program_there.touch()
    monkeypatch.setattr(sys, "argv", [str(program_there)])
    monkeypatch.setenv("PATH", "/nowhere")
    assert program() == f"'{program_there}'"


def test_started_as_a_module_it_is_the_program_of_the_same_environment(
    totesys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/totesys_assets/cli.py"])
    monkeypatch.setattr(sys, "executable", str(totesys.with_name("python")))
    monkeypatch.setenv("PATH", "/nowhere")
    assert program() == str(totesys)


def test_a_text_commands_the_terminal_nothing() -> None:
    hostile = "a\x1b]0;title\x07\x1b[2J\x9b31m\r\u202eb\u2066\x7f, Łódź\nend"
    assert printed("[green]✓[/green] ", hostile) == ["✓ a]0;title[2J31mb, Łódź", "  end"]
    file = io.StringIO()
    grid = Table(hostile, header_style="")
    grid.add_row(hostile)
    Console(file=file, width=60, force_terminal=True, _environ={}).print(grid)
    assert file.getvalue().count("a]0;title[2J31mb, Łódź") == 2
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", file.getvalue())
