"""`longtake report` and `longtake studio`: looking at a workspace instead of reading about it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from longtake.curation.errors import SetupError

WorkspaceArgument = Annotated[str, typer.Argument(metavar="WORKSPACE", help="The workspace: a folder or a URI.")]
RecipeName = Annotated[
    str | None,
    typer.Option("--recipe", "-r", metavar="NAME_OR_FILE", help="Default: the workspace's own, else embedded."),
]


def add_inspect(
    app: typer.Typer, command: Callable[[Callable[..., None]], Callable[..., None]], console: Console
) -> None:
    """Add the commands. command: turns faults of the set-up into exit codes."""

    @app.command(epilog="\b\nExamples:\n  longtake report workspace -o report.html")
    @command
    def report(
        workspace: WorkspaceArgument,
        output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("report.html"),
        recipe: RecipeName = None,
    ) -> None:
        """Write a page that shows it all. One HTML file: funnels, scores, clips on both sides of each gate, errors."""
        from longtake.curation.startup import leave_pandas_out

        leave_pandas_out()
        from longtake.curation.report.page import write_report
        from longtake.curation.workspace import Workspace

        target = Workspace(workspace)
        target.must_exist()
        page = write_report(target, target.recipe(recipe))
        try:
            output.write_bytes(page)
        except OSError as error:
            raise SetupError(f"cannot write {output}: {error.strerror}") from error
        console.print(f"report: {escape(str(output))} ({len(page) / 1e6:.1f} MB)", soft_wrap=True)

    @app.command(epilog="\b\nExamples:\n  longtake studio workspace\n  longtake studio workspace -r mine.yaml --port 0")
    @command
    def studio(
        workspace: WorkspaceArgument,
        recipe: RecipeName = None,
        host: Annotated[
            str, typer.Option(help="The address to listen on; other than this machine's own, a token is asked for.")
        ] = "127.0.0.1",
        port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8765,
    ) -> None:
        """Move thresholds in a browser and see what changes. A local page; nothing is written until Save is pressed."""
        from longtake.curation.startup import leave_pandas_out

        leave_pandas_out()
        import secrets

        from longtake.curation.studio.session import Session
        from longtake.curation.workspace import Workspace

        target = Workspace(workspace)
        target.must_exist()
        session = Session(target, target.recipe(recipe))
        session.begin()  # reads while the server is imported
        try:
            from longtake.curation.studio.server import LOOPBACK, address, listen, serve
        except ModuleNotFoundError as error:
            raise SetupError(f"the studio needs {error.name}: pip install 'longtake[studio]'") from error
        bound = listen(host, port)
        token = None if host in LOOPBACK else secrets.token_urlsafe(24)
        console.print(f"studio: {escape(address(bound, host, token))}  (Ctrl-C ends it)", soft_wrap=True)
        with suppress(KeyboardInterrupt):  # the way to end it
            serve(session, bound, token)
