"""The application `longtake`: its console, its exit codes, and the decorator that turns faults of the set-up into them."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import IO, Annotated, Any, NoReturn

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from typer.core import TyperGroup

from longtake.curation.errors import SetupError
from longtake.terminal import ENVIRONMENT, below, printable, unwritable, wrapped_streams

DONE, ROW_ERRORS, USAGE = 0, 1, 2


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


class PrintableConsole(Console):
    """A console that shows text of strangers and obeys none of it: the text of every segment is made printable, while
    colours and movements of the cursor, which rich alone makes, stay."""

    def __init__(self, **how: Any) -> None:
        # Rich would colour parts of names, and show a picture in place of a word between two colons.
        super().__init__(highlight=False, emoji=False, **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            if segment.control is None and not segment.text.isprintable():
                yield Segment(printable(segment.text, lines=True), segment.style)
            else:
                yield segment

    @property
    def file(self) -> IO[str]:
        """The stream below `longtake.terminal`'s wrapper, which would make the colours printable, too."""
        stream: IO[str] = below(super().file)
        return stream

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file


def outside(text: str) -> str:
    """A text from outside as a part of one line: no markup, no line ends."""
    return escape(printable(text))


class Commands(TyperGroup):
    """The commands; while one of them runs, whatever is written to the standard streams is made printable, click's own
    messages among it."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        with wrapped_streams():
            try:
                return super().main(*args, **kwargs)
            except OSError as error:
                if (told := unwritable(error)) is None:
                    raise
                errors.print(f"[bold red]error:[/] {told}", soft_wrap=True)
                raise SystemExit(ENVIRONMENT) from None


app = typer.Typer(
    name="longtake",
    cls=Commands,
    help="Curate raw video into captioned training shards: scan → score → caption → export.",
    epilog=examples("longtake curate videos/ -o workspace", "longtake stats workspace"),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from longtake import __version__

        typer.echo(f"longtake {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """The options of `longtake` itself."""


console = PrintableConsole()
errors = PrintableConsole(stderr=True)


def _fail(message: str, code: int) -> NoReturn:
    from longtake.manifests.uris import redact

    # Further lines are indented: a line end in a file's name cannot make a line that looks like a message of this
    # program.
    first, *rest = redact(message).split("\n")
    lines = [first, *(line if line.startswith("  ") else f"  {line}" for line in rest)]
    errors.print(f"[bold red]error:[/] {escape(chr(10).join(lines))}", soft_wrap=True)
    raise typer.Exit(code)


def _is_there(folder: str) -> bool:
    try:
        os.path.abspath(folder)
    except FileNotFoundError:
        return False
    return True


def _of_limits(error: Exception) -> str | None:
    """What to say where this process may take no more of something; None: the error is of something else."""
    if isinstance(error, MemoryError) or "failed to map segment" in str(error):
        return "there is no memory left for this command: free some, or let it take more (ulimit -v)"
    if "can't start new thread" in str(error) or getattr(error, "errno", None) == errno.EAGAIN:
        return "this command may start no further process or thread: end others, or let it start more (ulimit -u)"
    if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
        return "too many files are open: let this command open more (ulimit -n)"
    return None


@contextmanager
def _faults() -> Iterator[None]:
    """Faults of the set-up, in words, as exit codes."""
    from longtake.curation.recipe import RecipeError
    from longtake.filters.base import FilterUnavailable
    from longtake.manifests.dataset.shards import DatasetError
    from longtake.manifests.lock import WorkspaceBusy
    from longtake.manifests.store import StoreError

    kept = "what is done is kept, and the same command goes on from here"
    try:
        yield
    except RecipeError as error:
        _fail(str(error), USAGE)
    except (SetupError, StoreError, WorkspaceBusy, FilterUnavailable, DatasetError) as error:
        _fail(str(error), ENVIRONMENT)
    except OSError as error:
        if error.filename is not None and error.errno is not None:
            _fail(f"{error.filename}: {error.strerror}; {kept}", ENVIRONMENT)
        if not _is_there(os.curdir):
            _fail("the folder that you are in is gone: cd to one that is there", ENVIRONMENT)
        if (told := unwritable(error)) is not None or (told := _of_limits(error)) is not None:
            _fail(f"{told}; {kept}", ENVIRONMENT)
        raise
    except (MemoryError, RuntimeError, ImportError) as error:
        if (told := _of_limits(error)) is None:
            raise
        _fail(f"{told}; {kept}", ENVIRONMENT)
    except KeyboardInterrupt:
        errors.print(f"stopped; {kept}")
        raise typer.Exit(130) from None


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM stops a command as Ctrl-C does: batch systems, containers and services send it some seconds before they kill. A
    handler of its own, since a shell's background commands ignore SIGINT."""
    if threading.current_thread() is not threading.main_thread():  # Python takes signals in the main thread only.
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def command(function: Callable[..., None]) -> Callable[..., None]:
    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        with _faults(), _stoppable():
            function(*args, **kwargs)

    return guarded


def allow_all(hosts: Sequence[str] | None) -> None:
    """Remember hosts that captioners may send pictures and keys to. Raises typer.BadParameter for what is no host."""
    if not hosts:
        return
    from longtake.captioning.permission import PermissionFault, allow

    for host in hosts:
        try:
            allow(host)
        except ValueError as error:
            raise typer.BadParameter(f"--allow-endpoint: {error}") from None
        except PermissionFault as error:
            raise SetupError(str(error)) from None


def one_workspace(argument: str | None, option: str | None) -> str:
    """The workspace, given as an argument or with -o. Raises typer.BadParameter unless it is given once."""
    if (argument is None) == (option is None):
        raise typer.BadParameter("give the workspace once: as an argument, or with -o")
    return argument or option or ""
