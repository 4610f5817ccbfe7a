"""Where a video lies: URIs, and the local paths among them."""

from __future__ import annotations

from pathlib import Path

import fsspec


def local_path(uri: str) -> Path | None:
    """The local path that `uri` names, or None if it is remote."""
    if uri.startswith("file://"):
        return Path(fsspec.core.strip_protocol(uri))
    return None if "://" in uri else Path(uri).absolute()
