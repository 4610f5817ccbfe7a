"""How large the files of a scan are, and so how many clips they come to, as a guess before any is opened."""

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
_REMOTE_CLIPS = 8.0  # A remote video whose size is not known is taken for so many.
# Remote videos whose size is asked for, as a sample of all, and seconds that their servers have to tell it. An address that leads
# nowhere says so within this time, and a local Ray takes longer than that to start.
_ASKED, _ASK_SECONDS = 8, 5.0


def clips_in(todo: pa.Table, sizes: Sequence[float], reach: Reach) -> float:
    """How many clips the videos come to, as a guess. sizes: in bytes, of those that are local."""
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
    """What their servers say of the sizes of files, in bytes, all asked at once: 0 for one that cannot be opened, None for one
    that nobody told in time, or that lies in an archive or a table, where to ask means to read."""
    sizes: list[float | None] = [None] * len(sources)

    def ask(number: int) -> None:
        try:
            with open_source(sources[number]) as file:
                sizes[number] = file.seek(0, os.SEEK_END)
        except Exception:  # The scan meets the same fault again, and reports it.
            sizes[number] = 0

    asked = [number for number, source in enumerate(sources) if container_of(source.uri) is None]
    # Daemons: a server that never answers keeps no command from ending.
    threads = [threading.Thread(target=ask, args=[number], daemon=True) for number in asked]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return list(sizes)


def file_sizes(wanted: pa.Table) -> npt.NDArray[np.float64]:
    """The size of each file, as it was listed; of members of archives, and where no listing told, as far as this machine can
    tell, else 0."""
    known: npt.NDArray[np.float64] = wanted["bytes"].to_numpy().astype(np.float64)
    for at in np.flatnonzero(np.isnan(known)).tolist():
        path = local_path(wanted["uri"][at].as_py())
        try:
            known[at] = os.stat(path).st_size if path else 0.0
        except (OSError, ValueError):  # A NUL in the name is a ValueError.
            known[at] = 0.0
    return known
