"""A blind comparison of two models, as in the paper's user study: a page for judges, and a tally of win, lose and tie.

    PAGE/index.html  PAGE/videos/    to hand out; needs no server
    PAGE.key.json                    to keep: which side is whose; beside the folder, so that it is not handed out with it

Which model is left and which is right is drawn for each pair; videos get names that tell nothing, and are brought to one
size and one rate, which would tell the models apart. The page has an id, which its key and its votes carry.
"""

from __future__ import annotations

import json
import math
import random
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from longtake.presto.errors import PrestoError
from longtake.presto.evaluate import Subject, samples_of
from longtake.presto.frames import fit
from longtake.presto.video import Frames, read_video, video_shape, write_video

CRITERIA = {
    "diversity": "Which shows the richer scenario, with more happening?",
    "coherence": "Which holds together better from beginning to end?",
    "adherence": "Which follows the texts better?",
}
CHOICES = ("left", "tie", "right")
OUTCOMES = ("win", "lose", "tie")
_SURE = 1.96  # Standard deviations on both sides of a mean that hold 95 % of a normal distribution.


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Written:
    """page: index.html. key: see the module. alone: videos that have no partner in the other folder, and are left out."""

    page: Path
    key: Path
    pairs: int
    alone: list[Path]


def write_page(first: Path, second: Path, output: Path, seed: int = 0) -> Written:
    """A page of all pairs of samples with the same prompts, of the same seed where both have one. Raises PrestoError if
    there is none, or if something lies at `output` or at the key's place already."""
    key_path = output.with_name(f"{output.name}.key.json")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise PrestoError(f"{output} is not empty: give a new folder, so that no page mixes with an older one")
    if key_path.exists():
        raise PrestoError(f"{key_path} is the key of another page: give a new folder, or move the key away")
    pairs, alone = paired(samples_of(first), samples_of(second))
    if not pairs:
        raise PrestoError(f"no prompts are in both {first} and {second}: sample both models on the same prompts")
    rng = random.Random(seed)
    rng.shuffle(pairs)
    shapes = [video_shape(Path(subject.path)) for pair in pairs for subject in pair]
    height, width = min(((h, w) for h, w, _ in shapes), key=lambda size: size[0] * size[1])
    rate = min(fps for _, _, fps in shapes)
    (output / "videos").mkdir(parents=True, exist_ok=True)
    key, shown = {}, []
    for number, pair in enumerate(pairs):
        sides = ["first", "second"]
        rng.shuffle(sides)
        names = {}
        for side, model in zip(("left", "right"), sides, strict=True):
            frames, fps = read_video(Path(pair[model == "second"].path))
            names[side] = f"videos/{secrets.token_hex(8)}.mp4"
            write_video(output / names[side], fit(at_rate(frames, fps, rate), height, width), rate)
        prompts = pair[0].captions
        key[str(number)] = {"left": sides[0], "right": sides[1], "prompts": list(prompts)}
        shown.append({**names, "prompts": prompts})
    page_id = secrets.token_hex(8)
    about = {"page": page_id, "first": str(first), "second": str(second), "pairs": key}
    key_path.write_text(json.dumps(about, ensure_ascii=False, indent=1), encoding="utf-8")
    page = output / "index.html"
    page.write_text(_html(shown, page_id), encoding="utf-8")
    return Written(page, key_path, len(pairs), [Path(subject.path) for subject in alone])


def paired(ones: Sequence[Subject], others: Sequence[Subject]) -> tuple[list[tuple[Subject, Subject]], list[Subject]]:
    """(pairs of the same captions, what is left over). Of several videos of the same captions, those of one seed are a
    pair; then the others are paired in their order."""
    pairs: list[tuple[Subject, Subject]] = []
    left, right = list(ones), list(others)
    for same_seed in (True, False):
        for one in list(left):
            fitting = [o for o in right if o.captions == one.captions and (o.seed == one.seed or not same_seed)]
            if fitting:
                pairs.append((one, fitting[0]))
                left.remove(one)
                right.remove(fitting[0])
    return pairs, left + right


def at_rate(frames: Frames, fps: float, rate: float) -> Frames:
    """The frames that are shown at the moments of another rate."""
    moments = np.arange(max(1, round(len(frames) / fps * rate))) / rate
    kept: Frames = frames[np.minimum((moments * fps + 1e-6).astype(int), len(frames) - 1)]
    return kept


def _html(pairs: Sequence[Mapping[str, object]], page: str) -> str:
    """page: an id, under which a browser keeps the votes of this page apart from those of others."""
    pages = Environment(
        loader=PackageLoader("longtake.presto", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template("ab.html.jinja").render(pairs=pairs, page=page, criteria=CRITERIA, choices=CHOICES)


# ── the tally ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Tally:
    """Of one criterion. counts: votes by outcome, of the first model. shares: by outcome, the mean over pairs of the share
    of a pair's votes. pairs: how many have a vote. together: of two judges' votes on a pair, the share that are the same,
    a pair counting by its votes; None where no pair has two. alpha: the same, corrected for chance (Krippendorff); None
    also where all votes are alike."""

    counts: dict[str, int]
    shares: dict[str, float]
    pairs: int
    together: float | None
    alpha: float | None


def count_votes(key: Path, votes: Sequence[Path]) -> dict[str, Tally]:
    """By criterion. Raises PrestoError, naming the file, for votes of another page, for a vote that is none, or if a
    judge's file is given twice."""
    about = _read(key)
    pairs, page = about.get("pairs"), about.get("page")
    if not isinstance(pairs, dict) or not isinstance(page, str):
        raise PrestoError(f"{key} is no key of a blind comparison")
    votes_by_criterion: dict[str, dict[str, list[str]]] = {criterion: {} for criterion in CRITERIA}
    judges: dict[str, Path] = {}
    for path in votes:
        given = _read(path)
        if given.get("page") != page:
            raise PrestoError(f"{path} holds votes of page {given.get('page')}, and {key} is the key of page {page}")
        judge, choices = str(given.get("judge") or path), given.get("votes")
        if not isinstance(choices, dict):
            raise PrestoError(f"{path} holds no votes")
        if judge in judges:
            raise PrestoError(f"{path} and {judges[judge]} are both of the judge {judge!r}")
        judges[judge] = path
        for name, choice in choices.items():
            number, _, criterion = name.partition(":")
            if number not in pairs or criterion not in CRITERIA or choice not in CHOICES:
                raise PrestoError(f"{path}: {name!r}: {choice!r} is no vote of this page")
            won = "tie" if choice == "tie" else "win" if pairs[number][choice] == "first" else "lose"
            votes_by_criterion[criterion].setdefault(number, []).append(won)
    return {criterion: _tally(list(by_pair.values())) for criterion, by_pair in votes_by_criterion.items()}


def _tally(by_pair: Sequence[Sequence[str]]) -> Tally:
    counts = Counter(vote for votes in by_pair for vote in votes)
    shares = {o: float(np.mean([v.count(o) / len(v) for v in by_pair])) if by_pair else 0.0 for o in OUTCOMES}
    together, alpha = agreement(by_pair)
    return Tally({o: counts[o] for o in OUTCOMES}, shares, len(by_pair), together, alpha)


def agreement(units: Sequence[Sequence[str]]) -> tuple[float | None, float | None]:
    """(share of pairs of votes on a unit that are the same, Krippendorff's alpha for nominal data); see Tally.

    K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), C: units with one vote say nothing.
    """
    rated = [Counter(unit) for unit in units if len(unit) > 1]
    total = sum(votes.total() for votes in rated)
    if not total:
        return None, None
    # Each unit counts by its votes: (votes on it that differ, over the ordered pairs of its votes) · votes.
    differing = sum(sum(n * (v.total() - n) for n in v.values()) / (v.total() - 1) for v in rated)
    overall = sum(rated, Counter())
    by_chance = sum(n * (total - n) for n in overall.values())
    return 1 - differing / total, 1 - (total - 1) * differing / by_chance if by_chance else None


def interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share that was found in `count` cases."""
    if not count:
        return 0.0, 1.0
    z2 = _SURE**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _SURE * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def tally_table(tallies: Mapping[str, Tally]) -> str:
    """Votes, shares and their intervals, of the first model. Several votes on a pair are no new evidence about other
    prompts, so that intervals are over pairs."""
    lines = [f"{'':<10} {'pairs':>5}" + "".join(f"{o:>22}" for o in OUTCOMES) + f"{'agreement':>12}{'alpha':>8}"]
    for criterion, each in tallies.items():
        told = []
        for outcome in OUTCOMES:
            low, high = interval(each.shares[outcome], each.pairs)
            told.append(f"{each.counts[outcome]} ({each.shares[outcome]:.0%}, {low:.0%}–{high:.0%})")
        together = "-" if each.together is None else f"{each.together:.0%}"
        alpha = "-" if each.alpha is None else f"{each.alpha:.2f}"
        lines.append(
            f"{criterion:<10} {each.pairs:>5}" + "".join(f"{t:>22}" for t in told) + f"{together:>12}{alpha:>8}"
        )
    lines.append("Votes for the first model (mean share over pairs, 95 % interval over pairs); agreement: share of two")
    lines.append("judges' votes on a pair that are the same; alpha: Krippendorff's, 1 is agreement, 0 is chance.")
    return "\n".join(lines)


def _read(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PrestoError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise PrestoError(f"{path} holds no votes")
    return content
