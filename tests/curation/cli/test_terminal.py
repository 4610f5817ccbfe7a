"""No text from outside steers a terminal: file names, captions, recipes and errors are shown, and never obeyed."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

from longtake.curation.cli.app import PrintableConsole, outside
from longtake.curation.cli.main import app
from longtake.curation.workspace import Workspace
from longtake.presto.cli import app as trainer
from longtake.terminal import PrintableStream, printable
from tests.curation.cli.test_main import QUICK

TITLE, COLOUR, RIGHT_TO_LEFT = "\x1b]0;owned\x07", "\x1b[31m", "\u202e"
# A file's name that changes the title and the colours, begins a line of its own, turns what follows round, and is not UTF-8.
NAME = f"a{TITLE}b{COLOUR}c\nerror: all is lost{RIGHT_TO_LEFT}gpj\x9b2Jz\udcff.mp4"
STORED = NAME.replace("\udcff", "")  # A manifest holds UTF-8, so a name that is not UTF-8 is refused.
FORBIDDEN = ("\x1b]", "\x07", "\x9b", RIGHT_TO_LEFT, "\udcff")


def run(*arguments: str, code: int = 0, program: Any = app) -> Result:
    done = CliRunner(env={"COLUMNS": "250", "TERM": "dumb"}).invoke(program, list(arguments))
    assert done.exit_code == code, f"{done.exit_code}: {done.output!r} {done.exception!r}"
    return done


def harmless(*texts: str) -> bool:
    """Whether texts hold nothing that a terminal obeys, and no line that a name began."""
    for text in texts:
        assert not [c for c in text if c not in "\n\t" and printable(c) != c], repr(text)
        assert not [line for line in text.split("\n") if line.startswith("error: all is lost")], text
    return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one video, whose name is STORED; it is no video."""
    made = tmp_path_factory.mktemp("terminal")
    (made / "videos").mkdir()
    (made / "videos" / STORED).write_bytes(b"no video at all")
    recipe = {
        **QUICK,
        "description": f"{TITLE}{RIGHT_TO_LEFT}",
        "not_applied": {f"x{COLOUR}": f"y{TITLE}\nerror: all is lost"},
    }
    (made / "recipe.yaml").write_text(yaml.safe_dump(recipe, allow_unicode=True))
    done = run(
        "curate",
        str(made / "videos"),
        "-r",
        str(made / "recipe.yaml"),
        "-o",
        str(made / "ws"),
        "--engine",
        "inline",
        code=1,
    )
    assert "clips: 0 = 0 ok + 0 errors" in done.stdout
    assert "not applied: x␛[31m (y␛]0;owned␇␊error: all is lost)" in done.stdout
    assert harmless(done.stdout, done.stderr)
    return made


def test_what_stands_between_colons_stays_as_it_is() -> None:
    """Rich makes pictures of such words."""
    out = io.StringIO()
    console = PrintableConsole(file=out, width=80)
    console.print(outside("cam:100:.mp4 :v: [b]"))
    table = Table("name")
    table.add_row(outside("a:cat:b"))
    console.print(table)
    assert "cam:100:.mp4 :v: [b]" in out.getvalue()
    assert "a:cat:b" in out.getvalue()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["stats", "ws"], 0),
        (["stats", "ws", "--json"], 0),
        (["stats", "ws", "--csv"], 0),
        (["tiers", "ws"], 0),
        (["doctor", "-r", "recipe.yaml", "-o", f"ws{TITLE}"], 0),
        (["recipe", "validate", "recipe.yaml"], 0),
        (["curate", NAME, "-o", "other", "--engine", "inline"], 3),
        (["stats", f"no{TITLE}{RIGHT_TO_LEFT}\nerror: all is lost"], 3),
        (["curate", f"no{TITLE}\nerror: all is lost/", "-o", "other", "--engine", "inline"], 3),
        (["show", f"{TITLE}{COLOUR}", "-o", "ws"], 3),
        (["recipe", "validate", f"{TITLE}\nerror: all is lost"], 2),
        ([f"{TITLE}{COLOUR}"], 2),  # Click writes this message itself.
        (["stats", f"--{TITLE}"], 2),
        (["caption", "ws", f"ws{TITLE}"], 2),
    ],
)
def test_no_command_obeys_a_name(
    folder: Path, arguments: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    done = run(*arguments, code=code)
    assert harmless(done.stdout, done.stderr)
    if "--json" in arguments:
        # A program reads the name exactly as it is.
        assert json.loads(done.stdout)["not_applied"] == {f"x{COLOUR}": f"y{TITLE}\nerror: all is lost"}


def test_a_clip_with_such_a_name_and_captions(tmp_path: Path) -> None:
    from tests.curation.looking.test_report import hostile
    from tests.curation.tables import clip_id

    workspace = hostile(tmp_path / "ws")
    captions = workspace.captions.read().to_pylist()
    clips = workspace.clips.read()
    assert clips.num_rows
    assert captions
    rows = [{**row, "uri": STORED} for row in clips.to_pylist()]
    workspace.clips.append(type(clips).from_pylist(rows, schema=clips.schema))
    told = [
        {**row, "caption": f"A dog{TITLE}{RIGHT_TO_LEFT}\nerror: all is lost"} for row in captions if row["caption"]
    ]
    workspace.captions.append(type(clips).from_pylist(told, schema=workspace.captions.read().schema))
    shown = run("show", clip_id("1"), "-o", workspace.path).stdout
    assert "uri: a␛]0;owned␇b␛[31mc␊error: all is lost�gpj�2Jz.mp4" in shown
    assert "A dog␛]0;owned␇�␊error: all is lost" in shown
    assert harmless(shown)
    assert json.loads(run("show", clip_id("1"), "-o", workspace.path, "--json").stdout)["uri"].startswith(f"a{TITLE}b")


def test_the_trainer_obeys_no_name(tmp_path: Path) -> None:
    key = tmp_path / f"key{TITLE}{RIGHT_TO_LEFT}.json"
    done = run("tally", str(key), str(key), code=2, program=trainer)
    assert "key␛]0;owned␇�.json" in done.stderr
    assert harmless(done.stdout, done.stderr)
    done = run(f"{TITLE}", code=2, program=trainer)
    assert harmless(done.stdout, done.stderr)


def test_a_traceback_a_warning_and_a_log_line_are_shown_too(tmp_path: Path) -> None:
    """What the interpreter prints itself, in a process of its own."""
    code = """
import logging, sys, warnings
from longtake.curation.cli import look, main
from longtake.curation.looking import stats
def broken(*_, **__):
    warnings.warn(sys.argv[3])
    logging.getLogger("x").warning(sys.argv[3])
    raise ValueError(sys.argv[3])
stats.statistics = broken
main.main()
"""
    from tests.curation.tables import fill

    workspace = fill(tmp_path / "ws").path
    script = code.replace("sys.argv[3]", "TEXT").replace(
        "import logging", f"TEXT = {f'{TITLE}{RIGHT_TO_LEFT}x'!r}\nimport logging"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "stats", workspace], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[3], env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("␛]0;owned␇�x") >= 3, done.stderr
    assert harmless(done.stdout, done.stderr)


def test_a_recipe_goes_into_a_file_as_it_is(folder: Path) -> None:
    printed = run("recipe", "print", str(folder / "recipe.yaml")).stdout
    assert yaml.safe_load(printed)["description"] == f"{TITLE}{RIGHT_TO_LEFT}"


def test_colours_of_our_own_stay_and_nothing_else() -> None:
    out = io.StringIO()
    console = PrintableConsole(file=PrintableStream(out), force_terminal=True, width=80, color_system="standard")  # type: ignore[arg-type]
    table = Table(NAME)
    table.add_row(Text(NAME))
    console.print(f"[bold red]error:[/] {outside(NAME)}", table, NAME, Text(NAME), soft_wrap=True, markup=True)
    written = out.getvalue()
    assert "\x1b[1;31merror:\x1b[0m" in written
    for forbidden in (*FORBIDDEN, "\x1b[31mc"):
        assert forbidden not in written


@given(st.text())
def test_what_is_printable_is_shown_as_it_is_and_the_rest_by_as_many_others(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    shown.encode()
    assert printable(shown) == shown
    assert all(a == b or not a.isprintable() for a, b in zip(text, shown, strict=True))
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in shown)


def test_scripts_and_emoji_stay() -> None:
    for text in ("naïve café", "日本語　テスト", "नमस्ते", "👩‍👩‍👧", "مرحبا", "50 %\u00a0of", "می‌خواهم"):
        assert printable(text) == text
    assert printable("a\nb\tc\r", lines=True) == "a\nb\tc␍"


def test_workspace_paths_are_plain(folder: Path) -> None:
    """The name is in the manifest as it is: only what is shown changes."""
    (uri,) = Workspace(str(folder / "ws")).videos.read(["uri"])["uri"].to_pylist()
    assert TITLE in uri


# ── streams that are closed, full, or of another encoding ────────────────────────────────────────────────────────────


def in_shell(ending: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own. ending: of its line in a shell, such as a redirection."""
    return subprocess.run(
        ["/bin/sh", "-c", f'"$@" {ending}', "sh", sys.executable, "-m", "longtake", *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, **environment},
    )  # fmt: skip


def test_a_stream_that_is_closed_gets_nothing_and_stops_nothing(folder: Path) -> None:
    """Its number went to the next file that was opened, and every command ended with code 120."""
    for ending in (">&-", ">&- 2>&-", "<&- >&- 2>&-"):
        done = in_shell(ending, "stats", str(folder / "ws"))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert in_shell("2>&-", "stats", "nowhere").returncode == 3


def test_output_that_finds_no_room_is_told_without_a_traceback(folder: Path) -> None:
    for arguments in (
        ["stats", str(folder / "ws")],
        ["stats", str(folder / "ws"), "--json"],
        ["recipe", "print", "base"],
        ["--help"],
        ["curate", "--help"],
        ["--version"],
    ):
        done = in_shell("> /dev/full", *arguments)
        assert done.returncode == 3
        assert done.stderr.startswith("error: the output of this command cannot be written: No space left on device")
        assert "Traceback" not in done.stderr


def test_the_other_program_tells_of_it_too() -> None:
    command = ["/bin/sh", "-c", '"$@" > /dev/full', "sh", sys.executable, "-m", "longtake.presto", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        3, "longtake-presto: the output of this command cannot be written: No space left on device\n",
    )  # fmt: skip


def test_a_question_finds_no_answer_where_the_input_is_closed(folder: Path) -> None:
    """It ended in a traceback: "lost sys.stdin"."""
    done = in_shell("<&-", "forget", str(folder / "ws"), "nobody.mp4")
    assert done.returncode == 1
    assert "Aborted" in done.stderr
    assert "Traceback" not in done.stderr


def test_names_are_read_as_utf_8_or_not_at_all(folder: Path) -> None:
    """Names that are not ASCII were taken for other names, and a manifest in such a folder was called damaged."""
    done = in_shell("", "stats", str(folder / "ws"), LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: names of files are read as ascii here, and longtake stores them as UTF-8.")
    assert in_shell("", "stats", str(folder / "ws"), LC_ALL="C").returncode == 0


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (MemoryError(), "there is no memory left for this command"),
        (ImportError("libavformat.so: failed to map segment from shared object"), "there is no memory left"),
        (RuntimeError("can't start new thread"), "this command may start no further process or thread"),
        (BlockingIOError(errno.EAGAIN, "fork"), "this command may start no further process or thread"),
        (OSError(errno.EMFILE, "?"), "too many files are open"),
    ],
    ids=["memory", "library", "thread", "process", "files"],
)
def test_limits_of_a_process_are_told_in_words(
    fault: Exception, told: str, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr("longtake.curation.looking.stats.statistics", fail)
    done = CliRunner().invoke(app, ["stats", str(folder / "ws")])
    assert done.exit_code == 3
    assert done.stderr.startswith(f"error: {told}")


def test_what_an_encoding_lacks_is_written_as_its_escape(folder: Path) -> None:
    done = in_shell("", "stats", str(folder / "ws"), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "x\\u241b[31m" in done.stdout
    assert "\\xe4 is not a workspace" in in_shell("", "stats", "ä", PYTHONIOENCODING="ascii").stderr


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    command = f'cd "{tmp_path}/gone"; rmdir "{tmp_path}/gone"; exec "$@"'
    done = subprocess.run(
        ["/bin/sh", "-c", command, "sh", sys.executable, "-m", "longtake", "stats", "ws"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert "error: the folder that you are in is gone" in done.stderr
    assert "Traceback" not in done.stderr
