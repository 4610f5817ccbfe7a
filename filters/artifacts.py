"""Borders, static marks, panels and overlaid text: which share of the frame is not the scene.

Formula: area of the union / area of the frame, per keyframe, of

- **borders** (letterbox, pillarbox, both), see `longtake.filters.bars`: rows or columns at the frame's edge of one colour, in
  all frames of the sample, up to a sharp straight inner edge;
- **panels** (split screen, picture in picture, banners, plates, blurred pillars), see `longtake.filters.panels`: rectangles
  whose sides are straight lines at which the picture jumps in most frames, with any content on both sides; with them the
  parts of a frame that lines divide (`longtake.filters.dividers`), pillars and banners that are the picture's own blurred
  copy, or its last column drawn out (`longtake.filters.blurred_grounds`), where there is nothing but an end of all edges, or
  its mirror image, or itself once more (`longtake.filters.copied_grounds`), and a film that stands still beside or within one
  that moves, or the other way about (`longtake.filters.two_films`), round pictures in pictures (`longtake.filters.discs`), and
  what has an outline of one colour (`longtake.filters.outlined_boxes`): a film within counts, an empty frame by its line;
- **static marks** (logos, watermarks, drawn frames), see `longtake.filters.marks`: edges that stand still in all frames while
  the picture moves;
- **translucent marks** (large pale or dark letters and logos), see `longtake.filters.translucent`: closed outlines over all of
  which the darkness of the picture, or its brightness, is less by the same share, however bright the ground is; with backend
  `rapidocr` only, those of a strong colour by their chroma, and black ones over a scene that stands still;
- **tiled watermarks**, see `longtake.filters.tiles`: words or logos repeated on a lattice over the whole picture, each by the box
  around it; over a scene that stands still, too, if they lie on a lattice as exactly as no camera sees a wall's pattern;
- **overlaid text** (backend `rapidocr` only), see `longtake.filters.overlaid_text`: boxes of RapidOCR's detection model (see
  `longtake.filters.text_boxes`) whose content stands still while the scene around it moves, or scrolls or wanders over it, each
  with the plate of one colour on which it stands, see `longtake.filters.plates`, or, in a scene that stands still, the
  translucent one, see `longtake.filters.translucent_plates`. A shop sign that passes by moves with the
  scene, and is not counted;
- **drawings** (backend `rapidocr` only), see `longtake.filters.drawings`: painted lanes, tinted masks, arrows and filled shapes
  that move with the scene, by their crisp outline and a colour that light does not change.

**Seen, not seen, not knowable.** In a scene that does not move (see `longtake.filters.stillness`: a tripod, or an empty
picture) marks and most panels cannot be distinguished from the scene. These can be: borders, pillars that mirror one another,
the joint of a split screen, exact as no camera is (`longtake.filters.joints`), cards, boxes and bands as exact
(`longtake.filters.rectangles`), a film of a moving camera set into it, large translucent letters, and, with backend
`rapidocr`, text, and rectangles that pop up in some keyframes (`longtake.filters.pop_ups`). The setting `not_known` says what
becomes of such a clip, whose score may be too low:

- `text` (as it is by default): boxes of text count in full, even where they may belong to the scene; other still edges do not.
- `null`: the score is stored as null, a gate on it stays undecided unless what is known already fails it, and it is not measured
  again. `stats`, `show`, the report and the studio tell such clips apart ("not known") from those that wait ("no score").
- `ignore`: what is not known counts as nothing.

Backend `borders` looks at no text: there `text` is as `null`.

Unit: share of the area. Range: 0 to 1. Source: gate ≤ 5 % in Table 4 of the Presto paper (arXiv 2412.01316), which
does not say how it was measured. Reduced by the worst keyframe (`max`) unless set; the detail, one value per keyframe, also gives
the share of keyframes concerned, which is a filter of its own (`artifact_keyframes`). `Borders` (backend `borders`) measures all
but text in the scan, and is a lower bound of `Artifacts` (backend `rapidocr`), which adds the text to the marks that the scan
stored.

Protocol: `borders/bars10+panels480.7+marks480.13/max`; `rapidocr/` the same, `+overlay.14,` SHA-256 of the model, side,
thresholds, `not_known`, `/max`.
Cost: borders, panels and marks 60 ms per clip (ten 960×540 frames); text 0.9 s per clip on one core, of which 0.05 s to tell
whose it is; where a scene stands still 3 ms more for each line of a keyframe, for translucent plates. How well it separates
real clips with an area above 0.05 from others: docs/measured.md.

Known to go wrong: a car's bonnet in a dash-cam is a mark; an opaque mark without edges of its own on a flat ground is not
seen, nor is a pale one where much of its rim lies on a scene of its own lightness; marks over a scene with large plain parts
make it look still, and are then not known; subtitles are missed where they do not stay for 0.5 s; letters that scroll are
missed over a plain ground, or where they do not go evenly; a watermark that wanders is missed where it is pale, or is none of
letters; a far sign on the axis of a drive hardly moves, and may be counted; text of the scene in a tripod shot counts unless
it leans; of a scene that stands still, a still picture in it that stays from the first frame to the last is not seen, nor a
translucent watermark or plate that is small, before an even ground, or fainter than its ground's texture, nor an empty plate
whose corners are round, nor a joint of two pictures that are alike along a
tenth of it, and a title without a plate may count with what lies beyond it; tiled marks that are dark, or have an outline,
are missed there if they are stronger than what the scene shows within a copy, and grey ones everywhere if the scene is grey,
too; a drawn wall whose pattern is exact counts where shadows fall on it; a plate that moves with its words counts by the
words; a box whose outline is as light as the scene in places is missed, or, empty, may count with what is within it; a screen
or a door that lights up in a tripod shot may be taken for a pop-up, and a card that has the ground's own colour over a tenth
of its area is missed; what is over a scene that stands still and has more than four lines from border to border (a facade, a
chess board, bricks, shelves of books) is not seen, but for borders, blurred pillars, films that move and text; of one that
repeats itself at a slant, or has fewer lines, windows and bricks may be taken for pale marks, and framed pictures and the
bars of a window seen exactly from the front for cards or joints; in a moving scene rows of words from border to border may be
taken for such lines; of drawings that move with the scene, pale and grey ones, thin lines (the boxes of object detectors),
those over a ground of strong colours, or over an even one where nothing shows through, are missed, about half of made ones; a
light border above alone is taken for a sky unless the scene goes up and down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from longtake.filters.base import (
    Filter,
    FilterSettings,
    Image,
    MeasureError,
    Needs,
    Reduce,
    Sample,
    Score,
    reduce_detail,
)
from longtake.filters.drawings import drawn
from longtake.filters.grayscale import grey
from longtake.filters.marks import Mask, Seen, apart_from, enlarged, reduced, seen, with_lines
from longtake.filters.overlaid_text import Judged, beside, filled, judged
from longtake.filters.plates import on_lasting_plates, without_known
from longtake.filters.pop_ups import pop_ups
from longtake.filters.text_boxes import BOX_THRESHOLD, LONG_SIDE, PIXEL_THRESHOLD, UNCLIP, Boxes, model_hash, text_boxes
from longtake.filters.translucent import coloured, darkened
from longtake.filters.translucent_plates import seen_through

# A change of a number in bars.py, panels.py, dividers.py, blurred_grounds.py, copied_grounds.py, outlined_boxes.py, marks.py,
# outlines.py, joints.py, rectangles.py, stillness.py, two_films.py, discs.py, translucent.py, tiles.py or lattices.py raises
# the number at the end of METHOD; one in overlaid_text.py, plates.py, translucent_plates.py, pop_ups.py or drawings.py raises
# that of TEXT_METHOD.
METHOD = "bars10+panels480.7+marks480.13"
TEXT_METHOD = "overlay.14"

NotKnown = Literal["text", "null", "ignore"]


class ArtifactsSettings(FilterSettings):
    """As every filter's, but that the worst keyframe counts, and how a clip is scored whose scene does not move."""

    reduce: Reduce = Field("max", description="as everywhere; the worst keyframe counts unless set")
    not_known: NotKnown = Field(
        "text",
        description="how a clip is scored whose scene moves too little to show what was put over it. `text`: boxes of text "
        "count in full, other still edges do not (as `null` where no text is looked for). `null`: the score is stored as not "
        "known, and the gate stays undecided unless the known part fails it. `ignore`: an area that is not known counts as "
        "nothing",
    )


class Borders(Filter[Sample]):
    """Share of the frame under borders, panels and static marks; the marks stored with the sample are used where it has them.

    Detail: one value per keyframe; as marks stand still they are all equal. Where marks cannot be distinguished from the scene,
    the value is not known (nan), unless `not_known` is `ignore`, and the detail is the least that it can be.
    """

    name: ClassVar[str] = "artifacts"
    backend: ClassVar[str] = "borders"
    unit: ClassVar[str] = "share of the area (0-1)"
    needs: ClassVar[Needs] = Needs.SAMPLE
    cost: ClassVar[float] = 50.0
    settings_model: ClassVar[type[FilterSettings]] = ArtifactsSettings
    settings: ArtifactsSettings

    @property
    def method(self) -> str:
        return METHOD + (",ignore" if self.settings.not_known == "ignore" else "")

    def annotate(self, item: Sample) -> Sample:
        found = _seen_in(item)
        return replace(item, marks=found.mask, marks_known=found.known)

    def measure(self, items: Sequence[Sample]) -> list[Score | MeasureError]:
        return [self._measured(item) for item in items]

    def _measured(self, item: Sample) -> Score | MeasureError:
        try:
            found = _seen_in(item)
        except MeasureError as error:
            return error
        area = float(found.mask.mean())
        known = found.known or self.settings.not_known == "ignore"
        return Score(area if known else math.nan, (area,) * len(item.keyframes))


class Artifacts(Filter[Sample]):
    """Share of the frame under borders, panels, static marks or overlaid text, as a union. Detail: one value per keyframe.

    With `not_known: null`, where marks or text cannot be distinguished from the scene, the value is not known (nan), and the
    detail is the least that it can be. `method` already raises FilterUnavailable without rapidocr or its model, before any
    work.
    """

    name: ClassVar[str] = "artifacts"
    backend: ClassVar[str] = "rapidocr"
    unit: ClassVar[str] = "share of the area (0-1)"
    needs: ClassVar[Needs] = Needs.FRAMES
    cost: ClassVar[float] = 3000.0
    settings_model: ClassVar[type[FilterSettings]] = ArtifactsSettings
    settings: ArtifactsSettings

    @property
    def method(self) -> str:
        detector = f"{model_hash()},side{LONG_SIDE},{PIXEL_THRESHOLD:g}/{BOX_THRESHOLD:g}/{UNCLIP:g}"
        return f"{METHOD}+{TEXT_METHOD},{detector},{self.settings.not_known}"

    @property
    def lower_bound(self) -> Filter[Sample]:
        # An area that is not known counts as nothing, too, where this filter might not count it.
        return Borders(reduce=self.reduce, not_known="ignore").seeing(self.crop)

    def measure(self, items: Sequence[Sample]) -> list[Score | MeasureError]:
        return [self._measured(item) for item in items]

    def _measured(self, item: Sample) -> Score | MeasureError:
        try:
            frames = [grey(frame) for frame in (*item.keyframes, *item.partners)]
            # A sample does not store whether marks could be recognised. To see it again costs little beside the text.
            again = seen(frames)
            found = again if item.marks is None else replace(again, mask=_seen_in(item).mask)
            boxes = [beside(text_boxes(keyframe), found.copies) for keyframe in item.keyframes]
            found = with_lines(frames, boxes, found)
            text = judged(frames, boxes, found)
            return self._united(item, found, text)
        except MeasureError as error:
            return error

    def _united(self, item: Sample, found: Seen, text: Sequence[Judged]) -> Score:
        """The union of marks, drawings, pop-ups, and text with its plates, keyframe by keyframe."""
        counted = [lines.overlaid for lines in text]
        if self.settings.not_known == "text":
            counted = [np.concatenate([lines.overlaid, lines.unknown]) for lines in text]
        counted = [without_known(boxes, found.mask) for boxes in counted]
        small = [reduced(picture) for picture in (*item.keyframes, *item.partners)]
        marks = found.mask | _tinted(small, found)
        if not found.known:
            marks |= _on_translucent_plates(small, counted, found.mask.shape)
        under = [marks | mask for mask in drawn(item.keyframes, item.partners, found)]
        if not found.known:
            pops = pop_ups(item.keyframes, item.partners)
            under = [mask | pop for mask, pop in zip(under, pops, strict=True)]
        plates = on_lasting_plates(item.keyframes, item.partners, counted)
        pairs = zip(under, plates, strict=True)
        detail = tuple(float((mask | filled(boxes, mask.shape)).mean()) for mask, boxes in pairs)
        sure = found.known and not any(len(lines.unknown) for lines in text)
        unknown = self.settings.not_known == "null" and not sure
        return Score(math.nan if unknown else reduce_detail(detail, self.reduce), detail)


def _tinted(small: Sequence[Image], found: Seen) -> Mask:
    """What lies under translucent marks of a strong colour, and under black ones that a scan does not tell from shadows: bool
    [h, w]. small: all frames, `reduced`."""
    others = None if found.copies is None else apart_from(reduced(found.copies.astype(np.uint8) * 255) > 127)
    mask = coloured(small, still=not found.known, within=others)
    return enlarged(mask if found.known else mask | darkened(small, others), *found.mask.shape)


def _on_translucent_plates(small: Sequence[Image], boxes: Sequence[Boxes], shape: tuple[int, ...]) -> Mask:
    """What lies under translucent plates with words: bool of the given shape [h, w]. small: all frames, `reduced`. boxes: of the
    words in each keyframe, int32 [n, 4, 2]."""
    scale = small[0].shape[1] / shape[1]
    scaled = [np.rint(of_one * scale).astype(np.int32) for of_one in boxes]
    return enlarged(seen_through(small, scaled), *shape)


def _seen_in(sample: Sample) -> Seen:
    """What is under borders, panels and marks of a sample: as it was stored, or else as it is seen in the frames."""
    if sample.marks is None:
        frames = [grey(frame) for frame in (*sample.keyframes, *sample.partners)]
        if not frames:
            raise MeasureError("nothing was measured: the sample has no frames")
        return seen(frames)
    if sample.marks.shape != sample.keyframes.shape[1:3]:
        raise MeasureError(f"marks are {sample.marks.shape}, frames {sample.keyframes.shape[1:3]}: not one sample")
    return Seen(sample.marks, sample.marks_known)
