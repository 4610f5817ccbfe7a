"""The toy task: what segmented attention can learn, and plain attention on all captions at once cannot."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from longtake.presto.segments import Segmentation
from longtake.presto.toy import FRAMES, SEGMENTS, TOKENS, examples, nearest_class, run


def test_the_task_has_its_answers() -> None:
    latents, text, classes = examples(64, torch.Generator().manual_seed(0))
    assert float((nearest_class(latents) == classes).float().mean()) > 0.99
    edges = Segmentation(segments=SEGMENTS).edges(FRAMES)
    assert edges == [0, 4, 8, 13, 17, 22]
    assert all(bool((classes[:, a:b] == classes[:, a : a + 1]).all()) for a, b in pairwise(edges))
    same = classes[0, 0] == classes[:, 0]
    assert all(torch.equal(text[i, :2], text[0, :2]) == bool(same[i]) for i in range(64))


def test_the_cue_tells_the_place_and_nothing_else() -> None:
    alone, told = (examples(64, torch.Generator().manual_seed(0), cue=cue) for cue in (False, True))
    assert torch.equal(alone[0], told[0])
    assert torch.equal(alone[2], told[2])
    added = (told[1] - alone[1]).unflatten(1, (SEGMENTS, TOKENS))
    # The prediction depends on neither the clip nor the caption.
    assert float((added - added[:1, :, :1]).abs().max()) < 1e-6
    places = added[0, :, 0]
    assert float(torch.pdist(places).min()) > 1


@pytest.mark.campaign
@pytest.mark.slow
def test_each_segment_learns_its_caption() -> None:
    """Goals: isolated at least 0.95, plain at most 0.4, overlapped inside its segments at least 0.85. Chance is 0.17."""
    assert run("isolated", steps=200).all >= 0.95
    assert run(None).all <= 0.4
    assert run("overlapped").inside >= 0.85
