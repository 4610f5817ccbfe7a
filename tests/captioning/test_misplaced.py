"""The worst fault that a peer had: captions of other videos, for five releases. Here every clip's pictures hold its number, the
model reads it from them, and whatever happens on the way, each caption is its own clip's or none."""

from __future__ import annotations

import queue
import random
import re
import threading

import pytest

from longtake.captioning import progressive
from longtake.captioning.base import Captions, ClipFrames
from longtake.captioning.checks import Status
from tests.captioning.frames import TIMES, png
from tests.captioning.reader import Reader, Unruly
from tests.captioning.server import picture

THREADS, BATCH = 6, 64


def clip_id(number: int) -> str:
    return f"{number * 2654435761 % 2**32:08x}-{number}"


def clip(number: int) -> ClipFrames:
    # One picture is enough: which part it is, the model does not read.
    pictures = (png(picture(number, 0)),) * 5
    return ClipFrames(clip_id(number), pictures, pictures, TIMES, TIMES + 0.5)


def misplaced(result: Captions) -> bool:
    """Whether a text in it is of another clip, or of another part of its clip."""
    number = result.clip_id.partition("-")[2]
    if result.status != Status.OK:
        return result.caption is not None or result.sub_captions is not None
    texts = [result.caption or "", *(result.sub_captions or ())]
    places = ["overall 0", *(f"refine {part}" for part in range(1, 6))]
    return [re.match(rf"Scene clip{number}, {p}:", t) is None for p, t in zip(places, texts, strict=True)] != [
        False
    ] * 6


@pytest.mark.parametrize(
    "count",
    [200, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.campaign], id="ten thousand clips")],
)
def test_no_caption_is_ever_given_to_another_clip(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches in any order from several threads, one clip in twenty twice; answers late, out of order, spoiled, asked again; and
    a clip whose answer never comes is given again to the same captioner, as a second run would."""
    monkeypatch.setattr(
        progressive, "camera_movements", lambda clip: ("static",) * 5
    )  # The measurement of the camera costs more than the rest of the test.
    monkeypatch.setattr(Unruly, "refused", 0.03)
    dice = random.Random(count)
    numbers = [*range(count), *dice.sample(range(count), count // 20)]
    captioner = Reader()
    results: list[Captions] = []
    good: set[str] = set()
    for _ in range(8):
        dice.shuffle(numbers)
        waiting: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
        for start in range(0, len(numbers), BATCH):
            waiting.put(list(dict.fromkeys(numbers[start : start + BATCH])))

        def work(waiting: queue.SimpleQueue[list[int]] = waiting) -> None:
            while True:
                try:
                    batch = [clip(number) for number in waiting.get_nowait()]
                except queue.Empty:
                    return
                done = captioner.caption(batch)
                assert [r.clip_id for r in done] == [c.clip_id for c in batch]
                results.extend(done)

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        monkeypatch.setattr(Unruly, "refused", 0.0)
        good = {r.clip_id for r in results if r.status == Status.OK}
        numbers = [number for number in range(count) if clip_id(number) not in good]
        if not numbers:
            break
    captioner.close()
    assert [r for r in results if misplaced(r)] == []
    assert len(good) == count, "and none is lost"
    assert isinstance(captioner.describer, Unruly)
    assert captioner.describer.asked > 2.2 * count, "there was something to survive"
