"""Shots: stretches without a cut. Which detectors look for cuts, by the recipe."""

from __future__ import annotations

from longtake.curation.reading.cuts import CutDetector
from longtake.curation.reading.network_cuts import NetworkCuts
from longtake.curation.reading.scenedetect_cuts import SceneDetectCuts
from longtake.curation.reading.transnet_cuts import TransNetCuts
from longtake.curation.recipe import Splitting


def build_detectors(splitting: Splitting, since: float = 0.0) -> list[CutDetector]:
    """The detectors that a recipe asks for; none for `detector: none`. since: where they begin, seconds."""
    if splitting.detector == "none":
        return []
    if splitting.detector == "network":
        return [NetworkCuts(splitting.threshold, since=since)]
    if splitting.detector == "transnetv2":
        return [TransNetCuts(splitting.threshold)]
    hard = SceneDetectCuts(splitting.detector, splitting.threshold)
    return [hard, NetworkCuts(hard=False, since=since)] if splitting.dissolves else [hard]
