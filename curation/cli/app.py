"""The application `longtake`: its console, its exit codes, and the decorator that turns faults of the set-up into them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from longtake.curation.errors import SetupError

DONE, ROW_ERRORS, USAGE, ENVIRONMENT = 0, 1, 2, 3


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


app = typer.Typer(
    name="longtake",
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


console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def _fail(message: str, code: int) -> NoReturn:
    errors.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    raise typer.Exit(code)


@contextmanager
def _faults() -> Iterator[None]:
    """Faults of the set-up, in words, as exit codes."""
    from longtake.curation.recipe import RecipeError
    from longtake.filters.base import FilterUnavailable
    from longtake.manifests.dataset.shards import DatasetError
    from longtake.manifests.lock import WorkspaceBusy
    from longtake.manifests.store import StoreError

    try:
        yield
    except RecipeError as error:
        _fail(str(error), USAGE)
    except (SetupError, StoreError, WorkspaceBusy, FilterUnavailable, DatasetError) as error:
        _fail(str(error), ENVIRONMENT)
    except OSError as error:
        if error.errno is None or error.filename is None:
            raise
        kept = "what is done is kept, and the same command goes on from here"
        _fail(f"{error.filename}: {error.strerror}; {kept}", ENVIRONMENT)
    except KeyboardInterrupt:
        errors.print("stopped; what is done is kept, and the same command goes on from here")
        raise typer.Exit(130) from None


def command(function: Callable[..., None]) -> Callable[..., None]:
    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        with _faults():
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
