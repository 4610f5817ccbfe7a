"""Columns of the exported table that are there only where the recipe asks for what they tell of: a crop, sound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

# The part of the source's picture that is kept (`crop: borders`); null: all of it.
CROP = tuple(pa.field(name, pa.int32()) for name in ("crop_x", "crop_y", "crop_width", "crop_height"))
# The sound in the clip's file (`export.keep_audio: true`).
SOUND = (
    pa.field("audio", pa.string()),
    pa.field("audio_rate", pa.int32()),
    pa.field("audio_channels", pa.int32()),
    pa.field("loudness", pa.float64()),
    pa.field("silence", pa.float64()),
)

MEANINGS: dict[str, str] = {
    "crop_x": "where what is kept of the video's picture begins from its left, pixels as displayed; null: nothing is cut away",
    "crop_y": "where it begins from above",
    "crop_width": "how wide it is",
    "crop_height": "how high it is",
    "audio": "what became of the video's sound: kept, damaged (kept as far as it decodes), none (it has none there), or why the "
    "clip is without it",
    "audio_rate": "samples a second of the clip's sound; null where it has none",
    "audio_channels": "channels of the clip's sound, 1 or 2; more than two were mixed down to two",
    "loudness": "integrated loudness of the clip's sound, LUFS (ITU-R BS.1770-4); null where all of it is below -70 LUFS",
    "silence": "share of the clip in which its sound is below -60 dBFS, 0 to 1",
}


def notes(table: pa.Table) -> list[str]:
    """Sentences on what these columns say of a dataset, for its card."""
    told = []
    if "crop_width" in table.column_names:
        cut = table.num_rows - table["crop_width"].null_count
        told.append(
            f"Borders and bands of subtitles were cut away before anything was measured (crop: borders): {cut} of "
            f"{table.num_rows} clips show a part of their video's picture, and their scores and captions are of that part "
            "(columns crop_x, crop_y, crop_width, crop_height)."
        )
    if "audio" in table.column_names:
        told.append(f"Sound is carried along (export.keep_audio): {_counted(table['audio'].to_pylist())}.")
        known = table["loudness"].drop_null()
        if len(known):
            told.append(f"Loudness of the clips with sound: {pc.mean(known).as_py():.1f} LUFS in the mean.")
    return told


def _counted(states: Sequence[str | None]) -> str:
    counts = Counter(state or "not known" for state in states)
    return ", ".join(f"{state} {count}" for state, count in sorted(counts.items())) or "no clips"
