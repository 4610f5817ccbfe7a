"""Drawings laid over a film that move with it: painted lanes, masks tinted over things, arrows, filled shapes.

What stands still is found by marks.py; what follows the scene is told by its colour. In each frame (long side 320) the areas of
one saturated colour are looked at that take part of the whole clip's colours as a narrow peak of chroma (Cr, Cb). A drawing's
area has an outline on which the chroma steps from the scene to it within a px or two, all the way round, in most frames. Sharp
film shows such outlines too, round a red car or a yellow wall, so that one of these must be added:

- **A tint**: what is within the outline is what is beyond it, dimmed and shifted by one colour: n = a · o + b, with one a and b
  for the whole outline in all frames. The scene's own surfaces end at their outlines: there a is about 0.
- **Light without colour**: within the area the luma changes, by texture and shade, and the chroma does not. A surface of one
  colour in changing light changes both in proportion; a tint adds the same chroma to light and dark.
- **A flat colour**: all of the area, in all frames, has one colour to within a level, in a film that is not all made of such
  areas. Light falls on no real surface so evenly.

(The blend of pictures is that of Porter and Duff, "Compositing digital images", SIGGRAPH 1984.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longtake.filters.base import Image
from longtake.filters.marks import Seen

Mask = npt.NDArray[np.bool_]
Field = npt.NDArray[np.float32]

WORK_SIDE = 320  # Px. Colours are looked at in frames of this long side.
BIN = 4  # Levels of chroma in a bin of the histogram.
AROUND_PEAK = 3  # A peak is compared with the mass over so many times its own width.
PEAK = 5  # Bins of a peak's width.
MOST = 8  # Peaks that are looked at.
LEAST = 0.003  # Share of all pixels that must be of a colour.
# Levels of Cr and Cb by which a drawing's own pixels may differ from its peak: over a grey ground, and over a coloured one.
RADII = (9, 18)
BLURRED = 2  # Levels more, as an area is sought in blurred chroma.
SATURATED = 20.0  # Distance from grey (levels of Cr and Cb) of a drawing's colour.
PURE = 40.0  # The same of a flat colour.
SMALLEST = 0.004  # Share of the frame. A smaller area is not looked at.
LARGEST = 0.6  # Share of the frame. A larger area is the scene.
AREAS = 4  # Areas of a colour that are looked at in a frame: the largest.
# Px from the outline at which chroma is read, outside first. Between the second and the sixth the ground is compared.
READ = (-3.0, -2.0, -1.5, 0.0, 1.5, 2.0, 3.0)
OUTER, INNER = 1, 5
STEPS = (0, 2, 3, 4, 6)  # Readings between which the largest step of the chroma must lie.
# Px from the frame's border, and from what is under borders and panels: nearer parts of an outline are not read.
INSIDE = 6
READABLE = 0.3  # Share of an outline that must be so far inside.
FEWEST = 12  # Px of an outline that must be.
CLOSED = 0.7  # READABLE for a flat area: a wall or a studio's green screen ends at the frame's border.
JUMP = 10.0  # Levels of chroma by which a point of the outline steps at least.
ONE_STEP = 0.5  # Share of that jump that must come within a px and a half.
CRISP = 0.75  # Share of the outline that must step so.
FAIRLY = 0.65  # CRISP of areas that count where others of their colour are known to be drawn.
CLEAR = 25.0  # Levels of the median jump.
OFTEN = 0.4  # Share of the frames in which there must be such an area.
OWN = 0.2  # Share of a colour's areas that must have such outlines.
# Area in a frame, in the mean, as a share of all that is taken in any frame: from it on an area stands still.
STAYS = 0.8
TINT = 0.3  # Least share of the ground that shows through a tint.
# Share of the difference between an area and one colour that the ground must explain. Of a real red sculpture it is 0.18.
EXPLAINS = 0.22
FAIRLY_CRISP = 0.8  # CRISP, in the mean of all areas, where the ground is the evidence.
FOLLOWS = 0.5  # Correlation of the luma on both sides of the outline.
FITS = 0.3  # Share of the outline that the tint must explain to within NEAR.
NEAR = 8.0  # Levels.
FAR = 16.0  # Levels: a point of the outline that is off by more counts as this.
# Deviation of the chroma, divided by that which the same light would make on a surface of this colour. On real film, areas
# with crisp outlines and texture have 0.41 and more (a shirt with a softer outline 0.27, a sky without texture 0.21).
COLOUR_OF_LIGHT = 0.25
SHADES = 5.0  # Levels of chroma that such a surface would change by, at least.
# Grey levels (deviation) of texture, without the EXTREMES: a sky is bright and dark without any, and a bird or a line of letters
# before it is none.
TEXTURE = 2.4
EXTREMES = 0.05  # Share of the pixels at either end.
DETAIL = 21  # Px over which luma is averaged: texture is what differs from that mean.
VERY_CRISP = 0.85  # CRISP, where only colour and light are evidence.
EVEN = 1.5  # Mean absolute deviation of a flat area from its middle colour, and of that colour between frames.
FLAT_FILM = 0.65  # Share of flat pixels in the rest of the film from which on flat areas are its own style.
FLAT = 1  # Grey levels between neighbours in a flat area.


@dataclass(frozen=True, slots=True)
class Area:
    """An area of one colour in frame number `frame`.

    mask: bool [h, w]. across: luma and chroma across its outline, outside first, float32 [n, 7, 3]. read: the share of its
    outline that could be read. crisp: the share of that on which chroma steps from the scene to it.
    """

    frame: int
    mask: Mask
    across: Field
    read: float
    crisp: float


def drawn(keyframes: Sequence[Image] | Image, partners: Sequence[Image] | Image, seen: Seen) -> list[Mask]:
    """What is under drawings in each keyframe: bool [h, w].

    Frames: RGB uint8 [h, w, 3], or [n, h, w, 3]. seen: what is under borders, panels and marks (a sky that ends at a border has
    no outline there), and whether the scene moves.
    """
    import cv2

    height, width = keyframes[0].shape[:2]
    scale = min(1.0, WORK_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in (*keyframes, *partners)]
    free = cv2.resize(seen.mask.astype(np.uint8), size, interpolation=cv2.INTER_AREA) == 0
    masks = drawn_areas([np.asarray(frame, np.uint8) for frame in small], free, still=not seen.known)[: len(keyframes)]
    return [cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0 for mask in masks]


def drawn_areas(frames: Sequence[Image], free: Mask, *, still: bool) -> list[Mask]:
    """What is under drawings in each of a clip's small frames RGB uint8 [h, w, 3]: bool [h, w].

    free: what is under nothing else, bool [h, w]. still: the scene stands still, so that only what moves is told from it.
    """
    import cv2

    pictures = [_picture(frame) for frame in frames]
    found = [np.zeros(frame.shape[:2], np.bool_) for frame in frames]
    if min(frames[0].shape[:2]) < 4 * INSIDE:
        return found
    blurred = [np.asarray(cv2.blur(picture[..., 1:], (3, 3)), np.float32) for picture in pictures]
    side = 2 * INSIDE + 1
    readable = cv2.erode(np.pad(free.astype(np.uint8), 1), np.ones((side, side), np.uint8))[1:-1, 1:-1] > 0
    for peak in _peaks(pictures):
        for radius in RADII:
            areas = _outlined(pictures, blurred, readable, peak, radius)
            crisp = [area for area in areas if area.crisp >= CRISP]
            if areas and not (still and _stays(crisp)) and _is_drawn(crisp, pictures):
                for area in areas:
                    found[area.frame] |= cv2.dilate(area.mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
                break
    return found


def _picture(frame: Image) -> Field:
    """Luma and chroma (Y, Cr, Cb; grey is 0 in both): float32 [h, w, 3]."""
    import cv2

    picture = cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb).astype(np.float32)
    picture[..., 1:] -= 128
    return picture


def _peaks(pictures: Sequence[Field]) -> list[npt.NDArray[np.float64]]:
    """The colours (Cr, Cb) that stand out of all colours of the clip, the narrowest first."""
    import cv2

    bins = 256 // BIN
    counts = np.zeros((bins, bins), np.float32)
    for picture in pictures:
        counts += cv2.calcHist([picture], [1, 2], None, [bins, bins], [-128, 128, -128, 128])
    levels = np.arange(bins) * BIN + BIN / 2 - 128.0
    near = cv2.boxFilter(counts, -1, (PEAK, PEAK), normalize=False, borderType=cv2.BORDER_CONSTANT)
    wide = AROUND_PEAK * PEAK - 2
    around = cv2.boxFilter(counts, -1, (wide, wide), normalize=False, borderType=cv2.BORDER_CONSTANT)
    grey = np.hypot(levels[:, None], levels[None]) < SATURATED - BIN / 2
    near[grey | (near < LEAST * counts.sum())] = 0.0
    stands_out = near * near / np.maximum(around, 1.0)
    peaks: list[npt.NDArray[np.float64]] = []
    for _ in range(MOST):
        row, column = np.unravel_index(int(np.argmax(stands_out)), stands_out.shape)
        if stands_out[row, column] <= 0:
            break
        peak = np.array([levels[row], levels[column]])
        for _ in range(3):
            window = counts * np.outer(abs(levels - peak[0]) <= RADII[0], abs(levels - peak[1]) <= RADII[0])
            total = max(1.0, float(window.sum()))
            peak = np.array([window.sum(axis=1) @ levels, window.sum(axis=0) @ levels]) / total
        if all(np.abs(peak - other).max() > RADII[0] / 2 for other in peaks):
            peaks.append(peak)
        stands_out[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3] = 0.0
        stands_out[np.outer(abs(levels - peak[0]) <= 1.5 * RADII[0], abs(levels - peak[1]) <= 1.5 * RADII[0])] = 0.0
    return peaks


def _outlined(
    pictures: Sequence[Field],
    blurred: Sequence[Field],
    readable: Mask,
    peak: npt.NDArray[np.float64],
    radius: int,
) -> list[Area]:
    """The areas of a colour with fairly crisp outlines, if there are enough with crisp ones in enough frames."""
    kept: list[Area] = []
    enough, looked_at, crisp, without = math.ceil(OFTEN * len(pictures)), 0, 0, 0
    for number, (picture, chroma) in enumerate(zip(pictures, blurred, strict=True)):
        before = crisp
        for mask in _areas(chroma, peak, radius):
            across, read = _across(mask, picture, readable)
            if len(across) >= FEWEST and read >= READABLE:
                looked_at += 1
                share, jump = _stepping(across)
                if share >= FAIRLY and jump >= CLEAR:
                    kept.append(Area(number, mask, across, read, share))
                    crisp += share >= CRISP
        without += crisp == before
        if without > len(pictures) - enough:
            return []
    return kept if crisp >= max(1.0, OWN * looked_at) else []


def _areas(chroma: Field, peak: npt.NDArray[np.float64], radius: int) -> Iterator[Mask]:
    """The largest connected areas of a colour in blurred chroma float32 [h, w, 2]: bool [h, w]."""
    import cv2

    near = radius + BLURRED
    on = cv2.inRange(chroma, tuple(peak - near), tuple(peak + near))
    on = cv2.morphologyEx(on, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    on = cv2.morphologyEx(on, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    on = cv2.morphologyEx(on, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(on, connectivity=4)
    sizes = stats[:, cv2.CC_STAT_AREA]
    fits = [k for k in range(1, count) if SMALLEST * on.size <= sizes[k] <= LARGEST * on.size]
    for label in sorted(fits, key=lambda k: -int(sizes[k]))[:AREAS]:
        yield labels == label


def _across(mask: Mask, picture: Field, readable: Mask) -> tuple[Field, float]:
    """Luma and chroma across the outer outline of an area, outside first: float32 [n, 7, 3]; and which share of it was read.

    readable: where they can be read, bool [h, w]: not near a border.
    """
    import cv2

    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    places = max(contours, key=len)[:, 0]
    height, width = mask.shape
    points = places.astype(np.float32)
    along = np.roll(points, -5, axis=0) - np.roll(points, 5, axis=0)
    along /= np.hypot(*along.T)[:, None] + 1e-6
    inwards = np.stack([-along[:, 1], along[:, 0]], axis=1)
    ahead, behind = (np.rint(points + way * 3 * inwards).astype(int) for way in (1, -1))
    ends = [end.clip(0, (width - 1, height - 1)) for end in (ahead, behind)]
    if mask[ends[0][:, 1], ends[0][:, 0]].mean() < mask[ends[1][:, 1], ends[1][:, 0]].mean():
        inwards = -inwards
    room = readable[places[:, 1], places[:, 0]]
    read = np.array(READ, np.float32)
    x, y = (points[room, axis, None] + read * inwards[room, axis, None] for axis in (0, 1))
    if not room.any():
        return np.zeros((0, len(READ), 3), np.float32), 0.0
    across = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(across, np.float32), float(room.mean())


def _stepping(across: Field) -> tuple[float, float]:
    """On which share of an outline chroma steps, one way and within a px or two; and by how many levels, in the median."""
    jump = (across[:, -1, 1:] - across[:, 0, 1:]).mean(axis=0)
    one_way = across[:, STEPS, 1:] @ (jump / max(1e-6, float(np.hypot(*jump))))
    whole = one_way[:, -1] - one_way[:, 0]
    steep = np.diff(one_way, axis=1).max(axis=1) > ONE_STEP * np.maximum(whole, 1.0)
    return float((steep & (whole > JUMP)).mean()), float(np.median(whole))


def _stays(areas: Sequence[Area]) -> bool:
    """Whether areas take the same place in all their frames."""
    frames = {area.frame for area in areas}
    anywhere = np.any([area.mask for area in areas], axis=0)
    return sum(int(area.mask.sum()) for area in areas) >= STAYS * int(anywhere.sum()) * len(frames)


def _is_drawn(areas: Sequence[Area], pictures: Sequence[Field]) -> bool:
    """Whether areas of one colour with crisp outlines are a drawing's."""
    inner = [(area, _inner(area.mask)) for area in areas]
    inner = [(area, core) for area, core in inner if core.any()]
    if not inner:
        return False
    colours = [pictures[area.frame][core] for area, core in inner]
    chroma = np.concatenate(colours)[:, 1:]
    if np.hypot(*chroma.mean(axis=0)) < SATURATED:
        return False
    crisp = float(np.mean([area.crisp for area in areas]))
    if crisp >= FAIRLY_CRISP and _is_tint(np.concatenate([area.across for area in areas])):
        return True
    texture = np.concatenate([_detail(pictures[area.frame][..., 0], core) for area, core in inner])
    if crisp >= VERY_CRISP and spread(texture) >= TEXTURE and _is_light_without_colour(np.concatenate(colours)):
        return True
    closed = float(np.mean([area.read for area in areas])) >= CLOSED
    return closed and _is_flat(colours) and _flat_share(areas, pictures) < FLAT_FILM


def _inner(mask: Mask) -> Mask:
    """The pixels of an area that are not beside its outline."""
    import cv2

    return np.asarray(cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1) > 0)


def _detail(luma: Field, core: Mask) -> Field:
    """Luma minus its mean nearby, of the pixels of a core: float32 [n]."""
    import cv2

    weight = core.astype(np.float32)
    mean = cv2.blur(luma * weight, (DETAIL, DETAIL)) / np.maximum(cv2.blur(weight, (DETAIL, DETAIL)), 1e-3)
    return np.asarray((luma - mean)[core])


def spread(texture: Field) -> float:
    """The deviation of what lies between the extremes. texture: float32 [n]."""
    low, high = np.quantile(texture, (EXTREMES, 1 - EXTREMES))
    return float(texture[(texture >= low) & (texture <= high)].std())


def _is_tint(across: Field) -> bool:
    """Whether what is within an outline is what is beyond it, dimmed and shifted. across: float32 [n, 7, 3]."""
    outside, inside = across[:, OUTER], across[:, INNER]
    costs, fits = [], []
    shares = np.arange(0.0, 1.01, 0.1, dtype=np.float32)
    for share in shares:
        difference = inside - share * outside
        off = np.abs(difference - np.median(difference, axis=0)).max(axis=1)
        costs.append(float(np.minimum(off, FAR).mean()))
        fits.append(float((off < NEAR).mean()))
    best = int(np.argmin(costs))
    explained = 1 - costs[best] / max(1.0, costs[0])
    if shares[best] < TINT - 1e-3 or explained < EXPLAINS or fits[best] < FITS:
        return False
    luma = np.stack([outside[:, 0], inside[:, 0]])
    return bool(luma.std(axis=1).min() > 0 and np.corrcoef(luma[0], luma[1])[0, 1] >= FOLLOWS)


def _is_light_without_colour(colours: Field) -> bool:
    """Whether luma changes and chroma does not. colours: Y, Cr, Cb of all pixels within the areas, float32 [n, 3]."""
    luma, mean = colours[:, 0], colours[:, 1:].mean(axis=0)
    saturation = float(np.hypot(*mean))
    shades = saturation * float(luma.std()) / max(1.0, float(luma.mean()))
    along = colours[:, 1:] @ (mean / saturation)
    return shades >= SHADES and float(along.std()) <= COLOUR_OF_LIGHT * shades


def _is_flat(colours: Sequence[Field]) -> bool:
    """Whether areas have one colour, within and among themselves. colours: float32 [n, 3] of each."""
    middles = np.stack([np.median(one, axis=0) for one in colours])
    middle = np.median(middles, axis=0)
    off = max(float(np.abs(one - own).mean(axis=0).max()) for one, own in zip(colours, middles, strict=True))
    return bool(off <= EVEN and np.abs(middles - middle).max() <= EVEN and np.hypot(*middle[1:]) >= PURE)


def _flat_share(areas: Sequence[Area], pictures: Sequence[Field]) -> float:
    """The share of flat pixels in the frames of these areas, outside of them."""
    import cv2

    flat, total = 0, 0
    for number in {area.frame for area in areas}:
        outside = ~np.any([area.mask for area in areas if area.frame == number], axis=0)
        luma = pictures[number][..., 0]
        ones = np.ones((3, 3), np.uint8)
        level = cv2.dilate(luma, ones) - cv2.erode(luma, ones) <= FLAT
        flat, total = flat + int((level & outside).sum()), total + int(outside.sum())
    return flat / max(1, total)
