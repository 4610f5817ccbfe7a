"""The dataset as a Lance one: the table's columns, and `video`, a blob column that reads single clips, or parts of them.

    import lance
    clips = lance.dataset("clips.lance")
    clips.take_blobs("video", indices=[0])[0]  # a file: seek, read

Blobs of the second kind (file format 2.2, https://lance.org/guide/blob/) that are large lie in files of their own, byte by
byte what they hold. A Lance dataset refers to outside files by absolute address only, and would break when it is moved: so
the clips are written into it, and each file that is a clip again is replaced by a hard link to it. Lance changes no file.
"""

from __future__ import annotations

import filecmp
import os
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from longtake.manifests.dataset.shards import DatasetError
from longtake.manifests.folder import in_words, whole_folder

CLIPS_PER_FRAGMENT = 1000  # Clips that are on the disk twice for a while: at 15 s and 720p they take 5 to 10 GB.
_FORMAT = "2.2"


def write_lance(table: pa.Table, dataset: Path, folder: Path, clips_per_fragment: int = CLIPS_PER_FRAGMENT) -> Path:
    """Write the clips of `table` (see `manifests.shards`), whose paths begin at `dataset`, as the Lance dataset `folder`; an
    older one is removed first. Needs pylance. Raises DatasetError if a clip cannot be read, or Lance
    cannot write there."""
    import lance

    video = lance.blob_field("video", inline_size_threshold=0, dedicated_size_threshold=1)
    schema = table.schema.append(video)
    with whole_folder(folder) as part:
        fragments: list[Any] = []
        for first in range(0, table.num_rows, clips_per_fragment):
            rows = table.slice(first, clips_per_fragment)
            clips = [dataset / path for path in rows["path"].to_pylist()]
            if gone := [clip for clip in clips if not clip.is_file()]:
                raise DatasetError(f"{gone[0]} is missing: export again")
            blobs = lance.blob_array([clip.absolute().as_uri() for clip in clips])
            try:
                written = lance.fragment.write_fragments(
                    rows.append_column(video, blobs),
                    part,
                    schema=schema,
                    mode="create",
                    data_storage_version=_FORMAT,
                    external_blob_mode="ingest",
                )
            except OSError as error:  # Lance raises this for a path with control characters, among others.
                raise DatasetError(f"{folder}: Lance cannot write to this path: {in_words(error)}") from error
            for file in (file for fragment in written for file in fragment.files):
                _link(part / "data" / Path(file.path).stem, clips)
            fragments += written
        lance.LanceDataset.commit(part, lance.LanceOperation.Overwrite(schema, fragments))
    return folder


def _link(folder: Path, clips: list[Path]) -> None:
    """Replace the blobs in `folder`, one data file's own, that are the same as a clip by a link to it."""
    by_size = defaultdict(list)
    for clip in clips:
        by_size[clip.stat().st_size].append(clip)
    for file in list(folder.glob("*.blob")):
        for clip in by_size.get(file.stat().st_size, ()):
            if filecmp.cmp(file, clip, shallow=False):
                with suppress(OSError):  # The filesystem may have no links.
                    linked = file.with_suffix(".link")
                    os.link(clip, linked)
                    os.replace(linked, file)
                break
