"""What tests of the formats share: a dataset with texts that are meant to break them, and its rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from longtake.manifests.dataset.shards import dataset_schema, dataset_table
from tests.manifests.dataset.test_shards import row

HOSTILE = [
    """<script>alert(1)</script> " ' & </script> -->""",
    "\u202eright to left\u202c עברית \u200f",
    "x" * 10_000,
    "🎬👩‍👩‍👧 \U0001f1e9\U0001f1ea",
    "nul\x00 bell\x07 line\nbreak\r\ttab \\ \u2028 ],}",
    '{"$oid": "6b034ea78760ee4f8aec72d5"}',
    "",
]
COUNT = len(HOSTILE)


def rows() -> list[dict[str, Any]]:
    """A clip per hostile text, which is its caption, its sub-captions, its licence and the name of its video."""
    made = [
        row(
            i,
            path=f"clips/{i:02d}/clip{i:03d}.mp4",
            caption=text,
            sub_captions=[text] * 5,
            licence=text,
            uri=text or "v",
        )
        for i, text in enumerate(HOSTILE)
    ]
    made[-1] |= {"caption": None, "sub_captions": None, "licence": None, "flow": None}
    return made


def dataset(folder: Path) -> tuple[Path, pa.Table]:
    """The folder with its clips, whose contents are their ids, and the table; `sharpness` is another package's score."""
    for made in rows():
        clip = folder / made["path"]
        clip.parent.mkdir(parents=True)
        clip.write_bytes(made["clip_id"].encode())
    return folder, dataset_table(rows(), dataset_schema(("flow", "sharpness")))
