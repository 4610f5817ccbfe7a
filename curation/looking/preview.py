"""A page of captions: the keyframes of some clips over their sub-captions, to look at prompts with one's own eyes.

One HTML file that needs nothing else: pictures are in it, scripts are not. `preview.html.jinja` says how it looks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.clip_table import UNDER_SCAN, CurrentClips, written_captions
from longtake.curation.looking.html import render
from longtake.curation.looking.report.clips import thumbnails
from longtake.curation.recipe import Recipe
from longtake.curation.stages.caption import ready, similarity_limit
from longtake.curation.workspace import Workspace

PAGE = "captions.html"  # The page's name in the workspace.
WIDTH = 320  # Pixels: the width of a picture on the page.
QUALITY = 85  # Quality of its JPEG, high because the page is for a close look.
# Characters of a caption on the page. A caption is shown as a whole, but a model may write without end.
LONGEST = 10_000

_NO_CAPTION = "not captioned"  # The status of a clip without a row of captions.
# Columns that say how a caption was made, where they are not empty.
_NOTED = ("model", "prompts", "attempts", "requests", "prompt_tokens", "completion_tokens", "language", "copies")
# Columns in which a number other than 0 is a fault.
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
    facts = [
        _clip(workspace, clip, rows.get(clip["clip_id"]), similarity_limit(recipe))
        for clip in clips.filter(pc.is_in(clips["clip_id"], ids)).sort_by("clip_id").to_pylist()
    ]
    statuses = Counter(rows[clip_id]["status"] if clip_id in rows else _NO_CAPTION for clip_id in clip_ids)
    cost = cost_so_far(workspace, recipe)
    page = render(
        "preview.html.jinja",
        recipe=recipe.name,
        captioner=recipe.captioning.captioner,
        workspace=workspace.path,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        statuses=", ".join(f"{count} {status}" for status, count in sorted(statuses.items())),
        cost=cost.told() if cost else "",
        clips=facts,
        longest=LONGEST,
    )
    workspace.write_file(PAGE, page.encode())
    return f"{workspace.path}/{PAGE}"


@dataclass(frozen=True, slots=True)
class Cost:
    """What captions have cost. clips: that were paid for by this captioner under these prompts; left: that have no captions yet.
    money: in the currency of the recipe's prices; None: it names none."""

    clips: int
    left: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    money: float | None

    def told(self) -> str:
        """In words, a clip on average, and all that is left at this rate."""
        n = self.clips
        each = (
            f"{self.requests / n:.1f} requests, {self.prompt_tokens / n:,.0f} prompt tokens and "
            f"{self.completion_tokens / n:,.0f} completion tokens a clip"
        )
        rest = (
            f"{self.left:,} clips are left: at this rate {self.left * self.prompt_tokens / n:,.0f} prompt tokens and "
            f"{self.left * self.completion_tokens / n:,.0f} completion tokens"
        )
        if self.money is not None:
            each += f", {self.money / n:.5f} by the recipe's prices"
            rest += f", {self.left * self.money / n:,.2f}"
        return f"{n:,} clips so far: {each}. {rest}."


def cost_so_far(workspace: Workspace, recipe: Recipe) -> Cost | None:
    """The cost of the captions that were written under this recipe; None where no model was asked."""
    numbers = ["requests", "prompt_tokens", "completion_tokens"]
    written, _ = written_captions(workspace, recipe, [*UNDER_SCAN, *numbers])
    paid = written.filter(pc.greater(pc.fill_null(written["requests"], 0), 0))
    if not paid.num_rows:
        return None
    ids = ready(workspace, recipe)
    current = CurrentClips.of(workspace).among(written)
    left = len(ids) - pc.sum(pc.is_in(ids, value_set=current["clip_id"].combine_chunks())).as_py()
    requests, prompt, completion = (int(pc.sum(paid[name]).as_py() or 0) for name in numbers)
    settings = recipe.captioning.settings
    prices = settings.get("prompt_price"), settings.get("completion_price")
    known = isinstance(prices[0], int | float) and not isinstance(prices[0], bool)
    money = (prompt * float(prices[0] or 0) + completion * float(prices[1] or 0)) / 1e6 if known else None
    return Cost(paid.num_rows, left, requests, prompt, completion, money)


def _clip(
    workspace: Workspace, clip: Mapping[str, Any], row: Mapping[str, Any] | None, limit: float | None
) -> dict[str, Any]:
    """limit: the greatest similarity of neighbours that a gate allows."""
    row = row or {"status": _NO_CAPTION}
    pictures, times = thumbnails(workspace, clip["video_id"], clip["clip_id"], WIDTH, QUALITY)
    alike = row.get("text_similarity_detail") or []
    parts = []
    for i in range(5):
        notes = [_note(f"{times[i]:.2f} s")] if i < len(times) else []
        if row.get("moves"):
            notes.append(_note(f"measured: {row['moves'][i]}"))
        if 0 < i <= len(alike):
            told = f"similarity to the one before {alike[i - 1]:.2f}"
            over = limit is not None and alike[i - 1] > limit
            notes.append(_note(f"{told}: above the gate at {limit:g}" if over else told, over))
        text = row["sub_captions"][i] if row.get("sub_captions") else ""
        parts.append({"picture": pictures[i] if i < len(pictures) else b"", "text": text, "notes": notes})
    return {
        **{name: clip[name] for name in ("clip_id", "uri", "start", "end")},
        "status": row["status"],
        "reason": row.get("reason") or "",
        "caption": row.get("caption"),
        "notes": " · ".join(f"{name.replace('_', ' ')} {row[name]}" for name in _NOTED if row.get(name)),
        "faults": "; ".join(_faults(row)),
        "parts": parts,
    }


def _note(told: str, bad: bool = False) -> dict[str, Any]:
    return {"told": told, "bad": bad}


def _faults(row: Mapping[str, Any]) -> list[str]:
    told = [f"{row[name]} {what}" for name, what in _FAULTS.items() if row.get(name)]
    return [*told, "another language than asked for"] if row.get("other_language") else told
