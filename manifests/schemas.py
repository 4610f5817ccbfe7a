"""What the manifests of a workspace hold. A filter adds two columns to clips (or captions): `<name>`, `<name>_detail`; one
whose score is a mean over moments a third, `<name>_standard_error`."""

from __future__ import annotations

import pyarrow as pa

from longtake.manifests.store import Manifest


def _required(name: str) -> pa.Field:
    return pa.field(name, pa.string(), nullable=False)


_ERROR = [
    _required("status"),  # Values: ok, error.
    pa.field("error_kind", pa.string()),
    pa.field("error", pa.string()),
    pa.field("host", pa.string()),  # The machine that made the row.
]

SPAN = pa.struct(
    [
        pa.field("start", pa.float64()),
        pa.field("end", pa.float64()),  # Null: the clip ends where the film ends.
        pa.field("caption", pa.string()),
        pa.field("sub_captions", pa.list_(pa.string())),
        pa.field("captions", pa.list_(pa.string())),  # All captions, where the source list has several.
    ]
)

SCORE = pa.struct(
    [
        pa.field("name", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("detail", pa.list_(pa.float64())),
        pa.field("protocol", pa.string()),
    ]
)

# The part of a clip's picture that is kept where the recipe cuts borders away, in px of the upright picture at its displayed
# size; null: all of it. The column not_cropped says why borders that were found were kept.
_CROP = [
    pa.field("crop_x", pa.int32()),
    pa.field("crop_y", pa.int32()),
    pa.field("crop_width", pa.int32()),
    pa.field("crop_height", pa.int32()),
    pa.field("not_cropped", pa.string()),
]
CROP = tuple(field.name for field in _CROP)

# Seconds of the film. From then on each frame is made whole where its lines alternate, as those of fields do that nothing marks.
# Before it, and where the column is null, each frame is judged by its own picture.
_FIELDS = pa.field("fields_since", pa.float64())
SHOWN = (*CROP, _FIELDS.name)  # An export has to know these of the pictures of a clip.

CLIP_IN_VIDEO = pa.struct(
    [
        pa.field("clip_id", pa.string()),
        pa.field("start", pa.float64()),
        pa.field("end", pa.float64()),
        pa.field("status", pa.string()),
        pa.field("error_kind", pa.string()),
        pa.field("error", pa.string()),
        pa.field("has_frames", pa.bool_()),
        pa.field("has_strip", pa.bool_()),  # Null: an older version, which stored no strips, scanned the video.
        pa.field("caption", pa.string()),  # The caption in the source list.
        pa.field("sub_captions", pa.list_(pa.string())),
        pa.field("captions", pa.list_(pa.string())),
        pa.field("scores", pa.list_(SCORE)),
        *_CROP,
        _FIELDS,
    ]
)

# The file as it was listed, null where it is not known. For a member of an archive, the time at which the archive was
# written.
_FILE = [
    pa.field("bytes", pa.int64()),
    pa.field("modified", pa.timestamp("us", tz="UTC")),
    pa.field("sha256", pa.string()),  # Computed only where it was asked for.
]

INPUTS = pa.schema(
    [
        _required("video_id"),
        _required("uri"),
        pa.field("licence", pa.string()),
        pa.field("spans", pa.list_(SPAN)),  # Clips that the source list names. None: the scan looks for shots.
        pa.field("needs_access", pa.bool_()),  # The URI had a user, a password or a signature, which are not stored.
        pa.field("error", pa.string()),  # Why this input cannot be read at all: a bad row of a list, a locked folder.
        *_FILE,
        pa.field("removed", pa.timestamp("us", tz="UTC")),  # When the file was seen to be gone from its folder.
    ]
)

VIDEOS = pa.schema(
    [
        _required("video_id"),
        _required("uri"),
        *_ERROR,
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("fps", pa.float64()),
        pa.field("duration", pa.float64()),  # Seconds.
        pa.field("codec", pa.string()),
        pa.field("pixel_format", pa.string()),
        pa.field("container", pa.string()),
        pa.field("rotation", pa.int32()),  # Degrees, clockwise.
        pa.field("mirrored", pa.bool_()),  # Left and right are exchanged, before the picture is turned.
        # The transfer of its colours by ffmpeg's name. Null: the file does not say.
        pa.field("transfer", pa.string()),
        pa.field("primaries", pa.string()),
        pa.field("tone_mapped", pa.bool_()),  # The film is HDR (PQ or HLG), and its pictures are mapped to SDR.
        # How its picture holds a sphere, and how two views, by ffmpeg's names. Null: it is a plain picture, or none was decoded.
        pa.field("projection", pa.string()),
        pa.field("stereo", pa.string()),
        pa.field("has_audio", pa.bool_()),
        pa.field("origin", pa.float64()),  # Seconds on the container's clock at the start of the video.
        *_FILE,  # The file as it was scanned.
        pa.field("listed_bytes", pa.int64()),  # The size in the listing; a file may grow until it is scanned.
        # How the store said in which state the file was when it was opened: its ETag and time of writing. Null: not at all.
        pa.field("store_tags", pa.list_(pa.string())),
        pa.field("licence", pa.string()),
        pa.field("cuts", pa.list_(pa.float64())),  # Seconds: the first frame of each new shot.
        pa.field("frames_decoded", pa.int64()),
        pa.field("frames_corrupt", pa.int64()),
        # Seconds of film that do not decode, or refer to what does not. No clip shows any of them.
        pa.field("seconds_damaged", pa.float64()),
        pa.field("clock_restarts", pa.int64()),  # Times that the clock started anew, as where recordings were joined.
        pa.field("decoded_seconds", pa.float64()),  # Seconds of video that were decoded.
        pa.field("seconds_left_out", pa.float64()),  # Seconds at the ends of shots that gave clips and were longer.
        pa.field(
            "streams_left_out", pa.int32()
        ),  # Further video streams of the file: another angle, or a recording that was joined.
        pa.field("cut_off", pa.string()),  # Why the file is known to be cut off. Null: it is not known to be.
        # The hash of all packets of the video stream in their order. Null: the scan did not read all of them.
        pa.field("stream_sha256", pa.string()),
        pa.field("pieces", pa.int32()),  # Pieces in which a film was read for shots: more than one of a long film.
        pa.field("cpu_seconds", pa.float64()),
        pa.field("scan_id", pa.string()),  # New each time a video is scanned.
        pa.field("clip_protocol", pa.string()),
        pa.field("clips", pa.list_(CLIP_IN_VIDEO)),
    ]
)

# A piece of a long film that was scanned, until all of them are joined to a row of videos. What was found in it lies beside the
# frames: `frames.piece_name`.
PIECES = pa.schema(
    [
        _required("piece_id"),  # Made of the video, the scan and the number.
        _required("video_id"),
        _required("uri"),
        *_ERROR,
        pa.field("number", pa.int32(), nullable=False),  # It counts from 0.
        pa.field("seams", pa.list_(pa.float64())),  # Seconds: where the pieces of the film begin.
        pa.field("seconds", pa.float64()),  # Seconds of film that were read.
        *_FILE,
        pa.field("listed_bytes", pa.int64()),
        pa.field("cpu_seconds", pa.float64()),
        pa.field("scan_id", pa.string()),  # The scan of the film.
        pa.field("clip_protocol", pa.string()),
    ]
)

CLIPS = pa.schema(
    [
        _required("clip_id"),
        _required("video_id"),
        _required("uri"),
        pa.field("start", pa.float64(), nullable=False),  # Seconds.
        pa.field("end", pa.float64(), nullable=False),
        *_ERROR,
        pa.field("origin", pa.float64()),  # Seconds. With them added, start and end are on the container's own clock.
        # The number of its video. Above 0, the container's clock cannot be sought in.
        pa.field("clock_restarts", pa.int64()),
        # The number of its video. A clip that is exported at the rate of its film has it.
        pa.field("film_fps", pa.float64()),
        pa.field("has_frames", pa.bool_(), nullable=False),
        pa.field("has_strip", pa.bool_()),  # Null: an older version, which stored no strips, scanned the video.
        pa.field("scan_id", pa.string()),
        pa.field("clip_protocol", pa.string()),
        pa.field("source_caption", pa.string()),
        pa.field("source_sub_captions", pa.list_(pa.string())),
        pa.field("source_captions", pa.list_(pa.string())),
        pa.field("licence", pa.string()),
        pa.field("protocols", pa.string()),  # JSON: filter → protocol of its score.
        *_CROP,
        _FIELDS,
    ]
)

# Columns of clips beyond the scores, from the filters of the same names.
# A vector of length 1, in the space that the aesthetic filter sees.
EMBEDDING = pa.field("embedding", pa.list_(pa.float16()))
# The embeddings of its keyframes, one after the other, in the same space.
KEYFRAME_EMBEDDINGS = pa.field("keyframe_embeddings", pa.list_(pa.float16()))
DUPLICATE_OF = pa.field("duplicate_of", pa.string())  # The clip that was kept instead.
COPIED_FROM = pa.field("copied_from", pa.string())  # Likewise, by the filter `copies`.
# Filter that looks for groups over the corpus → the column that names the clip kept instead, in the order in which they look.
KEPT_INSTEAD = {"copies": COPIED_FROM, "duplicates": DUPLICATE_OF}
FURTHER = (EMBEDDING, KEYFRAME_EMBEDDINGS, *KEPT_INSTEAD.values())
HEAVY = (EMBEDDING, KEYFRAME_EMBEDDINGS)  # Columns that are read only where they are asked for.

# Texts that a captioner may write besides: overall captions of other lengths, and a few words on one aspect of the
# clip.
MORE_TEXTS = (
    "caption_short", "caption_long", "subject", "action", "place", "light", "camera", "shot_size",
)  # fmt: skip

CAPTIONS = pa.schema(
    [
        _required("clip_id"),
        _required("status"),  # Values: ok, truncated, refused, duplicate, error.
        pa.field("reason", pa.string()),
        # The kind of an error: `caption`, or the fault of the world that is to blame.
        pa.field("error_kind", pa.string()),
        pa.field("host", pa.string()),  # The machine that made the row.
        pa.field("caption", pa.string()),
        pa.field("sub_captions", pa.list_(pa.string())),
        *(pa.field(name, pa.string()) for name in MORE_TEXTS),
        pa.field("model", pa.string()),
        pa.field("prompts", pa.string()),  # Format: name@version.
        pa.field("seed", pa.int64()),
        pa.field("attempts", pa.int32()),
        pa.field("requests", pa.int32()),
        pa.field("prompt_tokens", pa.int32()),
        pa.field("completion_tokens", pa.int32()),
        pa.field("scan_id", pa.string()),
        pa.field("caption_protocol", pa.string()),
        pa.field("protocols", pa.string()),
        # The columns from `words` to `camera_agrees` are explained in longtake.captioning.quality.
        pa.field("words", pa.list_(pa.int32())),  # Words of the overall caption, then of the five sub-captions.
        pa.field("outside_band", pa.int32()),
        pa.field("language", pa.string()),
        pa.field("other_language", pa.bool_()),
        pa.field("lead_ins", pa.int32()),
        pa.field("list_markers", pa.int32()),
        pa.field("echoes", pa.int32()),
        pa.field("speculations", pa.int32()),
        pa.field("distinct", pa.int32()),
        pa.field("most_alike", pa.float64()),
        pa.field("moves", pa.list_(pa.string())),  # The movements that were measured.
        pa.field("moves_named", pa.int32()),
        pa.field("moves_wrong", pa.int32()),
        pa.field("camera_agrees", pa.bool_()),  # `camera` agrees with the measured movements. Null: unknown.
        # The next columns are found over the whole corpus, by longtake.curation.stages.copies.
        pa.field("copies", pa.int64()),
        pa.field("copy_of", pa.string()),
        pa.field("sub_copies", pa.int64()),
        pa.field("withheld", pa.string()),
    ]
)

EXPORTS = pa.schema(
    [
        _required("clip_id"),
        *_ERROR,
        pa.field("path", pa.string()),  # Relative to the workspace.
        pa.field("num_frames", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("fps", pa.float64()),
        pa.field("pace", pa.float64()),  # Seconds of the source per second of the clip.
        pa.field("seconds_left_out", pa.float64()),  # Seconds at the end of a clip that is longer than its frames.
        pa.field("bytes", pa.int64()),
        pa.field("sha256", pa.string()),
        pa.field("audio", pa.string()),  # The fate of the video's sound (`curation.reading.sound.State`).
        pa.field("audio_rate", pa.int32()),
        pa.field("audio_channels", pa.int32()),
        pa.field("loudness", pa.float64()),  # Unit: LUFS.
        pa.field("silence", pa.float64()),  # A share of the time, 0 to 1.
        pa.field("scan_id", pa.string()),
        pa.field("export_protocol", pa.string()),
    ]
)

FORGOTTEN = pa.schema(
    [
        _required("video_id"),
        pa.field("when", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)

RUNS = pa.schema(
    [
        _required("run_id"),
        _required("stage"),
        pa.field("started", pa.timestamp("us", tz="UTC")),
        pa.field("seconds", pa.float64()),  # Seconds of wall clock.
        pa.field("computed", pa.int64()),
        pa.field("errors", pa.int64()),
        pa.field("faults", pa.int64()),  # Faults of the world that rows met.
        pa.field("cpu_seconds", pa.float64()),
        pa.field("video_seconds", pa.float64()),
        pa.field("busy_share", pa.float64()),  # Share of the workers' time in which a model was at work.
        pa.field("requests", pa.int64()),  # Requests that a language model answered.
        pa.field("prompt_tokens", pa.int64()),
        pa.field("completion_tokens", pa.int64()),
        pa.field("workers", pa.int32()),
        pa.field("recipe", pa.string()),
    ]
)


def score_fields(name: str) -> list[pa.Field]:
    """The two columns of a filter."""
    return [pa.field(name, pa.float64()), pa.field(f"{name}_detail", pa.list_(pa.float64()))]


def standard_error_field(name: str) -> pa.Field:
    """The third column of a filter whose score is a mean over moments of the clip."""
    return pa.field(f"{name}_standard_error", pa.float64())


def inputs(workspace: str) -> Manifest:
    """What is to be curated: one row per video."""
    return Manifest(workspace, "inputs", "video_id", INPUTS)


def videos(workspace: str) -> Manifest:
    """One row per scanned video, its clips nested."""
    return Manifest(workspace, "videos", "video_id", VIDEOS, part_rows=25_000)


def pieces(workspace: str) -> Manifest:
    """One row per piece of a long film that is not joined yet."""
    return Manifest(workspace, "pieces", "piece_id", PIECES)


def clips(workspace: str) -> Manifest:
    """One row per clip, a column per filter."""
    return Manifest(workspace, "clips", "clip_id", CLIPS, heavy=[field.name for field in HEAVY], part_rows=100_000)


def captions(workspace: str) -> Manifest:
    """One row per captioned clip."""
    return Manifest(workspace, "captions", "clip_id", CAPTIONS, part_rows=100_000)


def exports(workspace: str) -> Manifest:
    """One row per encoded clip."""
    return Manifest(workspace, "exports", "clip_id", EXPORTS)


def forgotten(workspace: str) -> Manifest:
    """Videos that were erased on request: all that is left of them, and why they are never taken up again."""
    return Manifest(workspace, "forgotten", "video_id", FORGOTTEN)


def runs(workspace: str) -> Manifest:
    """One row per stage of each run."""
    return Manifest(workspace, "runs", "run_id", RUNS)
