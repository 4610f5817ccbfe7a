"""Planning and the buffer against brute force: every frame kept, every distance measured."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.curation.reading.sampling import (
    LOOSE,
    FrameBuffer,
    Span,
    centres,
    cut_windows,
    grid_step,
    pair_count,
    pair_starts,
)
from longtake.curation.recipe import Longer

Spans = list[tuple[float, float]]
CLOSE = 1e-5  # Seconds: plans may round by this.
seconds = st.floats(0.5, 60)
starts = st.floats(0, 10_000)


# ---------------------------------------------------------------------------------------------------------------------
# Windows, centres, grid


longer_shots = st.sampled_from(["windows", "trim", "faster"])


@given(starts, st.floats(0, 1000), seconds, st.floats(0.1, 1), longer_shots)
def test_windows_of_any_shot(start: float, length: float, window: float, share: float, longer: Longer) -> None:
    shot, minimum = Span(start, start + length), window * share
    windows = cut_windows(shot, window, minimum, longer)
    if not windows:
        assert shot.seconds < minimum + CLOSE
        return
    assert windows[0].start == shot.start
    assert all(a.end == b.start for a, b in pairwise(windows))
    assert all(span.seconds >= minimum - CLOSE for span in windows)
    assert windows[-1].end <= shot.end + CLOSE
    short = shot.seconds < window - CLOSE
    if longer == "faster" or short:
        assert windows[-1].end == shot.end
        assert windows[-1].seconds < 2 * window + CLOSE
        windows = windows[:-1]
    assert all(span.seconds == pytest.approx(window, abs=CLOSE) for span in windows)
    if longer == "windows" and not short:
        assert shot.end - windows[-1].end < window + CLOSE
    if longer == "trim":
        assert len(windows) == (0 if short else 1)


@pytest.mark.parametrize(
    ("shot", "windows", "trim", "faster"),
    [
        (Span(0, 14.9), [], [], []),
        (Span(0, 15), [(0, 15)], [(0, 15)], [(0, 15)]),
        (Span(0, 22.9), [(0, 15)], [(0, 15)], [(0, 22.9)]),
        (Span(0, 30), [(0, 15), (15, 30)], [(0, 15)], [(0, 15), (15, 30)]),
        (Span(3, 50), [(3, 18), (18, 33), (33, 48)], [(3, 18)], [(3, 18), (18, 33), (33, 50)]),
        (Span(5, 5), [], [], []),
    ],
)
def test_windows_by_hand(shot: Span, windows: Spans, trim: Spans, faster: Spans) -> None:
    assert _ends(cut_windows(shot, 15, 15)) == windows
    assert _ends(cut_windows(shot, 15, 15, "trim")) == trim
    assert _ends(cut_windows(shot, 15, 15, "faster")) == faster


def _ends(spans: list[Span]) -> Spans:
    return [(span.start, span.end) for span in spans]


def test_a_shot_between_minimum_and_window_is_one_clip() -> None:
    assert cut_windows(Span(0, 12), 15, 10) == [Span(0, 12)]
    assert cut_windows(Span(0, 9), 15, 10) == []


def test_frames_counted_in_floats_make_a_whole_window() -> None:
    """450 times a 30th of a second is 15 s, whatever the sum of such floats says."""
    shot = Span(0.1, 0.1 + sum([1 / 30] * 450))
    assert len(cut_windows(shot, 15, 15)) == 1


def test_centres_by_hand() -> None:
    assert centres(Span(0, 16), 5) == pytest.approx([1.6, 4.8, 8.0, 11.2, 14.4])
    assert centres(Span(10, 25), 5) == pytest.approx([11.5, 14.5, 17.5, 20.5, 23.5])


@given(starts, seconds, st.integers(1, 20))
def test_centres_lie_in_the_middle_of_equal_segments(start: float, length: float, count: int) -> None:
    span = Span(start, start + length)
    segment = length / count
    found = centres(span, count)
    assert len(found) == count
    for i, centre in enumerate(found):
        assert centre == pytest.approx(start + segment * i + segment / 2, abs=CLOSE)


@given(st.integers(2, 60))
def test_keyframes_are_among_the_pairs(keyframes: int) -> None:
    count = pair_count(keyframes)
    assert count >= 15
    span = Span(3.0, 3.0 + count)
    starts = np.array(pair_starts(span, count, 0.25))
    assert all(np.abs(starts - centre).min() < CLOSE for centre in centres(span, keyframes))


def test_pairs_of_a_window_by_hand() -> None:
    assert pair_count(5) == 15
    assert pair_starts(Span(30, 45), 15, 0.5) == pytest.approx([*(30.5 + i for i in range(14)), 44.4])


@given(starts, st.floats(0.7, 60), st.integers(15, 40))
def test_the_second_picture_of_a_pair_lies_in_the_clip(start: float, length: float, count: int) -> None:
    span = Span(start, start + length)
    found = pair_starts(span, count, 0.5)
    assert len(found) == count
    assert found == sorted(found)
    assert span.start <= found[0]
    assert found[-1] + 0.5 < span.end
    assert np.diff(found).max(initial=0) <= length / count + CLOSE  # The samples are spread over the whole clip.


@given(st.floats(0.1, 100), st.integers(2, 50), st.floats(0.01, 10))
def test_grid_step(window: float, count: int, partner: float) -> None:
    step = grid_step(window, count, partner)
    assert partner / step == pytest.approx(round(partner / step))  # The partner of a keyframe lies on the grid, too.
    assert step <= window / count / 2 * (1 + 1e-6)  # Each segment has at least two places of the grid.
    coarser = partner / (round(partner / step) - 1) if round(partner / step) > 1 else math.inf
    assert coarser > window / count / 2 * (1 - 1e-6)  # There are no more of them than needed.


# ---------------------------------------------------------------------------------------------------------------------
# The buffer

gaps = st.one_of(st.floats(0.001, 0.2), st.floats(0.001, 2), st.sampled_from([1 / 30, 1 / 24, 0.5, 60.0, 5000.0]))
videos = st.lists(gaps, min_size=1, max_size=80).map(lambda parts: [math.fsum(parts[:i]) for i in range(len(parts))])
grid_steps = st.sampled_from([0.1, 0.25, 0.5, 1.0])


def fill(step: float, times: list[float], wanted: list[float] = []) -> FrameBuffer[float, float]:  # noqa: B006
    """A buffer of a whole video in which each frame is its own time."""
    buffer = FrameBuffer[float, float](step, lambda time, frame: frame)
    buffer.want(wanted)
    for time in times:
        buffer.push(time, time)
    buffer.finish()
    return buffer


@given(videos, grid_steps, st.lists(st.floats(0, 200), max_size=20))
def test_wanted_moments_get_the_nearest_frame_of_all(times: list[float], step: float, wanted: list[float]) -> None:
    buffer = fill(step, times, wanted)
    for moment in wanted:
        found = buffer.near(moment, Span(0, math.inf))
        assert found is not None
        assert found[0] == found[1]
        assert abs(found[0] - moment) == min(abs(time - moment) for time in times)


@given(videos, grid_steps, st.lists(st.floats(0, 200), min_size=1, max_size=20))
def test_any_other_moment_is_off_by_no_more_than_a_step(times: list[float], step: float, moments: list[float]) -> None:
    """The nearest frame to the nearest grid moment: half a step there, half a step back."""
    buffer = fill(step, times)
    for moment in moments:
        found = buffer.near(moment, Span(0, math.inf))
        assert found is not None
        assert abs(found[0] - moment) <= min(abs(time - moment) for time in times) + step + 1e-9


@given(videos, grid_steps, st.floats(0, 100), st.floats(0, 100), st.floats(0, 100))
def test_only_frames_of_the_span_are_given(
    times: list[float], step: float, start: float, length: float, at: float
) -> None:
    span = Span(start, start + length)
    found = fill(step, times, [at]).near(at, span)
    assert found is None or (span.start <= found[0] < span.end and found[0] in times)


@given(videos, grid_steps, st.data())
def test_wishes_in_the_middle_of_a_video(times: list[float], step: float, data: st.DataObject) -> None:
    """Moments to come are served exactly; a wish for one that is past is served by what was kept."""
    buffer = FrameBuffer[float, float](step, lambda time, frame: frame)
    future: list[float] = []
    for time in times:
        buffer.push(time, time)
        wish = data.draw(st.none() | st.floats(0, 50), label="seconds from now")
        if wish is not None:
            buffer.want([time + wish, time - wish])
            future.append(time + wish)
    buffer.finish()
    for moment in future:
        found = buffer.near(moment, Span(0, math.inf))
        assert found is not None
        # The buffer is asked for this very moment after its frame has passed: that frame may have been left out.
        best = min(abs(time - moment) for time in times)
        assert abs(found[0] - moment) == best or moment in times


@given(videos, grid_steps, st.lists(st.floats(0, 200), max_size=20))
def test_it_holds_one_frame_per_moment_at_most(times: list[float], step: float, wanted: list[float]) -> None:
    shrunk: list[float] = []
    buffer = FrameBuffer[float, float](step, lambda time, frame: shrunk.append(frame) or frame)  # type: ignore[func-returns-value]
    buffer.want(wanted)
    for time in times:
        buffer.push(time, time)
    buffer.finish()
    assert shrunk == sorted(set(shrunk))  # Each frame is made small once, and only if it is kept.
    assert len(buffer) == len(shrunk) <= min(len(times), (times[-1] - times[0]) / step + len(wanted) + 3)


@pytest.mark.parametrize("fps", [3, 25, 120, 1000])
def test_its_length_is_that_of_the_span_and_not_of_the_video(fps: int) -> None:
    buffer = FrameBuffer[int, int](0.5, lambda time, frame: frame)
    longest = 0
    for i in range(60 * fps):
        now = i / fps
        buffer.push(now, i)
        buffer.drop_before(now - 10)
        longest = max(longest, len(buffer))
    assert longest <= 10 / 0.5 + 2
    assert longest >= 10 / (0.5 + 1 / fps)


@pytest.mark.parametrize("fps", [8, 12.5, 25, 60])
def test_a_partner_is_as_far_from_its_frame_as_the_frames_allow(fps: float) -> None:
    """Not from the moment at which the frame was wanted: that is up to half a frame off itself."""
    buffer = FrameBuffer[int, int](100.0, lambda time, frame: frame)
    wanted = [1.03 + i for i in range(8)]
    buffer.want(wanted, gap=0.5)
    for i in range(round(10 * fps)):
        buffer.push(i / fps, i)
    for moment in wanted:
        first = buffer.near(moment, Span(0, math.inf))
        assert first is not None
        second = buffer.near(first[0] + 0.5, Span(0, math.inf))
        assert second is not None
        assert abs(first[0] - moment) <= 0.5 / fps + CLOSE
        assert abs(second[0] - first[0] - 0.5) == pytest.approx(abs(round(0.5 * fps) / fps - 0.5), abs=CLOSE)


def test_moments_half_a_second_apart_leave_no_room_for_a_grid() -> None:
    buffer = FrameBuffer[int, int](LOOSE * 0.5, lambda time, frame: frame)
    buffer.want([0.5 + i for i in range(60)], gap=0.5)
    for i in range(60 * 30):
        buffer.push(i / 30, i)
    assert len(buffer) <= 2 * 60 + 2


def test_a_leap_in_time_costs_nothing() -> None:
    """A damaged file may claim that its next frame comes in three centuries."""
    buffer = fill(0.25, [0.0, 0.04, 1e10, 1e10 + 0.04], [5.0])
    assert len(buffer) <= 4
    found = buffer.near(5.0, Span(0, math.inf))
    assert found is not None
    assert found[0] == 0.04


@given(videos, grid_steps, st.floats(0, 100))
def test_what_is_dropped_is_gone_and_the_rest_stays(times: list[float], step: float, before: float) -> None:
    buffer, whole = fill(step, times), fill(step, times)
    buffer.drop_before(before)
    assert buffer.near(0, Span(-1, before)) is None
    behind = Span(before, math.inf)
    assert buffer.near(before, behind) == whole.near(before, behind)


def test_no_frames_at_all() -> None:
    buffer = FrameBuffer[float, float](0.5, lambda time, frame: frame)
    buffer.want([1.0, math.inf, math.nan])
    buffer.finish()
    assert buffer.near(1.0, Span(0, math.inf)) is None
    assert len(buffer) == 0


@given(st.floats(0, 100_000), st.sampled_from([5.0, 15.0, 15.015, 30.0]))
def test_a_window_is_as_long_as_it_was_cut(start: float, window: float) -> None:
    """Half of all starts lose the last digit of start + window, which would cost a clip its duration gate."""
    assert Span(start, start + window).seconds == window
