"""Borders, static marks and overlaid text: which share of the frame is not the scene.

Formula: area of the union / area of the frame, per keyframe, of
- **bars** (letterbox, pillarbox, both): rows or columns at the frame's edge of one grey level (±10), in all frames of
  the sample, up to a sharp straight inner edge. The sharp edge is what tells a bar from a dark scene: below a bar at
  least half of the picture's first three rows differs from it in at least three frames (30 % where the opposite bar is
  as wide), while night skies, space and vignettes fade in. A logo or a line of text on a bar (up to 35 % of its length)
  does not end it. A frame that is all flat has no bar; no bar is wider than 45 % of the frame.
- **static marks** (logos, bugs, tickers, drawn frames): edges that stand still in all frames while the picture moves.
  For each pixel, with g the gradient (Sobel, long side 480): |Σ g|² / (n Σ |g|²) > 0.85, 1 where all n frames agree
  (after the median of gradients in Dekel et al., "On the effectiveness of visible watermarks", CVPR 2017). Edges nearer
  than 4 px belong together. Marks with edges in one direction only are dropped: a horizon in a level pan stands still
  too. An opaque ground is added: an area that never changes, with a rim that is an edge of one direction in most frames
  (a flat sky never changes either, but things pass along its rim).
- **overlaid text** (backend `rapidocr` only): boxes of RapidOCR's detection model (see `longtake.filters.text_boxes`) whose
  content stands still between the keyframe and any other frame of the sample between which the picture moves: the
  gradients in the box correlate by more than 0.6, those outside of boxes and marks (as g / (|g| + 8)) by less than
  0.3. A shop sign that passes by moves with the scene, and is not counted.

In a shot that does not move at all (mean correlation of gradients above 0.3: a tripod), marks and overlaid text cannot
be told from the scene, and neither is counted: a score says only what was seen. Such clips fail the flow gate anyway;
a recipe without a flow gate lets burnt-in subtitles of a tripod shot pass.

Unit: share of the area. Range: 0 to 1. Source: gate ≤ 5 % in Table 4 of the Presto paper (arXiv 2412.01316), which
does not say how it was measured. Reduced by the worst keyframe (`max`) unless set; the detail, one value per keyframe,
also gives the share of bad keyframes. `Borders` (backend `borders`) measures bars and marks in the scan, and is a lower
bound of `Artifacts` (backend `rapidocr`), which adds the text to the marks that the scan stored.

Protocol: `borders/bars10+marks480/max`; `rapidocr/bars10+marks480+overlay,SHA-256 of the model,side,thresholds/max`.
Cost: borders and marks 25 ms per clip (ten 960×540 frames); text detection 0.6 s per 960×540 keyframe on one core.

Known to go wrong: bars of blurred or moving content are no bars here; a bright sky above a level horizon may pass as
a bar in a shot without tilt; a car's bonnet in a dash-cam is a mark; of semi-transparent marks only the stronger edges
count; subtitles are missed where the picture does not move within 0.5 s, or if they do not stay for 0.5 s; scrolling
credits and karaoke move, and are not counted; a far sign on the axis of a drive hardly moves, and may be counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from longtake.filters.base import Filter, FilterSettings, MeasureError, Needs, Reduce, Sample
from longtake.filters.grayscale import grey
from longtake.filters.text_boxes import BOX_THRESHOLD, LONG_SIDE, PIXEL_THRESHOLD, UNCLIP, Boxes, model_hash, text_boxes

Mask = npt.NDArray[np.bool_]
Grey = npt.NDArray[np.uint8]
Gradients = npt.NDArray[np.float32]

# Bars and marks are measured by these numbers: whoever changes one changes METHOD.
TOLERANCE = 10  # grey levels a bar may differ from its colour, in any frame: compression and scan noise
STRAY = 0.02  # share of a bar's row that may differ by more
ON_BAR = 0.35  # the same where a logo or a line of text stands on the bar
SHARP = 0.5  # share of the picture's first rows that must differ from the bar, in
SHARP_FRAMES = 3  # frames at least: others may be dark there
SHARP_TWIN = 0.3  # the same where the opposite bar is as wide
RAMP = 3  # px over which a bar's inner edge may be spread by scaling
WIDEST = 0.45  # of the side: what is flat beyond it is no bar

# Marks
WORK_SIDE = 480  # long side on which gradients are compared
STRONG = 8.0  # grey levels per px of an edge
CONSTANT = 0.85  # share of an edge's energy that all frames have in common, for it to stand still
MOVING = 0.3  # correlation of softened gradients below which the picture moves (real film: 0.24, tripod shots 0.34)
NOISE = 0.01  # mean squared soft gradient of the scene up to which there is nothing to see in it
UNMOVED = 0.6  # correlation within a text box above which its content stands still
CLOSE = 4  # px (at 480): edges this near belong to one mark
SMALLEST = 0.0003  # of the frame: less is no mark
ROUND = 0.05  # a mark has edges in all directions: smaller / larger eigenvalue of its structure tensor
OFTEN = 0.7  # share of the frames in which a rim is an edge
STRAIGHT = 0.8  # coherence over time of a rim's direction: 1 always the same, 0 any
ENCLOSED = 0.7  # share of the edge of an unchanging area that must be a rim

SIDES = ("top", "right", "bottom", "left")  # in the order in which quarter turns to the left bring them to the top
METHOD = f"bars{TOLERANCE}+marks{WORK_SIDE}"


def border_and_mark_mask(sample: Sample) -> Mask:
    """What is under borders and static marks in every frame of the sample: bool [h, w]."""
    frames = [grey(frame) for frame in (*sample.keyframes, *sample.partners)]
    if not frames:
        raise MeasureError("nothing was measured: the sample has no frames")
    top, bottom, left, right = bars(frames)
    height, width = frames[0].shape
    mask = np.ones((height, width), dtype=np.bool_)
    picture = (slice(top, height - bottom), slice(left, width - right))
    mask[picture] = static_marks([frame[picture] for frame in frames])
    return mask


def bars(frames: Sequence[Grey]) -> tuple[int, int, int, int]:
    """Widths in pixels (top, bottom, left, right) of the flat, unchanging bars around the picture."""
    stack = np.stack(frames)
    low, high = _extremes(frames)
    # Each side is looked at as the top of a turned frame.
    turned = {side: (np.rot90(stack, k, (1, 2)), np.rot90(low, k), np.rot90(high, k)) for k, side in enumerate(SIDES)}
    found = {side: _flat_zones(*views) for side, views in turned.items()}
    widths = dict.fromkeys(SIDES, 0)
    for k, side in enumerate(SIDES):
        opposite = [width for width, _ in found[SIDES[(k + 2) % 4]]]
        for width, sharpness in found[side]:
            twin = any(abs(width - other) <= RAMP for other in opposite)
            if sharpness >= (SHARP_TWIN if twin else SHARP):
                widths[side] = width
                break
    return widths["top"], widths["bottom"], widths["left"], widths["right"]


def _flat_zones(stack: Grey, low: Grey, high: Grey) -> list[tuple[int, float]]:
    """What may be a bar at the top: rows of the flat zone, and the step (0 to 1) in which the picture begins below.

    stack [n, h, w]; low, high [h, w]: extremes over its frames.
    """
    colour = round(float(np.median((low[0].astype(np.int16) + high[0]) / 2)))
    lowest, highest = max(0, colour - TOLERANCE), min(255, colour + TOLERANCE)
    differs = (high > highest) | (low < lowest)
    columns = np.flatnonzero(differs.mean(axis=0) > STRAY)
    if columns.size == 0:  # all flat: an empty picture, and no bar
        return []
    breadth = slice(int(columns[0]), int(columns[-1]) + 1)  # without the bars at the other sides
    shares = differs[:, breadth].mean(axis=1)
    zones = []
    for stray in (STRAY, ON_BAR):
        rows = int(np.argmax(shares > stray))
        if shares[rows] <= stray or rows > WIDEST * len(shares):
            continue
        first = stack[:, rows : rows + RAMP, breadth]
        # Of each frame by itself: roofs that pass by would add up to a straight edge. Some frames may be dark.
        below = np.sort(((first > highest) | (first < lowest)).any(axis=1).mean(axis=1))
        above = shares[max(0, rows - RAMP) : rows].max(initial=0.0)
        zones.append((rows, float(below[-min(SHARP_FRAMES, len(below))] - above)))
    return zones


def gradients(frames: Sequence[Grey]) -> Gradients:
    """Gradients of grey frames [h, w]: float32 [n, 2, h, w] (right, down), grey levels per px."""
    import cv2

    fields = np.empty((len(frames), 2, *frames[0].shape), dtype=np.float32)
    for field, frame in zip(fields, frames, strict=True):
        field[0] = cv2.Sobel(frame, cv2.CV_32F, 1, 0, scale=1 / 8)
        field[1] = cv2.Sobel(frame, cv2.CV_32F, 0, 1, scale=1 / 8)
    return fields


def softened(fields: Gradients) -> Gradients:
    """g / (|g| + 8): every clear edge counts about the same, so that a strong mark is not taken for a still picture."""
    import cv2

    soft = np.empty_like(fields)
    for field, out in zip(fields, soft, strict=True):  # one after the other: a quarter of the time of all at once
        np.divide(field, cv2.magnitude(field[0], field[1]) + STRONG, out=out)
    return soft


def correlations(fields: Gradients) -> npt.NDArray[np.float64]:
    """Correlation of the gradients of each two frames: float64 [n, n]; 1 for equal frames, about 0 for unlike ones."""
    flat = fields.reshape(len(fields), -1)
    products = (flat @ flat.T).astype(np.float64)
    energy = np.diag(products)
    return np.asarray(2 * products / np.maximum(energy[:, None] + energy[None, :], 1e-9), dtype=np.float64)


def static_marks(frames: Sequence[Grey]) -> Mask:
    """What stands still in all frames while the picture moves: bool [h, w]. Nothing, if the picture does not move."""
    import cv2

    height, width = frames[0].shape
    n = len(frames)
    fields = gradients([_reduced(frame) for frame in frames])
    pairs = ~np.eye(n, dtype=np.bool_)
    if n < 2 or not fields.any() or correlations(softened(fields))[pairs].mean() > MOVING:
        return np.zeros((height, width), dtype=np.bool_)
    right, down, energy, across, both, often = _sums(fields)
    common = (right * right + down * down) / np.maximum(n * energy, 1e-9)
    edges = (energy > n * STRONG**2) & (common > CONSTANT)
    # The rim of an opaque ground: its strength and sign change with what is behind, its direction does not.
    tensor = np.stack([across, energy - across, both])
    rims = edges | ((often >= OFTEN * n) & (np.hypot(tensor[0] - tensor[1], 2 * both) > STRAIGHT * energy))
    low, high = _extremes(frames)
    unchanged = _reduced(np.asarray(cv2.subtract(high, low), dtype=np.uint8)) <= TOLERANCE
    marks = _marks_from_edges(edges, rims, unchanged, tensor)
    return cv2.resize(marks.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0


def _sums(fields: Gradients) -> npt.NDArray[np.float32]:
    """Sums over the frames of gradients (x, y): of x, y, x² + y², x², xy, and in how many there is an edge: float32 [6, h, w]."""
    sums = np.zeros((6, *fields.shape[2:]), np.float32)
    for x, y in fields:  # frame after frame, as the arrays of one fit into a core's cache
        xx = x * x
        strength = xx + y * y
        for total, term in zip(sums, (x, y, strength, xx, x * y, strength > (STRONG / 2) ** 2), strict=True):
            total += term
    return sums


def _reduced(image: Grey) -> Grey:
    """A grey image with its long side at most 480."""
    import cv2

    scale = min(1.0, WORK_SIDE / max(image.shape))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _extremes(frames: Sequence[Grey]) -> tuple[Grey, Grey]:
    """The lowest and the highest level of each pixel over all frames."""
    low, high = frames[0], frames[0]
    for frame in frames[1:]:
        low, high = np.minimum(low, frame), np.maximum(high, frame)
    return low, high


def _marks_from_edges(edges: Mask, rims: Mask, unchanged: Mask, tensor: npt.NDArray[np.float32]) -> Mask:
    """Marks bool [h, w], from still edges, likely rims, pixels that never change, and structure tensors [3, h, w]."""
    import cv2

    smallest = SMALLEST * edges.size
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * CLOSE + 1, 2 * CLOSE + 1))
    marks = np.zeros(edges.shape, dtype=np.bool_)
    closed = np.asarray(cv2.morphologyEx(edges.astype(np.uint8), cv2.MORPH_CLOSE, kernel), dtype=np.uint8)
    for window, part in _areas(closed, smallest):
        if _has_all_directions(tensor[(slice(None), *window)][:, part & edges[window]]):
            marks[window] |= part
    near = cv2.dilate((rims | marks).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    for window, part in _areas((unchanged & ~marks).astype(np.uint8), smallest):
        rows, columns = (slice(max(0, side.start - 1), side.stop + 1) for side in window)
        inside = np.zeros(edges.shape, dtype=np.uint8)
        inside[window] = part
        grown = cv2.dilate(inside[rows, columns], np.ones((3, 3), np.uint8)) > 0
        rim = grown & (inside[rows, columns] == 0)
        enclosed = rim.any() and near[rows, columns][rim].mean() >= ENCLOSED
        if enclosed and _has_all_directions(tensor[:, rows, columns][:, rim]):
            marks[rows, columns] |= grown
    return marks


def _areas(mask: npt.NDArray[np.uint8], smallest: float) -> Iterator[tuple[tuple[slice, slice], Mask]]:
    """The connected areas of a mask of at least `smallest` pixels: the window around each, and its pixels therein."""
    import cv2

    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    for label in range(1, count):
        x, y, width, height, area = (int(value) for value in stats[label])
        if area >= smallest:
            window = (slice(y, y + height), slice(x, x + width))
            yield window, labels[window] == label


def _has_all_directions(tensors: npt.NDArray[np.float32]) -> bool:
    """Whether structure tensors [3, n] have more than one direction; those of a level horizon in a level pan do not."""
    xx, yy, xy = (float(part) for part in tensors.sum(axis=1, dtype=np.float64))
    smaller, larger = np.linalg.eigvalsh([[xx, xy], [xy, yy]])
    return bool(smaller > ROUND * larger)


def overlaid_boxes(frames: Sequence[Grey], boxes: Sequence[Boxes], marks: Mask) -> list[Boxes]:
    """Of the text boxes [n, 4, 2] of each of the first frames, those that stand still while the picture moves.

    frames: keyframes, then partners, grey [h, w]. boxes: one array per keyframe. marks: bool [h, w].
    """
    scene = ~marks
    for found in boxes:
        scene &= ~_filled(found, scene.shape)
    scene_small = _reduced(scene.astype(np.uint8) * 255) == 255
    fields = softened(gradients([_reduced(frame) for frame in frames])) * scene_small
    # Where there is nothing but noise to see, nothing is seen to move.
    energy = np.einsum("ncyx,ncyx->n", fields, fields) / max(1, int(scene_small.sum()))
    moving = (correlations(fields) < MOVING) & (np.minimum.outer(energy, energy) > NOISE)
    kept = []
    for index, found in enumerate(boxes):
        still = [_correlations_within(frames, box)[index] > UNMOVED for box in found]
        kept.append(found[np.array([(row & moving[index]).any() for row in still], dtype=np.bool_)])
    return kept


def _correlations_within(frames: Sequence[Grey], box: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Correlations [n, n] of the gradients of the frames within one box [4, 2], at full size."""
    import cv2

    x, y, width, height = cv2.boundingRect(box)
    window = (slice(max(0, y), y + height), slice(max(0, x), x + width))
    inside = _filled(box[None], frames[0].shape)[window]
    return correlations(gradients([frame[window] for frame in frames]) * inside)


def _filled(boxes: Boxes, shape: tuple[int, ...]) -> Mask:
    """Mask bool of the given shape [h, w] of what is in the boxes [n, 4, 2]."""
    import cv2

    mask = np.zeros(shape, dtype=np.uint8)
    for box in boxes:
        cv2.fillConvexPoly(mask, box, 1)
    return mask > 0


class ArtifactsSettings(FilterSettings):
    """As every filter's, but that the worst keyframe counts."""

    reduce: Reduce = Field("max", description="as everywhere; the worst keyframe counts unless set")


class Borders(Filter[Sample]):
    """Share of the frame under borders and static marks; the marks stored with the sample are used where it has them.

    Detail: one value per keyframe; as marks stand still they are all equal.
    """

    name: ClassVar[str] = "artifacts"
    backend: ClassVar[str] = "borders"
    unit: ClassVar[str] = "share of the area (0-1)"
    needs: ClassVar[Needs] = Needs.SAMPLE
    cost: ClassVar[float] = 25.0
    settings_model: ClassVar[type[FilterSettings]] = ArtifactsSettings

    @property
    def method(self) -> str:
        return METHOD

    def annotate(self, item: Sample) -> Sample:
        return replace(item, marks=_marks_of(item))

    def measure_one(self, item: Sample) -> Sequence[float]:
        return [float(_marks_of(item).mean())] * len(item.keyframes)


class Artifacts(Filter[Sample]):
    """Share of the frame under borders, static marks or overlaid text, as a union. Detail: one value per keyframe.

    `method` already raises FilterUnavailable without rapidocr or its model, before any work.
    """

    name: ClassVar[str] = "artifacts"
    backend: ClassVar[str] = "rapidocr"
    unit: ClassVar[str] = "share of the area (0-1)"
    needs: ClassVar[Needs] = Needs.FRAMES
    cost: ClassVar[float] = 3000.0
    settings_model: ClassVar[type[FilterSettings]] = ArtifactsSettings

    @property
    def method(self) -> str:
        detector = f"{model_hash()},side{LONG_SIDE},{PIXEL_THRESHOLD:g}/{BOX_THRESHOLD:g}/{UNCLIP:g}"
        return f"{METHOD}+overlay,{detector}"

    @property
    def lower_bound(self) -> Filter[Sample]:
        return Borders(reduce=self.reduce)

    def measure_one(self, item: Sample) -> Sequence[float]:
        marks = _marks_of(item)
        boxes = [text_boxes(keyframe) for keyframe in item.keyframes]
        frames = [grey(frame) for frame in (*item.keyframes, *item.partners)]
        overlaid = overlaid_boxes(frames, boxes, marks)
        return [float((marks | _filled(found, marks.shape)).mean()) for found in overlaid]


def _marks_of(sample: Sample) -> Mask:
    if sample.marks is None:
        return border_and_mark_mask(sample)
    if sample.marks.shape != sample.keyframes.shape[1:3]:
        raise MeasureError(f"marks are {sample.marks.shape}, frames {sample.keyframes.shape[1:3]}: not one sample")
    return sample.marks
