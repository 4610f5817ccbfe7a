"""The dataset as WebDataset tars: for each clip `<clip_id>.mp4`, `.json` (its row) and `.txt` (its overall caption).

The same table gives the same bytes: clips by id, no owner, no time. Each tar takes its name when it is whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from longtake.manifests.dataset.shards import DatasetError
from longtake.manifests.folder import whole_file

_KEY = re.compile(r"[A-Za-z0-9_-]+")  # A dot would begin the extension, a slash a folder.


def write_tars(table: pa.Table, dataset: Path, folder: Path, clips_per_tar: int) -> list[Path]:
    """Write the clips of `table` (see `manifests.dataset.shards`), whose paths begin at `dataset`, to `folder/shard-000000.tar`
    and so on; those tars' paths. The tars of an earlier export are removed first; a table without rows gives none.

    Raises DatasetError if a clip is missing or its file has another checksum than its row.
    """
    if clips_per_tar < 1:
        raise DatasetError(f"clips_per_tar must be at least 1, not {clips_per_tar}")
    for old in sorted(folder.glob("shard-*.tar")):
        old.unlink()
    table = table.sort_by("clip_id")
    paths = []
    for number, first in enumerate(range(0, table.num_rows, clips_per_tar)):
        path = folder / f"shard-{number:06d}.tar"
        with whole_file(path) as part, tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as tar:
            for row in table.slice(first, clips_per_tar).to_pylist():
                _add_clip(tar, row, dataset)
        paths.append(path)
    return paths


def _add_clip(tar: tarfile.TarFile, row: Mapping[str, Any], dataset: Path) -> None:
    key = row["clip_id"]
    if not _KEY.fullmatch(key):
        raise DatasetError(f"clip id {key!r} cannot name files in a WebDataset: letters, digits, - and _ only")
    text = json.dumps(row, ensure_ascii=False, allow_nan=False).encode()  # The keys keep the order of the schema.
    _add(tar, f"{key}.json", io.BytesIO(text), len(text))
    path = dataset / row["path"]
    try:
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != row["sha256"]:
                raise DatasetError(f"clip {key}: {path} is not the file that was exported: export again")
            size = file.tell()
            file.seek(0)
            _add(tar, f"{key}.mp4", file, size)
    except FileNotFoundError as error:
        raise DatasetError(f"clip {key}: {path} is missing: export again") from error
    caption = (row["caption"] or "").encode()
    _add(tar, f"{key}.txt", io.BytesIO(caption), len(caption))


def _add(tar: tarfile.TarFile, name: str, content: IO[bytes], size: int) -> None:
    # A new TarInfo has mode 0644, owner 0 and time 0, so that equal clips make equal archives.
    entry = tarfile.TarInfo(name)
    entry.size = size
    tar.addfile(entry, content)
