"""The command line, `longtake`. Commands are thin: check the arguments, call one function, show the result."""

from __future__ import annotations

import gc
import logging

from longtake.curation.cli import run  # The help names commands in the order of these imports.

# isort: split
from longtake.curation.cli import compare, look, marks, models, plan, recipes, status, submit
from longtake.curation.cli.app import app
from longtake.terminal import check_names, make_ready, wrap_streams

__all__ = ["app", "compare", "look", "main", "marks", "models", "plan", "recipes", "run", "status", "submit"]


# Loggers of clients of stores. They tell of each try with a traceback; what a source gave is in the row's error.
_CLIENTS = ("gcsfs", "s3fs", "adlfs", "fsspec", "botocore", "aiobotocore", "azure", "asyncio")


def main() -> None:
    """Entry point of `longtake`."""
    for name in _CLIENTS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Late imports make 10⁵ objects; a collection after every 700 of them, the default, takes 0.2 s in all.
    gc.set_threshold(50_000, 20, 20)
    make_ready()
    wrap_streams()
    check_names()
    app()
