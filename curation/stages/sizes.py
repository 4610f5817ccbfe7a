"""The sizes of the files of a scan, and by them a guess at the number of clips, before any film is opened."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longtake.curation.access import Reach, Source, open_source, source_of_row
from longtake.manifests.folder import local_path
from longtake.manifests.members import container_of

# Bytes that 15 s of film hold, as a rule, for an estimate of a run.
_CLIP_BYTES = 9 * 2**20
_REMOTE_CLIPS = 8.0  # Clips. A remote video whose size is not known counts as this many.
# The size is asked of this number of remote videos, as a sample of all, and their servers have these seconds to answer. A wrong
# address fails within this time, and a local Ray takes longer than that to start.
_ASKED, _ASK_SECONDS = 8, 5.0


def clips_in(todo: pa.Table, sizes: Sequence[float], reach: Reach) -> float:
    """A guess at the number of clips in the videos. sizes: in bytes; those of remote videos are not used."""
    remote = np.array([local_path(uri) is None for uri in todo["uri"].to_pylist()])
    here: float = sum(max(0.1, size / _CLIP_BYTES) for size in np.asarray(sizes)[~remote].tolist())
    if not remote.any():
        return here
    several = np.flatnonzero(remote)
    some = several[np.linspace(0, len(several) - 1, min(_ASKED, len(several))).astype(int)]
    sources = [source_of_row(row, reach) for row in todo.take(some).to_pylist()]
    each: list[float] = [
        _REMOTE_CLIPS if size is None else max(0.1, size / _CLIP_BYTES) for size in remote_sizes(sources)
    ]
    return here + len(several) * sum(each) / len(each)


def remote_sizes(sources: Sequence[Source], seconds: float = _ASK_SECONDS) -> list[float | None]:
    """The sizes of files, in bytes, as their servers report them, all asked at once: 0 for a file that cannot be opened. None for
    a file whose server did not answer in time, or that lies in an archive or a table, which would have to be read."""
    sizes: list[float | None] = [None] * len(sources)

    def ask(number: int) -> None:
        try:
            with open_source(sources[number]) as file:
                sizes[number] = file.seek(0, os.SEEK_END)
        except Exception:  # The scan meets the same fault again, and reports it.
            sizes[number] = 0

    asked = [number for number, source in enumerate(sources) if container_of(source.uri) is None]
    # The threads are daemons, so that a server that never answers keeps no command from ending.
    threads = [threading.Thread(target=ask, args=[number], daemon=True) for number in asked]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return list(sizes)


def file_sizes(wanted: pa.Table) -> npt.NDArray[np.float64]:
    """The size of each file in bytes, as it was listed. For a member of an archive, and where the listing has no size, this
    is what this machine finds without reading, or else 0."""
    known: npt.NDArray[np.float64] = wanted["bytes"].to_numpy().astype(np.float64)
    for at in np.flatnonzero(np.isnan(known)).tolist():
        path = local_path(wanted["uri"][at].as_py())
        try:
            known[at] = os.stat(path).st_size if path else 0.0
        except (OSError, ValueError):  # A NUL in the name is a ValueError.
            known[at] = 0.0
    return known
