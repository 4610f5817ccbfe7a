from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longtake.manifests.dataset.fiftyone import write_samples
from longtake.manifests.dataset.shards import dataset_schema, dataset_table
from tests.manifests.dataset.formats import COUNT, dataset, rows
from tests.manifests.dataset.test_shards import row

# FiftyOne 1.22.1 itself exports this for such fields: of its database, by name.
FIELDS = {
    "id": ("_id", "ObjectIdField", None),
    "filepath": ("filepath", "StringField", None),
    "tags": ("tags", "ListField", None),
    "metadata": ("metadata", "EmbeddedDocumentField", "fiftyone.core.metadata.VideoMetadata"),
    "created_at": ("created_at", "DateTimeField", None),
    "last_modified_at": ("last_modified_at", "DateTimeField", None),
    "_rand": ("_rand", "FloatField", None),
    "_dataset_id": ("_dataset_id", "ObjectIdField", None),
    "_media_type": ("_media_type", "StringField", None),
    "flow": ("flow", "FloatField", None),
    "caption": ("caption", "StringField", None),
    "sub_captions": ("sub_captions", "EmbeddedDocumentField", "fiftyone.core.labels.TemporalDetections"),
}


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text(encoding="ascii"))


def test_fields_are_those_of_fiftyone(tmp_path: Path) -> None:
    folder, table = dataset(tmp_path)
    known = read(write_samples(table, folder, folder / "fiftyone"), "metadata")
    fields = {field["name"]: field for field in known["sample_fields"]}
    assert known["media_type"] == "video"
    for name, (stored, kind, document) in FIELDS.items():
        field = fields[name]
        assert (field["db_field"], field["embedded_doc_type"]) == (stored, document), name
        assert field["ftype"] == f"fiftyone.core.fields.{kind}", name
    stored = {field["db_field"] for field in known["sample_fields"]}
    for sample in read(folder / "fiftyone", "samples")["samples"]:
        assert set(sample) <= stored


def test_columns_of_whole_numbers_are_fields_of_them(tmp_path: Path) -> None:
    folder, table = dataset(tmp_path)
    table = table.append_column("crop_width", pa.array(range(table.num_rows), pa.int32()))
    known = read(write_samples(table, folder, folder / "fiftyone"), "metadata")
    (field,) = (field for field in known["sample_fields"] if field["name"] == "crop_width")
    assert field["ftype"] == "fiftyone.core.fields.IntField"


def test_samples_say_what_the_table_says(tmp_path: Path) -> None:
    folder, table = dataset(tmp_path)
    samples = read(write_samples(table, folder, folder / "fiftyone"), "samples")["samples"]
    assert len({sample["_id"]["$oid"] for sample in samples}) == COUNT
    for sample, made in zip(samples, rows(), strict=True):
        assert os.path.samefile(folder / "fiftyone" / sample["filepath"], folder / made["path"])
        assert sample["metadata"]["size_bytes"] == len(made["clip_id"])
        assert sample["metadata"]["duration"] == 15
        assert sample["tags"] == ["pretrain", "kept"]
        assert (sample["caption"], sample["uri"], sample["flow"]) == (made["caption"], made["uri"], made["flow"])
        assert json.loads(sample["protocols"]) == made["protocols"]
        parts = sample["sub_captions"]["detections"] if sample["sub_captions"] else None
        assert (parts and [part["label"] for part in parts]) == made["sub_captions"]
        assert 0 <= sample["_rand"] < 1


@given(frames=st.integers(10, 2000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
def test_parts_cover_each_frame_once(frames: int, tmp_path: Path) -> None:
    table = dataset_table([row(0, num_frames=frames)])
    (tmp_path / "clips").mkdir(exist_ok=True)
    (tmp_path / "clips" / "clip000.mp4").touch()
    (sample,) = read(write_samples(table, tmp_path, tmp_path / "fiftyone"), "samples")["samples"]
    supports = [part["support"] for part in sample["sub_captions"]["detections"]]
    assert [n for first, last in supports for n in range(first, last + 1)] == list(range(1, frames + 1))


def test_again_it_is_the_same(tmp_path: Path) -> None:
    folder, table = dataset(tmp_path)
    once, twice = (
        {path.name: path.read_bytes() for path in write_samples(table, folder, folder / "fiftyone").iterdir()}
        for _ in range(2)
    )
    assert once == twice
    assert set(once) == {"metadata.json", "samples.json"}


def test_scores_that_it_has_other_names_for(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "clip000.mp4").touch()
    table = dataset_table([row(0, **{"tags": 1.0, "a.b": 2.0})], dataset_schema(("flow", "tags", "a.b", "_x", "$")))
    folder = write_samples(table, tmp_path, tmp_path / "fiftyone")
    (sample,) = read(folder, "samples")["samples"]
    assert (sample["tags"], sample["score_tags"], sample["score_a_b"]) == (["pretrain", "kept"], 1.0, 2.0)
    assert {"score__x", "score__"} <= {field["name"] for field in read(folder, "metadata")["sample_fields"]}


def test_of_no_clips(tmp_path: Path) -> None:
    assert read(write_samples(dataset_table([]), tmp_path, tmp_path / "fiftyone"), "samples") == {"samples": []}


# The real one, where it is installed: 0.8 GB, so not in the extra `dev`. Its package fetches a MongoDB when it is installed.
# Where that cannot be had, its classes still read what is written; to import a dataset, or to query it, takes the database.


def test_fiftyones_own_classes_read_it(tmp_path: Path) -> None:
    fiftyone = pytest.importorskip("fiftyone")
    from bson import json_util
    from fiftyone.core.odm.dataset import DatasetDocument

    folder, table = dataset(tmp_path)
    inside = write_samples(table, folder, folder / "fiftyone")
    described = DatasetDocument.from_dict(json_util.loads((inside / "metadata.json").read_text(encoding="utf-8")))
    assert {"flow", "caption", "sub_captions", "protocols"} <= {field.name for field in described.sample_fields}
    written = json_util.loads((inside / "samples.json").read_text(encoding="utf-8"))["samples"]
    for sample, expected in zip(map(fiftyone.Sample.from_dict, written), table.to_pylist(), strict=True):
        assert (sample.media_type, sample["flow"], sample["caption"]) == (
            "video",
            expected["flow"],
            expected["caption"],
        )
        parts = sample.sub_captions.detections if sample.sub_captions else None
        assert (parts and [part.label for part in parts]) == expected["sub_captions"]


@pytest.fixture
def imported(tmp_path: Path) -> Iterator[tuple[Any, Path, Any]]:
    fiftyone = pytest.importorskip("fiftyone")
    try:
        fiftyone.list_datasets()
    except Exception as error:
        pytest.skip(f"FiftyOne's database does not start: {error}")
    folder, table = dataset(tmp_path / "my data #1")
    inside = write_samples(table, folder, folder / "fiftyone")
    made = fiftyone.Dataset.from_dir(dataset_dir=str(inside), dataset_type=fiftyone.types.FiftyOneDataset)
    yield made, folder, table
    made.delete()


def test_fiftyone_imports_it(imported: tuple[Any, Path, Any]) -> None:
    made, folder, table = imported
    assert made.media_type == "video"
    for sample, expected in zip(made, table.to_pylist(), strict=True):
        assert os.path.samefile(sample.filepath, folder / expected["path"])
        assert sample.metadata.total_frame_count == 450
        for name in ("clip_id", "uri", "caption", "licence", "flow", "sharpness", "start", "protocols"):
            assert sample[name] == expected[name]
        parts = sample.sub_captions.detections if sample.sub_captions else None
        assert (parts and [part.label for part in parts]) == expected["sub_captions"]
    assert made.count_values("tags") == {"pretrain": COUNT, "kept": COUNT}
    assert made.bounds("flow") == (40, 40 + COUNT - 2)
    assert len(made.to_clips("sub_captions")) == 5 * (COUNT - 1)
