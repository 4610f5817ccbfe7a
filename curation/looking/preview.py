"""A page of captions: the keyframes of some clips over their sub-captions, to look at prompts with one's own eyes.

One HTML file that needs nothing else: pictures are in it, scripts are not. Captions are strangers' words, and escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

import cv2
import pyarrow as pa
import pyarrow.compute as pc

from longtake.captioning.base import decode
from longtake.captioning.checks import CaptionError
from longtake.curation.recipe import Recipe
from longtake.curation.stages.caption import similarity_limit
from longtake.curation.workspace import Workspace
from longtake.manifests.frames import StoredFrames, read_frames

PAGE = "captions.html"  # in the workspace
WIDTH = 320  # pixels of a picture on the page

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1700px; padding: 0 1.5rem; color: #1c1c1c; }
h1 { font-size: 1.3rem; } h2 { font: 600 .85rem ui-monospace, monospace; margin: 2.2rem 0 .3rem; }
.all { max-width: 75rem; margin: .2rem 0 .7rem; } .why { color: #a40000; }
.parts { display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)); gap: .8rem; }
.parts img { width: 100%; display: block; background: #ddd; } .parts p { margin: .35rem 0 0; }
.note { color: #666; font-size: .8rem; } .bad { color: #a40000; }
@media (max-width: 900px) { .parts { grid-template-columns: 1fr 1fr; } }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #e4e4e4; } .note { color: #999; }
  .why, .bad { color: #ff8a80; } }
"""
# Columns that tell of a fault where they are not 0.
_FAULTS = {
    "outside_band": "outside of the length band",
    "lead_ins": "lead-ins",
    "list_markers": "list markers",
    "echoes": "echoes of the prompt",
    "speculations": "words of speculation",
    "moves_wrong": "camera movements against the measured ones",
}


def write_page(workspace: Workspace, recipe: Recipe, clip_ids: Sequence[str]) -> str:
    """Write the page of these clips; where it lies."""
    ids = pa.array(clip_ids, pa.string())
    clips = workspace.clips.read(["clip_id", "video_id", "uri", "start", "end"])
    captions = workspace.captions.read()
    rows = {row["clip_id"]: row for row in captions.filter(pc.is_in(captions["clip_id"], ids)).to_pylist()}
    parts = [
        _clip(clip, rows.get(clip["clip_id"]), _frames(workspace, clip), recipe)
        for clip in clips.filter(pc.is_in(clips["clip_id"], ids)).sort_by("clip_id").to_pylist()
    ]
    counts: dict[str, int] = {}
    for clip_id in clip_ids:
        status = rows[clip_id]["status"] if clip_id in rows else "not captioned"
        counts[status] = counts.get(status, 0) + 1
    told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    page = "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            # whatever got past the escaping could still load and run nothing
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; style-src '
            "'unsafe-inline'\">",
            f"<title>Captions: {escape(recipe.name)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{len(parts)} clips, captioned by {escape(recipe.captioning.captioner)}: {escape(told)}</h1>",
            f'<p class="note">{escape(workspace.path)}, recipe {escape(recipe.name)}, {now}</p>',
            *parts,
            "</body></html>\n",
        ]
    )
    workspace.folder.write_whole(PAGE, page.encode("utf-8", "replace"))
    return f"{workspace.path}/{PAGE}"


def _frames(workspace: Workspace, clip: Mapping[str, Any]) -> StoredFrames | None:
    try:
        return read_frames(workspace.path, clip["video_id"], [clip["clip_id"]]).get(clip["clip_id"])
    except (OSError, pa.ArrowException):
        return None


def _clip(clip: Mapping[str, Any], row: Mapping[str, Any] | None, frames: StoredFrames | None, recipe: Recipe) -> str:
    row = row or {"status": "not captioned"}
    head = f"{clip['clip_id']} · {clip['uri']} · {clip['start']:.2f} to {clip['end']:.2f} s"
    parts = [f"<h2>{escape(head)}</h2>"]
    if row["status"] != "ok":
        parts.append(f'<p class="why">{escape(row["status"])}: {escape(row.get("reason") or "")}</p>')
    if row.get("caption"):
        parts.append(f'<p class="all">{escape(row["caption"])}</p>')
    parts.append(f'<p class="note">{_notes(row)}</p><div class="parts">')
    alike = row.get("text_similarity_detail") or []
    limit = similarity_limit(recipe)
    for i in range(5):
        picture = f'<img alt="" src="{_picture(frames.keyframes[i])}">' if frames and i < len(frames.keyframes) else ""
        text = escape(row["sub_captions"][i]) if row.get("sub_captions") else ""
        notes = [f"{frames.times[i]:.2f} s"] if frames and i < len(frames.times) else []
        if row.get("moves"):
            notes.append(escape(f"measured: {row['moves'][i]}"))
        if 0 < i <= len(alike):
            told = f"similarity to the one before {alike[i - 1]:.2f}"
            if limit is not None and alike[i - 1] > limit:
                told = f'<span class="bad">{told}: above the gate at {limit:g}</span>'
            notes.append(told)
        parts.append(f'<div>{picture}<p>{text}</p><p class="note">{"; ".join(notes)}</p></div>')
    return "".join([*parts, "</div>"])


def _notes(row: Mapping[str, Any]) -> str:
    told = [
        f"{name.replace('_', ' ')} {row[name]}"
        for name in (
            "model",
            "prompts",
            "attempts",
            "requests",
            "prompt_tokens",
            "completion_tokens",
            "language",
            "copies",
        )
        if row.get(name)
    ]
    bad = [f"{row[name]} {what}" for name, what in _FAULTS.items() if row.get(name)]
    if row.get("other_language"):
        bad.append("another language than asked for")
    faults = f' · <span class="bad">{escape("; ".join(bad))}</span>' if bad else ""
    return escape(" · ".join(told)) + faults


def _picture(encoded: bytes) -> str:
    """A smaller JPEG, as a data URI; nothing where it does not decode."""
    try:
        picture = decode(encoded, cv2.IMREAD_COLOR, "keyframe")
    except CaptionError:
        return ""
    height = max(1, round(picture.shape[0] * WIDTH / picture.shape[1]))
    small = cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA)
    data = bytes(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])[1])
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"
