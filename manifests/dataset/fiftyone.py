"""The dataset as a FiftyOne one: `fiftyone.Dataset.from_dir(folder, dataset_type=fiftyone.types.FiftyOneDataset)`.

`metadata.json` says what fields there are, `samples.json` holds a document per clip, as FiftyOne's own export writes them
(https://docs.voxel51.com/user_guide/import_datasets.html#fiftyonedataset); neither is read by anything but FiftyOne, whose
importer puts both into its database. Scores and texts are fields, sub-captions are temporal detections on the frames that
they tell of, tier and verdict are tags. Clips are named relative to the folder: it stands beside them, and moves with them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from longtake.manifests.dataset.shards import MEANINGS
from longtake.manifests.folder import whole_folder

# A version older than any in use, so that every FiftyOne migrates the folder: FiftyOne refuses what is newer than
# itself.
VERSION = "1.0.0"
_FIELDS = "fiftyone.core.fields."
_OTHERWISE = {"path", "num_frames", "height", "width", "fps", "cap", "sub_captions", "tier", "verdict"}
_TAKEN = {"id", "filepath", "tags", "metadata", "created_at", "last_modified_at", "frames", "sub_captions"}


def write_samples(table: pa.Table, dataset: Path, folder: Path) -> Path:
    """Write the clips of `table` (see `manifests.dataset.shards`), whose paths begin at `dataset`, as `folder`, a folder of
    `dataset`; an older one is removed first. Raises OSError if a clip is missing."""
    fields = {column: _field_name(column) for column in table.column_names if column not in _OTHERWISE}
    with whole_folder(folder) as part:
        described = _description(table.schema, fields)
        (part / "metadata.json").write_text(json.dumps(described), encoding="ascii")
        # FiftyOne reads the file in the encoding of the locale, and ASCII is the same in all of them.
        with open(part / "samples.json", "w", encoding="ascii") as file:
            file.write('{"samples": [')
            for number, row in enumerate(_rows(table)):
                bytes_ = (dataset / row["path"]).stat().st_size
                file.write(",\n" if number else "\n")
                file.write(json.dumps(_sample(row, fields, bytes_), allow_nan=False))
            file.write("\n]}\n")
    return folder


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=1000):
        yield from batch.to_pylist()


def _field_name(column: str) -> str:
    """Another package may call its filter what FiftyOne does not take."""
    if column not in _TAKEN and re.fullmatch(r"[A-Za-z]\w*", column, re.ASCII):
        return column
    return "score_" + re.sub(r"\W", "_", column, flags=re.ASCII)


def _sample(row: Mapping[str, Any], fields: Mapping[str, str], bytes_: int) -> dict[str, Any]:
    clip, frames = row["clip_id"], row["num_frames"]
    texts: Sequence[str | None] = row["sub_captions"] or []
    parts = [
        {
            "_id": {"$oid": digits(clip, number)},
            "_cls": "TemporalDetection",
            "tags": [],
            "label": text,
            # Frames count from 1, and both ends are included.
            "support": [number * frames // len(texts) + 1, (number + 1) * frames // len(texts)],
        }
        for number, text in enumerate(texts)
    ]
    return {
        "_id": {"$oid": digits(clip)},
        "filepath": f"../{row['path']}",
        "tags": [row["tier"], row["verdict"]],
        "metadata": {
            "_cls": "VideoMetadata",
            "size_bytes": bytes_,
            "mime_type": "video/mp4",
            "frame_width": row["width"],
            "frame_height": row["height"],
            "frame_rate": row["fps"],
            "total_frame_count": frames,
            "duration": frames / row["fps"],
        },
        "_media_type": "video",
        "_rand": int(digits(clip, "rand")[:8], 16) / 2**32,  # FiftyOne draws random samples by this number.
        "sub_captions": {"_cls": "TemporalDetections", "detections": parts} if parts else None,
        **{field: row[column] for column, field in fields.items()},
    }


def digits(*names: object) -> str:
    """24 hex digits: the same clip has the same id in every export."""
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:24]


# metadata.json ------------------------------------------------------------------------------------------------------


def _description(schema: pa.Schema, fields: Mapping[str, str]) -> dict[str, Any]:
    frames = [*always(), field_of("frame_number", "FrameNumberField"), field_of("_sample_id", "ObjectIdField")]
    return {
        "version": VERSION,
        "media_type": "video",
        "sample_fields": [
            *always(),
            field_of("filepath", "StringField"),
            field_of("_rand", "FloatField"),
            field_of("tags", "ListField", subfield="StringField"),
            field_of("_media_type", "StringField"),
            field_of("metadata", "EmbeddedDocumentField", document="metadata.VideoMetadata", fields=_VIDEO),
            *(_column(schema.field(column), field) for column, field in fields.items()),
            field_of("sub_captions", "EmbeddedDocumentField", document="labels.TemporalDetections", fields=_DETECTIONS)
            | {"description": MEANINGS["sub_captions"]},
        ],
        "frame_fields": frames,
    }


def _column(column: pa.Field, field: str) -> dict[str, Any]:
    whole, number = pa.types.is_integer(column.type), pa.types.is_floating(column.type)
    kind = "IntField" if whole else "FloatField" if number else "StringField"
    return field_of(field, kind) | {"description": MEANINGS.get(column.name)}


def field_of(
    name: str, kind: str, *, subfield: str | None = None, document: str | None = None, fields: Sequence[Any] = ()
) -> dict[str, Any]:
    """A field of `metadata.json`. kind, subfield: of fiftyone.core.fields. document: below fiftyone.core; fields: those in it."""
    return {
        "name": name,
        "ftype": _FIELDS + kind,
        "embedded_doc_type": f"fiftyone.core.{document}" if document else None,
        "subfield": _FIELDS + subfield if subfield else None,
        "fields": list(fields),
        "db_field": "_id" if name == "id" else name,
        "description": None,
        "info": None,
        "read_only": name in ("created_at", "last_modified_at"),
    }


def always() -> list[dict[str, Any]]:
    """The fields that every document has."""
    ids = [field_of(name, "ObjectIdField") for name in ("id", "_dataset_id")]
    return [*ids, *(field_of(name, "DateTimeField") for name in ("created_at", "last_modified_at"))]


_VIDEO = [
    field_of("size_bytes", "IntField"),
    field_of("mime_type", "StringField"),
    field_of("frame_width", "IntField"),
    field_of("frame_height", "IntField"),
    field_of("frame_rate", "FloatField"),
    field_of("total_frame_count", "IntField"),
    field_of("duration", "FloatField"),
    field_of("encoding_str", "StringField"),
]
_DETECTION = [
    field_of("id", "ObjectIdField"),
    field_of("tags", "ListField", subfield="StringField"),
    field_of("label", "StringField"),
    field_of("confidence", "FloatField"),
    field_of("support", "FrameSupportField", subfield="IntField"),
]
_DETECTIONS = [
    field_of(
        "detections",
        "ListField",
        subfield="EmbeddedDocumentField",
        document="labels.TemporalDetection",
        fields=_DETECTION,
    )
]
