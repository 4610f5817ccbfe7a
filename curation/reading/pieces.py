"""The scan of a long film, as `seams` defines it: in one go, or one piece of it alone. Both give the same."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from itertools import chain

from longtake.curation.access import Source
from longtake.curation.reading.acceptance import checked, counted_fps
from longtake.curation.reading.cuts import Cut, CutDetector
from longtake.curation.reading.decoding import DecodeCount, DecodedFrame, decode
from longtake.curation.reading.early import EarlyLook
from longtake.curation.reading.judge import ClipScan, Judge, Keep, Show, VideoScan, show_nothing
from longtake.curation.reading.one_pass import Pass
from longtake.curation.reading.opening import OpenVideo, open_video
from longtake.curation.reading.sampling import Span
from longtake.curation.reading.scan_video import lost_at_once, scan_opened
from longtake.curation.reading.seams import (
    Piece,
    PieceScan,
    by_stretch,
    find_seams,
    join,
    take_seconds,
)
from longtake.curation.reading.seeking import LEADS, seek
from longtake.curation.reading.shots import build_detectors
from longtake.curation.reading.video import VideoInfo, as_shown
from longtake.curation.recipe import Recipe
from longtake.filters.base import Image, Sample
from longtake.manifests.frames import StoredStrip

_Told = Callable[[float], None]


def scan_whole(
    source: str | Source,
    recipe: Recipe,
    keep: Keep,
    *,
    spans: Sequence[Span] = (),
    all_scores: bool = False,
    on_duration: _Told = lambda seconds: None,
    show: Show = show_nothing,
) -> VideoScan:
    """Scan one film, whatever its length, in one go; arguments and errors as of `scan_video`."""
    with open_video(source) as video:
        info, judge = checked(video, recipe), Judge(recipe, all_scores, keep, show, source)
        seams = () if spans else find_seams(source, info, recipe.splitting)
        if not seams:
            return scan_opened(video, info, source, judge, spans, on_duration)
        if (lost := lost_at_once(info, judge)) is not None:
            return lost
        on_duration(info.duration)
        # Each piece has a judge of its own, since a judge may remember what it saw of earlier clips.
        judges = [judge, *(Judge(recipe, all_scores, keep, show, source) for _ in seams)]
        return _in_one_go(video, info, judges, EarlyLook(source, judge), seams)


def scan_first(
    source: str | Source,
    recipe: Recipe,
    keep: Keep,
    *,
    spans: Sequence[Span] = (),
    all_scores: bool = False,
    on_duration: _Told = lambda seconds: None,
    show: Show = show_nothing,
    on_piece: Callable[[Piece], None] = lambda piece: None,
) -> VideoScan | PieceScan:
    """Scan one film, or of a long one the first piece, which `on_piece` is told before; the rest as of `scan_video`."""
    with open_video(source) as video:
        info, judge = checked(video, recipe), Judge(recipe, all_scores, keep, show, source)
        seams = () if spans else find_seams(source, info, recipe.splitting)
        if not seams:
            return scan_opened(video, info, source, judge, spans, on_duration)
        if (lost := lost_at_once(info, judge)) is not None:
            return lost
        piece = Piece(seams, 0, take_seconds(recipe.splitting))
        on_piece(piece)
        on_duration(piece.seconds(info.duration))
        return _of_one(PiecePass(video, info, judge, EarlyLook(source, judge), piece))


def scan_piece(
    source: str | Source,
    recipe: Recipe,
    keep: Keep,
    piece: Piece,
    *,
    all_scores: bool = False,
    on_duration: _Told = lambda seconds: None,
    show: Show = show_nothing,
) -> PieceScan | VideoScan:
    """Scan one piece of a film. The first may tell that the film is rejected as it is, and no other piece counts. keep: as of
    `scan_video`; on_duration: told the seconds of this piece. Raises VideoError."""
    with open_video(source) as video:
        info, judge = checked(video, recipe), Judge(recipe, all_scores, keep, show, source)
        on_duration(piece.seconds(info.duration))
        return _of_one(PiecePass(video, info, judge, EarlyLook(source, judge), piece))


def _of_one(this: PiecePass) -> PieceScan | VideoScan:
    """What comes of reading one piece by itself."""
    frames = this.entered() if this.piece.number else this.first_frames()
    for decoded in frames:
        if not this.piece.number and not this.pushed and (rejected := this.begin(decoded)) is not None:
            return rejected
        this.push(decoded)
        if this.over:
            break
    scan = this.finish()
    scan.hand_over_short(this.judge)
    return scan


def _in_one_go(
    video: OpenVideo, info: VideoInfo, judges: list[Judge], early: EarlyLook, seams: tuple[float, ...]
) -> VideoScan:
    """All pieces out of one reading of the film: of those that are read at a moment, each sees the frames from its seam on."""
    take = take_seconds(judges[0].recipe.splitting)
    first = PiecePass(video, info, judges[0], early, Piece(seams, 0, take))
    passes, at_work = [first], [first]
    counts = [first.count, *(DecodeCount() for _ in seams)]

    def enough(last: float) -> bool:
        return len(at_work) == 1 and at_work[0].enough(last)

    for decoded in decode(video, info, by_stretch(seams, counts), enough=enough, seams=seams):
        if not first.pushed and (rejected := first.begin(decoded)) is not None:
            return rejected
        while len(passes) <= len(seams) and decoded.time >= seams[len(passes) - 1]:
            piece = Piece(seams, len(passes), take)
            after = PiecePass(video, first.info, judges[piece.number], early, piece)
            after.count = counts[piece.number]
            passes.append(after)
            at_work.append(after)
        for one in at_work:
            one.push(decoded)
        at_work = [one for one in at_work if not one.over]
    return join([one.finish() for one in passes], judges[0], apart=False)


class PiecePass(Pass):
    """The pass over one piece. over: nothing that comes is of this piece any more. pushed: frames that were pushed."""

    begins_anew = False  # Other pieces may be read at the same time.

    def __init__(self, video: OpenVideo, info: VideoInfo, judge: Judge, early: EarlyLook, piece: Piece) -> None:
        super().__init__(video, info, judge, early)
        judge.one_clock = True
        self.count = DecodeCount()  # No hash is made of the packets, since a piece reads a part of them only.
        self.piece = piece
        self.own: list[CutDetector] = build_detectors(self.splitting, piece.start)
        self.detectors = list(self.own)
        self.after: list[CutDetector] = []  # These detectors begin at the next seam.
        self.closers: list[Cut] = []  # The detectors in `after` found these cuts behind the next handover.
        self.over = False
        self.pushed = 0
        self.film_end = math.inf
        self.begun: tuple[float, float] | None = None
        self.ended: tuple[float, float] | None = None
        self.head, self.tail = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
        self.crossed = False  # Whether the next seam has come.
        self.time = self.intact = self.settled = piece.start
        self.waiting = piece.number > 0  # Whether the first shot of this piece is still to come.
        if self.waiting:
            self.shot_start, self.window_start = -math.inf, math.inf
            self._want_windows(piece.begins_by)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, first: DecodedFrame) -> VideoScan | None:
        """What the film's first frame tells; the scan of the film, if it is rejected by that."""
        rejected = self._first(first)
        return None if rejected is None else VideoScan(self.info, [rejected], [], self.count)

    def first_frames(self) -> Iterator[DecodedFrame]:
        """The frames of the first piece, from the beginning of the film."""
        return self._decode()

    def entered(self) -> Iterator[DecodedFrame]:
        """The frames from the seam of a later piece on; none if there is no way to it."""
        shown = next(decode(self.video, self.info, DecodeCount()), None)
        if shown is None:
            return iter(())
        turned = as_shown(self.video, self.info, shown.frame)
        if turned is not self.info:
            self.set_info(turned)
        for lead in LEADS:
            if not seek(self.video, self.piece.start - lead):
                break
            self.count = DecodeCount()
            frames = self._decode()
            first = next(frames, None)
            if first is not None and first.time == self.piece.start:
                return chain([first], frames)
        self.count = DecodeCount()
        return iter(())

    def _decode(self) -> Iterator[DecodedFrame]:
        piece = self.piece
        aside = DecodeCount()
        counts = [self.count if number == piece.number else aside for number in range(piece.of)]
        frames = decode(self.video, self.info, by_stretch(piece.seams, counts), enough=self.enough, seams=piece.seams)
        return (decoded for decoded in frames if decoded.time >= piece.start)

    def enough(self, last: float) -> bool:
        """As in the pass over a whole film; in other pieces than the last, something always comes."""
        return self.piece.is_last and not self.waiting and self._enough(last)

    def push(self, decoded: DecodedFrame) -> None:
        self.pushed += 1
        if not self.crossed and decoded.time >= self.piece.until:
            self._cross()
        super().push(decoded)

    def _cross(self) -> None:
        """At the next seam: from here on what the next piece sees is seen, too."""
        self._detect()
        self.crossed = True
        self.looked = -math.inf
        self.after = build_detectors(self.splitting, self.piece.until)
        self.detectors = [*self.own, *self.after]

    def _see(self, now: float, thumb: Image) -> None:
        super()._see(now, thumb)
        if self.piece.start <= now < self.piece.begins:
            self.head.update(struct.pack("<d", now) + thumb.tobytes())
        if self.piece.until <= now < self.piece.ends:
            self.tail.update(struct.pack("<d", now) + thumb.tobytes())

    # ── cuts ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _settled(self) -> float:
        own = min(detector.settled for detector in self.own)
        if own < self.piece.ends:
            return own
        return max(self.piece.ends, min(detector.settled for detector in self.after))

    def _detect(self) -> None:
        looks, self.looks = self.looks, []
        for detector in self._asked():
            for time, thumb in looks:
                self._take(detector.push(time, thumb), ours=True)
        for detector in self.after:
            for time, thumb in looks:
                self._take(detector.push(time, thumb), ours=False)

    def _asked(self) -> list[CutDetector]:
        """Its own detectors, until they know of all that comes before the next handover."""
        done = self.own and min(detector.settled for detector in self.own) >= self.piece.ends
        return [] if done else self.own

    def _take_cut(self, cut: Cut) -> None:
        for ours in (True, False):
            self._take([cut], ours=ours)

    def _take(self, cuts: Sequence[Cut], *, ours: bool) -> None:
        """Cuts that were found by its own detectors, or by those that begin at the next seam."""
        for cut in cuts:
            if ours and self.piece.begins <= cut.start < self.piece.ends:
                self.pending.append(cut)
                self._want_windows(cut.end + self._trim)
            elif not ours and cut.start >= self.piece.ends:
                self.closers.append(cut)

    def _apply_cuts(self, settled: float) -> None:
        if self.over or (self.waiting and not self._begins(settled)):
            return
        super()._apply_cuts(min(settled, self.piece.ends))
        closer = min((cut for cut in self.closers if cut.start <= settled), default=None)
        if closer is not None and closer.start < self.piece.ends_by:
            self._end((closer.start, closer.end), closer.start - self._trim)
        elif self.piece.ends_by <= min(settled, self.film_end):
            self._end((self.piece.ends_by, self.piece.ends_by), self.piece.ends_by)

    def _begins(self, settled: float) -> bool:
        """Whether the first shot of this piece has begun."""
        by = self.piece.begins_by
        first = min((cut for cut in self.pending if cut.start <= settled), default=None)
        if first is not None and first.start < by:
            self.pending.remove(first)
            self.begun = first.start, first.end
            self.cuts.append(first.end)
            self._open_shot(first.end + self._trim)
        elif by <= min(settled, self.film_end):
            self.begun = by, by
            self._open_shot(by)
            self.shot_start = -math.inf  # The take has begun long before.
        else:
            return False
        self.waiting = False
        return True

    def _end(self, cut: tuple[float, float], end: float) -> None:
        self._close_shot(end)
        self.ended, self.over = cut, True
        self.window_start = math.inf

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def finish(self) -> PieceScan:
        """What was found, after the last frame of the piece."""
        self.count.rate.finish()
        end = None
        if not self.over and self.pushed:
            fps = counted_fps(self.info, self.count)
            end = max(self.time, self.count.last) + 1 / fps
            self.film_end = self._shown_until(end)
            self.buffer.finish()
            self._finish_shots(self.film_end)
        short, sample, strip = self._short()
        return PieceScan(
            self.piece.number,
            self.info,
            self.clips,
            self.cuts,
            self.count,
            self.time,
            end,
            self.left_out,
            self.head.hexdigest(),
            self.tail.hexdigest(),
            self.begun,
            self.ended,
            short,
            sample,
            strip,
        )

    def _finish_shots(self, end: float) -> None:
        if self.count.passed_over:
            super()._finish_shots(end)
            return
        self._detect()
        for detector in self._asked():
            self._take(detector.finish(), ours=True)
        for detector in self.after:
            self._take(detector.finish(), ours=False)
        self._apply_cuts(math.inf)
        if not self.over and not self.waiting:
            self._close_shot(end)

    def _short(self) -> tuple[ClipScan | None, Sample | None, StoredStrip | None]:
        """The longest shot of a piece without a clip, measured, and its sample or its strip, if that is to be stored."""
        if self.clips or self.longest_short is None:
            return None, None, None
        clip, sample, seen = self.longest_short
        kept: list[Sample] = []
        shown: list[StoredStrip] = []
        # The shot that stands for the film is known once all pieces are read, so the sample and the strip are set aside until
        # then.
        aside = copy(self.judge)
        aside.keep, aside.show = (lambda span, one: kept.append(one)), (lambda span, one: shown.append(one))
        aside.add(self.info, clip, sample, self._strip(seen))
        return clip, kept[0] if kept else None, shown[0] if shown else None
