from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from longtake.manifests.dataset.huggingface import METADATA, front_matter, write_metadata
from tests.manifests.dataset.formats import COUNT, dataset


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The real package, with a cache of its own."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return datasets


def test_the_folder_loads_with_videos_and_typed_columns(tmp_path: Path, library: Any) -> None:
    folder, table = dataset(tmp_path / "my data #1")
    write_metadata(table, folder)
    # Neither the index nor tars count as data.
    (folder / "index.parquet").write_bytes((folder / METADATA).read_bytes())
    (folder / "shards").mkdir()
    (folder / "shards" / "shard-00000-of-00001.parquet").write_bytes((folder / METADATA).read_bytes())
    (folder / "README.md").write_text(front_matter('a "title": of <b>', COUNT) + "# Card\n", encoding="utf-8")
    loaded = library.load_dataset(str(folder))
    assert set(loaded) == {"train"}
    features = loaded["train"].features
    assert isinstance(features["video"], library.Video)
    assert features["flow"] == features["sharpness"] == library.Value("float64")
    assert features["caption"] == library.Value("string")
    assert features["num_frames"] == library.Value("int32")
    assert features["sub_captions"] == library.List(library.Value("string"))
    plain = loaded["train"].cast_column("video", library.Video(decode=False))
    assert len(plain) == COUNT
    for got, made in zip(plain, table.to_pylist(), strict=True):
        video, path = got.pop("video"), made.pop("path")
        assert video["bytes"] is None
        assert os.path.samefile(video["path"], folder / path)
        assert got == made


def test_without_its_table_nothing_loads(tmp_path: Path, library: Any) -> None:
    folder, table = dataset(tmp_path / "data")
    write_metadata(table, folder).unlink()
    (folder / "README.md").write_text(front_matter("title", COUNT), encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=METADATA):
        library.load_dataset(str(folder))


@pytest.mark.parametrize(
    ("clips", "size"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (250_000, "100K<n<1M"), (10**6, "1M<n<10M")]
)
def test_the_head_of_the_card_is_yaml(clips: int, size: str) -> None:
    head = front_matter("---\n: {a} 'b' \x00", clips)
    assert head.startswith("---\n")
    assert head.endswith("\n---\n")
    known = yaml.safe_load(head.removeprefix("---\n").removesuffix("---\n"))
    assert known["pretty_name"] == "---\n: {a} 'b' \x00"
    assert known["size_categories"] == [size]
