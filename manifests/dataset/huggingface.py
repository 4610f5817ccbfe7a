"""The dataset as a Hugging Face one: `datasets.load_dataset(folder)`, and the Hub's viewer, find clips, captions and scores.

What they look for is a `metadata.parquet` beside the clips, whose column `file_name` says which file a row is of, and a block
of YAML at the head of README.md that names the data files (https://huggingface.co/docs/hub/datasets-data-files-configuration,
https://huggingface.co/docs/datasets/video_dataset). The clips are those of the dataset's folder; nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from longtake.manifests.folder import whole_file

METADATA = "metadata.parquet"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write_metadata(table: pa.Table, dataset: Path) -> Path:
    """Write `table` (see `manifests.shards`) as `dataset/metadata.parquet`, its `path` called `file_name`. It loads as the
    column `video`, of the type Video; the others keep their names and types."""
    names = ["file_name" if name == "path" else name for name in table.column_names]
    with whole_file(dataset / METADATA) as part:
        pq.write_table(table.rename_columns(names), part, compression="zstd")
    return dataset / METADATA


def front_matter(title: str, clips: int, splits: Sequence[str] | None = None) -> str:
    """The head of README.md: what the Hub reads. Says nothing of a licence, since each clip has its own (or none). splits: each
    in a folder of its own, with its table; None: all in this folder."""
    files = (
        [{"split": "train", "path": [METADATA, "clips/*/*.mp4"]}]
        if splits is None
        else [{"split": split, "path": [f"{split}/{METADATA}", f"{split}/*/*.mp4"]} for split in splits]
    )
    facts = {
        "pretty_name": title,
        "task_categories": ["text-to-video"],
        "size_categories": [next((name for most, name in _SIZES if clips < most), "1M<n<10M")],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    return f"---\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}---\n"
