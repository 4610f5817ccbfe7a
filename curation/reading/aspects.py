"""Sample aspect ratios that change within a film: broadcasts show pictures of 4:3 and of 16:9 at one coded size."""

from __future__ import annotations

from fractions import Fraction

from longtake.curation.reading.since import Since

# Containers that leave the sample aspect ratio to the stream. What others say of it is for the whole film.
FROM_STREAM = {"mpegts", "mpeg"}


class Aspects:
    """How wide a pixel of a film is, of its height, by the moments from which it holds."""

    def __init__(self, first: Fraction | None) -> None:
        """first: that of the first frame; None, or not above 0, where nothing is said."""
        self._known = Since(self._said(first))

    def note(self, time: float, aspect: Fraction | None) -> None:
        """What the decoder says once it has the packet that is shown at `time`, seconds. A moment may be read again."""
        self._known.note(time, self._said(aspect))

    def at(self, time: float) -> float:
        """Of a frame that is shown at `time`, seconds; 1 where nothing is said."""
        return self._known.at(time)

    @staticmethod
    def _said(aspect: Fraction | None) -> float:
        return float(aspect) if aspect and aspect > 0 else 1.0
