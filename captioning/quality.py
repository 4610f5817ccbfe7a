"""How good captions read, without a judge: counts that a person can sort by. Nothing here rejects; `Standards` says what
is looked for, and the method asks again where a text does not meet them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

from longtake.captioning.checks import normalised

SHINGLE = 6  # Words in a row. A caption that shares so many with a prompt is an echo of it.

_LEAD_IN = re.compile(
    r"^\W*(sub-?captions?|captions?|keyframes?|frames?|part|segment|scene)\s*(\d+|one|two|three|four|five)?\s*[:.–-]"
    r"|^\W*(in|throughout) (this|the) (\w+ )?(video|clip|image|picture|frame|keyframe|scene|footage|shot|segment)\b"
    r"|^\W*(the|this|these|a) (\w+ )?(video|clip|image|picture|photo|photograph|frame|keyframe|footage)s?"
    r"( \w+)? (shows?|depicts?|features?|captures?|presents?|displays?|begins|opens|starts|is|are)\b"
    r"|^\W*(here (is|are)|sure|certainly|of course)\b",
    re.IGNORECASE,
)
_LIST = re.compile(r"^\s*(\d{1,2}[.)]\s|[-*•–]\s|#{1,6}\s|\*\*)|\s(\d{1,2}[.)]|[•])\s|\*\*|\|\s*\|", re.IGNORECASE)
_SPECULATION = re.compile(
    r"\b(may|might|maybe|perhaps|possibly|probably|presumably|likely|apparently|seemingly|seems?|seem(ed|ing)|appears? to"
    r"|appearing to|could be|suggest(s|ed|ing)?|impl(y|ies|ying)|indicat(es|ing) that|as if|as though|it looks like"
    r"|hint(s|ing)? (at|of))\b",
    re.IGNORECASE,
)
# Words by which a text names a movement of the camera, by family. Directions count only where they are the camera's.
_TURNS = r"(pan(s|ned|ning)?|pivot(s|ed|ing)?|swing(s|ing)?|sweep(s|ing)?|track(s|ed|ing)?|truck(s|ed|ing)?)"
_FEW = r"(\W+\w+){0,4}?\W+"
_TILTS = r"(tilt(s|ed|ing)?|crane(s|d)?|craning)"
_DOLLIES = r"(zoom(s|ed|ing)?|doll(y|ies|ied|ying))"
_CLAIMS: dict[str, re.Pattern[str]] = {
    "pan left": re.compile(rf"\b{_TURNS}\b{_FEW}left(wards?)?\b|\bleftward pan\b", re.I),
    "pan right": re.compile(rf"\b{_TURNS}\b{_FEW}right(wards?)?\b|\brightward pan\b", re.I),
    "tilt up": re.compile(rf"\b{_TILTS}\b{_FEW}up(wards?)?\b", re.I),
    "tilt down": re.compile(rf"\b{_TILTS}\b{_FEW}down(wards?)?\b", re.I),
    "zoom in": re.compile(rf"\b({_DOLLIES}|push(es|ing)?)\b{_FEW}(in(wards?)?|closer)\b", re.I),
    "zoom out": re.compile(rf"\b({_DOLLIES}|pull(s|ing)?)\b{_FEW}(out(wards?)?|back)\b", re.I),
    "static": re.compile(
        r"\b(static|stationary|fixed|still|locked-off|unmoving) (camera|shot|view|frame)\b"
        r"|\bcamera\b(\W+\w+){0,2}\W+(static|stationary|fixed|still|unmoving|motionless)\b",
        re.I,
    ),
}


@dataclass(frozen=True, slots=True)
class Standards:
    """What captions should be like. words: of a sub-caption, caption_words: of the overall one, from and to. language:
    ISO 639-1. speculations: words of guessing that one text may have."""

    words: tuple[int, int] = (8, 100)
    caption_words: tuple[int, int] = (15, 200)
    language: str = "en"
    speculations: int = 0


def lead_in(text: str) -> bool:
    """Whether it begins as an answer does, and not as a caption ("The video shows", "Part 2:")."""
    return _LEAD_IN.search(text) is not None


def list_marker(text: str) -> bool:
    """Whether it has marks of a list, or other markup."""
    return _LIST.search(text) is not None


def speculations(text: str) -> int:
    """How many words of guessing it has."""
    return len(_SPECULATION.findall(text))


def count_words(text: str) -> int:
    """Words, parted by white space."""
    return len(text.split())


def shingles(text: str, size: int = SHINGLE) -> frozenset[str]:
    """Every `size` words in a row, normalised; of a shorter text, all of it."""
    words = normalised(text).split()
    return frozenset(" ".join(words[i : i + size]) for i in range(max(1, len(words) - size + 1))) - {""}


@cache
def prompt_shingles(prompts: tuple[str, ...]) -> frozenset[str]:
    """What no caption has in common with these prompts but by repeating them."""
    return frozenset().union(*map(shingles, prompts))


def echoes(text: str, prompts: tuple[str, ...]) -> bool:
    """Whether it repeats six words in a row of a prompt."""
    words = normalised(text).split()
    return len(words) >= SHINGLE and not prompt_shingles(prompts).isdisjoint(shingles(text))


def likeness(a: str, b: str) -> float:
    """Share of the pairs of words in a row that two texts have in common, 0 to 1 (Jaccard)."""
    one, other = shingles(a, 2), shingles(b, 2)
    return len(one & other) / len(one | other) if one | other else 1.0


def camera_claims(text: str) -> frozenset[str]:
    """The camera movements that a text names."""
    return frozenset(move for move, pattern in _CLAIMS.items() if pattern.search(text))


def contradicts(claims: frozenset[str], measured: str) -> bool:
    """Whether named movements cannot be what was measured. measured: as `story.camera_words` gives it."""
    if not claims or measured == "unclear":
        return False
    moves = {part.rpartition(" (")[0] or part for part in measured.split(" and ")}
    slow = "slow" in measured
    if "static" in moves:
        return claims != {"static"}
    families = {move.split()[0] for move in moves}
    for claim in claims:
        if claim == "static":
            if not slow:
                return True
        elif claim not in moves and (claim.split()[0] in families or not slow):
            return True
    return False


def camera_agrees(camera: str | None, measured: Sequence[str] | None) -> bool | None:
    """Whether the movement that is said of a whole clip fits what was measured in its parts. None: it is not said, or no part
    could be measured. camera: one of `joint.CAMERA`."""
    known = [move for move in measured or () if move != "unclear"]
    if camera is None or not known:
        return None
    parts = [set(move.rpartition(" (")[0].split(" and ")) if "(" in move else {move} for move in known]
    if camera == "several":
        return len(set().union(*parts)) > 1
    if camera == "static":
        # A movement called slow moves the picture by less than 8 % of its long side in a second, which a steady hand
        # does, too.
        return all(move == "static" or "slow" in move for move in known)
    return any(camera in part for part in parts)


@cache
def _language_of() -> Callable[[str], tuple[str, float]]:
    import py3langid

    classify: Callable[[str], tuple[str, float]] = py3langid.classify
    return classify


def language(texts: Sequence[str]) -> str:
    """ISO 639-1 of texts taken together; short ones are hard to tell."""
    return str(_language_of()(" ".join(texts))[0])


def style_faults(text: str, standards: Standards, band: tuple[int, int]) -> list[str]:
    """What a model should be asked to avoid, in words for it; empty if nothing."""
    faults = []
    if lead_in(text):
        faults.append('it began with an introduction such as "The video shows"')
    if list_marker(text):
        faults.append("it held list marks or other markup")
    if speculations(text) > standards.speculations:
        faults.append("it guessed; say only what is seen")
    words = count_words(text)
    if not band[0] <= words <= band[1]:
        faults.append(f"it had {words} words, not {band[0]} to {band[1]}")
    return faults


def measured_quality(
    caption: str,
    sub_captions: Sequence[str],
    standards: Standards,
    prompts: tuple[str, ...] = (),
    moves: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The columns of `longtake.manifests.schemas.CAPTIONS` that tell how captions read; `moves`: measured, per sub-caption."""
    texts = [caption, *sub_captions]
    bands = [standards.caption_words, *[standards.words] * len(sub_captions)]
    counts = [count_words(text) for text in texts]
    detected = language(texts)
    claims = [camera_claims(text) for text in sub_captions]
    return {
        "words": counts,
        "outside_band": sum(not low <= n <= high for n, (low, high) in zip(counts, bands, strict=True)),
        "language": detected,
        "other_language": detected != standards.language,
        "lead_ins": sum(map(lead_in, texts)),
        "list_markers": sum(map(list_marker, texts)),
        "echoes": sum(echoes(text, prompts) for text in texts) if prompts else 0,
        "speculations": sum(map(speculations, texts)),
        "distinct": len(set(map(normalised, sub_captions))),
        "most_alike": max((likeness(a, b) for a, b in combinations(sub_captions, 2)), default=0.0),
        "moves_named": sum(map(bool, claims)),
        "moves_wrong": None
        if moves is None
        else sum(contradicts(claim, move) for claim, move in zip(claims, moves, strict=True)),
    }
