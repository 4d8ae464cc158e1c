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
from totesys_assets.terminal import Console, program, reporter, say

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


def test_the_commands_print_all_their_sentences_so() -> None:
    package = Path(totesys_assets.__file__).parent
    printing = [path for folder in ("commands", "live") for path in package.joinpath(folder).glob("*.py")]
    found = [line for path in printing for line in re.findall(r"\w+\.print\(.*", path.read_text(encoding="utf-8"))]
    sentences = [line for line in found if not re.search(r'print\((grid|f"\[bold\]{asset}\[/bold\]")?\)', line)]
    assert (len(found) > 4, sentences) == (True, [])


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
