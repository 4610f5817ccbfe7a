"""The dataset as a Croissant file, for programs: what it is, which files it has, and of which type its columns are.

https://docs.mlcommons.org/croissant/docs/croissant-spec.html, 1.0. `mlcroissant validate` reads it without a network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from longtake.manifests.dataset.shards import MEANINGS

CROISSANT = "croissant.json"
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataBiases": "cr:dataBiases",
    "dataCollection": "cr:dataCollection",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "equivalentProperty": "cr:equivalentProperty",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "samplingRate": "cr:samplingRate",
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "personalSensitiveInformation": "cr:personalSensitiveInformation",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


@dataclass(frozen=True, slots=True)
class Published:
    """A dataset as it lies somewhere. url: of the page about it. files: the address below which its files lie. splits: the
    folders, each with a `metadata.parquet` and clips. licence: the one of all clips, or None. date: YYYY-MM-DD."""

    name: str
    description: str
    url: str
    files: str
    splits: Sequence[str]
    licence: str | None
    version: str
    date: str


def croissant(of: Published, schema: pa.Schema) -> str:
    """The file, JSON. schema: of the table that `metadata.parquet` holds, its `file_name` among the columns. The column `video`
    is the clip itself."""
    repository = {
        "@type": "cr:FileObject",
        "@id": "repository",
        "name": "repository",
        "description": "The repository that the files lie in.",
        "contentUrl": of.files,
        "encodingFormat": "git+https",
        # The specification's own value for a file without a hash.
        "sha256": "https://github.com/mlcommons/croissant/issues/80",
    }
    tables = _file_set("tables", "application/x-parquet", [f"{split}/metadata.parquet" for split in of.splits])
    clips = _file_set("clips", "video/mp4", [f"{split}/*/*.mp4" for split in of.splits])
    fields = [_field(field) for field in schema if _kind(field.type) is not None]
    video = {
        "@type": "cr:Field",
        "@id": "records/video",
        "name": "video",
        "description": "The clip: an MP4 file.",
        "dataType": "sc:VideoObject",
        "source": {"fileSet": {"@id": "clips"}, "extract": {"fileProperty": "content"}},
    }
    name = {
        "@type": "cr:Field",
        "@id": "records/file",
        "name": "file",
        "description": "The name of the clip's file without .mp4, which is its clip_id.",
        "dataType": "sc:Text",
        "source": {
            "fileSet": {"@id": "clips"},
            "extract": {"fileProperty": "filename"},
            "transform": {"regex": "([^/]*)\\.mp4"},
        },
        "references": {"fileSet": {"@id": "tables"}, "extract": {"column": "clip_id"}},
    }
    metadata = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": of.name,
        "description": of.description,
        "url": of.url,
        "version": of.version,
        "datePublished": of.date,
        "license": of.licence or f"{of.url}#licences",
        "citeAs": f"{of.name}, {of.url}",
        "distribution": [repository, tables, clips],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "records",
                "name": "records",
                "description": "One record per clip.",
                "field": [*fields, name, video],
            }
        ],
    }
    return json.dumps(metadata, indent=2, ensure_ascii=False) + "\n"


def _file_set(name: str, kind: str, includes: Sequence[str]) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "containedIn": {"@id": "repository"},
        "encodingFormat": kind,
        "includes": list(includes) if len(includes) > 1 else includes[0],
    }


def _field(field: pa.Field) -> dict[str, Any]:
    repeated = pa.types.is_list(field.type)
    metadata = {
        "@type": "cr:Field",
        "@id": f"records/{field.name}",
        "name": field.name,
        "description": MEANINGS.get(
            "path" if field.name == "file_name" else field.name, "score of the filter of this name"
        ),
        "dataType": _kind(field.type),
        "source": {"fileSet": {"@id": "tables"}, "extract": {"column": field.name}},
    }
    return metadata | ({"repeated": True} if repeated else {})


def _kind(kind: pa.DataType) -> str | None:
    """The data type of a column; None of one that Croissant's columns cannot say, such as a struct."""
    if pa.types.is_list(kind):
        return _kind(kind.value_type)
    if pa.types.is_integer(kind):
        return "sc:Integer"
    if pa.types.is_floating(kind):
        return "sc:Float"
    return "sc:Text" if pa.types.is_string(kind) else None
