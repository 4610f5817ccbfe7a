"""The recipe: one YAML file that says how a corpus is split, sampled, scored, gated, captioned and exported."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from longtake.captioning.registry import make_captioner, settings_faults
from longtake.captioning.registry import names as captioner_names
from longtake.captioning.settings import BACKENDS, MODELS
from longtake.curation.errors import SetupError
from longtake.curation.reading import shot_network
from longtake.curation.recipe_schema import CaptioningSchema, FiltersSchema, TiersSchema
from longtake.curation.yaml_lines import Lines, read_yaml
from longtake.filters.base import Filter, FilterUnavailable, Needs
from longtake.filters.gates import Gate
from longtake.filters.registry import UnknownFilter, build, filter_class
from longtake.manifests import schemas
from longtake.manifests.folder import temporary_name
from longtake.settings import Fault, closest, faults_of, near

if TYPE_CHECKING:
    from longtake.captioning.questions import Questioner

# Raise it when the same recipe cuts other clips out of a video, or stores other pictures of them: every video is then
# scanned again. What filters make of the pictures has versions of its own (`longtake.filters.base`).
SAMPLE_VERSION = 5
# Names how the one reader makes pictures: SDR of BT.709, with the light of HDR rolled off above a knee
# (`curation/reading/colour.py`). Another curve has another name.
READING = "bt709-white203-knee0.8-transfers-fields3-aperture"

# How borders are found and cut away (`curation/reading/cropping.py`), in the protocols of what is measured on the rest.
CROPPING = "crop.4"

SHORTEST_FRAME = 0.001  # Seconds. No film has more frames than one in a millisecond.
# Bytes. Tiers and splits are names of folders, and of these longer names are made while a folder is written.
_LONGEST_NAME = 255 - len(temporary_name(""))

_MOST_VALUES = 10_000  # Values of a recipe, anchors written out: a few lines of YAML can hold billions.
_NO_MODEL = "a question is put to the captioner's model, and {} has none; openai, transformers and vllm have one"
_NEED_MORE = ("embedded", "longtake-hd")  # Shipped recipes that need an extra, weights or an endpoint.
# Shipped recipes that hold the gates of a publication, by name.
PUBLISHED = ("longtake-hd", "allegro", "cosmos", "koala", "mug-v", "open-sora-2", "open-sora-plan", "ultravideo")
_BARE_GATE = re.compile(r"character '>' that cannot start|block scalar")
_OWN_VARIABLE = re.compile(r"LONGTAKE_[A-Z0-9_]+")


class RecipeError(SetupError):
    """A recipe that cannot be used. The message names the file and, for each fault on a line of its own, the line, the key
    and what would be right; `faults` are the same as values."""

    def __init__(self, message: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(message)
        self.faults = tuple(faults)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,), allow_inf_nan=False)


GateField = Annotated[
    Gate,
    BeforeValidator(Gate.parse),
    PlainSerializer(str),
    WithJsonSchema(
        {
            "type": ["string", "array"],
            "items": {"type": ["number", "null"]},
            "minItems": 2,
            "maxItems": 2,
            "examples": [">= 40", "<= 0.05", "[20, 180]"],
        }
    ),
]


class Scan(_Section):
    """Limits for the decoding of one video; what exceeds one ends as an error row."""

    time_limit: PositiveFloat = Field(4.0, description="seconds of decoding per second of video …")
    min_time_limit: PositiveFloat = Field(60.0, description="… but never less than this many seconds")
    memory_limit_mib: PositiveInt = Field(3072, description="resident memory of the decoding process")
    max_pixels: PositiveInt = Field(8192 * 8192, description="of a coded frame")
    max_corrupt: float = Field(
        0.05, ge=0, le=1, description="share of packets that may be damaged, or a single one (0: none)"
    )


# The presets of x264.
Preset = Literal[
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"
]  # fmt: skip
Longer = Literal["windows", "trim", "faster"]


class Splitting(_Section):
    """From a video to clips."""

    detector: Literal["network", "adaptive", "content", "transnetv2", "none"] = "network"
    threshold: PositiveFloat | None = Field(None, description="of the detector; null: its own default")
    dissolves: bool = Field(True, description="transitions too, with adaptive and content, which see hard cuts only")
    min_seconds: PositiveFloat = Field(15.0, description="a shorter shot gives no clip")
    window_seconds: PositiveFloat = Field(15.0, description="the length of a clip", validate_default=True)
    longer: Longer = Field(
        "windows",
        description="of a shot that is longer than a window; `windows`: windows from its start on, all of one length, what is "
        "left at its end is left out, and counted; `trim`: only the first window; `faster`: windows, the last with what is left, "
        "and the export shows it faster where its number of frames is fixed",
    )
    trim_frames: int = Field(3, ge=0, description="left out on both sides of each cut")

    @field_validator("window_seconds")
    @classmethod
    def _windows_hold_clips(cls, window: float, others: ValidationInfo) -> float:
        if window < others.data.get("min_seconds", window):
            raise ValueError("must not be smaller than min_seconds")
        return window


class Sampling(_Section):
    """The frames kept of a clip."""

    keyframes: int = Field(5, ge=2)
    partner_seconds: float = Field(0.5, ge=SHORTEST_FRAME, description="below `splitting.min_seconds`")
    jpeg_quality: int = Field(92, ge=1, le=100)


class Captioning(CaptioningSchema, _Section):
    """Which captioner, and its settings."""

    captioner: str = "descriptors"
    settings: dict[str, Any] = {}
    max_copies: PositiveInt | None = Field(
        None, description="clips that may share one caption, nearly; null: any number"
    )

    @field_validator("settings")
    @classmethod
    def _no_secrets(cls, settings: dict[str, Any]) -> dict[str, Any]:
        # A recipe is kept in the workspace, printed and passed on, and may come from an untrusted source.
        for key, value in _flatten(settings).items():
            word = key.rpartition(".")[2].lower()
            if word in ("api_key", "key", "token", "password", "secret", "authorization"):
                raise ValueError(f"{key}: no secrets in a recipe; name a variable that holds it (api_key_env)")
            if word in ("api_key_file", "key_file", "token_file"):
                raise ValueError(
                    f"{key}: a recipe names no key file, since it could name any file of this machine; set "
                    "LONGTAKE_CAPTION_KEY_FILE in the environment instead"
                )
            if word in ("api_key_env", "key_env", "token_env") and not _OWN_VARIABLE.fullmatch(str(value)):
                raise ValueError(
                    f"{key}: a recipe may name only variables that begin with LONGTAKE_ (capitals, digits, _), since it "
                    "could name any secret of this machine; put the key into LONGTAKE_CAPTION_KEY"
                )
        return settings


class Export(_Section):
    """The clips and shards that a trainer reads. fps, frames null: as the source has them."""

    formats: list[Literal["parquet", "webdataset", "huggingface", "fiftyone", "lance"]] = ["parquet"]
    fps: float | None = Field(30.0, ge=1, le=240)
    # Each of the five sub-captions names a frame of its own: two frames have a middle.
    frames: int | None = Field(450, ge=10)
    max_height: int | None = Field(None, ge=16)
    crf: int = Field(18, ge=0, le=51)
    preset: Preset = "veryfast"
    keep_audio: bool = Field(False, description="the source's sound is carried into the clips, as AAC")
    rows_per_shard: PositiveInt = 10_000
    # Real takes of 15 s at 720p are 3 to 5 MB as they are encoded by default, and readers of tars want 100 MB to 1 GB.
    clips_per_tar: PositiveInt = 100
    split: dict[str, PositiveFloat] = Field(
        {}, description="split → share of the videos, such as `{validation: 0.01}`; the rest is `train`"
    )

    @field_validator("split")
    @classmethod
    def _leaves_some(cls, split: dict[str, float]) -> dict[str, float]:
        for name in split:
            if len(name.encode(errors="replace")) > _LONGEST_NAME:
                raise ValueError(f"{name[:40]}… is too long for the name of a folder ({_LONGEST_NAME} bytes)")
            if not re.fullmatch(r"[A-Za-z]\w*", name) or name == "train":
                raise ValueError(
                    f"{name!r} is no name of a split (letters, digits and _; what is left over is called train)"
                )
        if sum(split.values()) >= 1:
            raise ValueError("the shares must leave some videos to train on: their sum must be below 1")
        return split


class Recipe(_Section):
    """A whole recipe. `filters` measure, `tiers` decide: each gate names a filter. Made by `parse_recipe`, which checks what
    no section can check by itself."""

    name: str = Field(pattern=r"^[\w.-]+$", description="letters, digits, _, . and -", examples=["my-recipe"])
    description: str = ""
    source: str = Field("", description="the publication that the gates come from")
    not_applied: dict[str, str] = Field({}, description="gates of the paper left out, and why")
    scan: Scan = Scan()
    splitting: Splitting = Splitting()
    sampling: Sampling = Sampling()
    crop: Literal["borders"] | None = Field(
        None,
        description="`borders`: borders (letterbox, pillars), and bands of subtitles at an edge, are cut away before a clip is "
        "measured, if 60 % of the picture is left, and a size that some tier takes; null: nothing is cut away",
    )
    filters: Annotated[dict[str, dict[str, Any]], FiltersSchema()]
    tiers: Annotated[dict[str, dict[str, GateField]], TiersSchema(_LONGEST_NAME)]
    captioning: Captioning = Captioning()
    export: Export = Export()

    @cached_property
    def built(self) -> dict[str, Filter[Any]]:
        """The filters, ready to measure, in the recipe's order."""
        spacing = keyframe_spacing(self.splitting, self.sampling)
        return {
            name: _seeing(self.crop, _with_spacing(name, settings, spacing)) for name, settings in self.filters.items()
        }

    def needing(self, needs: Needs) -> dict[str, Filter[Any]]:
        """The filters that measure on `needs`, cheapest first, but those that read embeddings behind the one that makes them."""
        chosen = [(name, f) for name, f in self.built.items() if f.needs == needs]
        return dict(sorted(chosen, key=lambda pair: (pair[1].reads_embeddings, pair[1].cost)))

    @cached_property
    def clip_protocol(self) -> str:
        """What clips and their samples depend on: another value means another scan."""
        version = [{"version": SAMPLE_VERSION}] if SAMPLE_VERSION > 1 else []  # Protocols of version 1 have no number.
        return _digest(
            self.splitting.model_dump(),
            self.sampling.model_dump(),
            {"reading": READING},
            *version,
            *([{"crop": CROPPING}] if self.crop else []),
            *self._shot_versions,
        )

    @property
    def _shot_versions(self) -> list[dict[str, Any]]:
        """How the detector finds cuts, as far as that may change under the same settings."""
        if self.splitting.detector == "transnetv2":
            return [{"transnetv2": 2}]  # From version 2 on, both answers of the network are used.
        hard_only = self.splitting.detector in ("adaptive", "content") and not self.splitting.dissolves
        if hard_only or self.splitting.detector == "none":
            return []
        return [{"network": shot_network.protocol(), "rules": shot_network.RULES}]

    @cached_property
    def export_protocol(self) -> str:
        """What an encoded clip depends on."""
        settings = self.export.model_dump(include={"fps", "frames", "max_height", "crf", "preset"})
        longer = {"longer": "faster"} if self.splitting.longer == "faster" else {}
        audio = {"keep_audio": True} if self.export.keep_audio else {}
        return _digest(settings, {"version": 1, **longer, **audio})

    def with_gates(self, changes: Mapping[str, Gate | None], source: str = "--set") -> Recipe:
        """A copy with other gates: 'tier.gate' → gate, or None to drop it. source: who asks, for the RecipeError."""
        tiers = {tier: dict(gates) for tier, gates in self.tiers.items()}
        for key, gate in changes.items():
            tier, _, name = key.partition(".")
            if tier not in tiers:
                raise RecipeError(f"{key!r}: no tier {tier!r}{near(tier, tiers)}")
            if gate is None:
                if name not in tiers[tier]:
                    raise RecipeError(f"{key!r}: tier {tier!r} has no such gate{near(name, tiers[tier])}")
                del tiers[tier][name]
            else:
                tiers[tier][name] = gate
        return parse_recipe({**self.model_dump(), "tiers": tiers}, source=source, check_captioner=False)

    def with_formats(self, formats: Sequence[str], source: str = "--format") -> Recipe:
        """A copy that exports to these formats, and to Parquet. source: who asks, for the RecipeError."""
        chosen = list(dict.fromkeys(["parquet", *formats]))
        export = {**self.export.model_dump(), "formats": chosen}
        return parse_recipe({**self.model_dump(), "export": export}, source=source, check_captioner=False)

    def to_yaml(self) -> str:
        """The whole recipe, every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)


def _digest(*parts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def shipped() -> dict[str, Path]:
    """Recipes that come with the package: name → file."""
    folder = Path(str(files("longtake.curation") / "recipes"))
    # Those that need no extra come first, the funnels of others last.
    last = {**dict.fromkeys(PUBLISHED, 2), **dict.fromkeys(_NEED_MORE, 1)}
    return {
        path.stem: path for path in sorted(folder.glob("*.yaml"), key=lambda path: (last.get(path.stem, 0), path.stem))
    }


def load_recipe(name_or_file: str | Path) -> Recipe:
    """A shipped recipe by name, or a YAML file. Raises RecipeError."""
    path = shipped().get(str(name_or_file)) or Path(name_or_file)
    if not path.is_file():
        close = closest(str(name_or_file), shipped())
        hint = f" Did you mean {close!r}?" if close else ""
        raise RecipeError(f"no recipe {str(name_or_file)!r}: neither a file nor one of {', '.join(shipped())}.{hint}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_yaml(content, source=str(path))


def parse_yaml(content: bytes, source: str, *, check_captioner: bool = True) -> Recipe:
    """A recipe from the content of a YAML file. check_captioner: see `parse_recipe`; the prompts that it names are looked
    for, too. Raises RecipeError with every fault, by its line."""
    try:
        data, lines = read_yaml(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # A bare > begins a block of text in YAML, so that the commonest slip is a gate without quotes.
        quotes = "\n  A gate is a text in quotes: '>= 40'." if _BARE_GATE.search(str(error)) else ""
        raise RecipeError(
            f"{source}: not YAML that can be read: {str(error) or 'nested too deeply'}{quotes}"
        ) from error
    _refuse_bombs(data, source)
    return _parse(data, source, lines, check_captioner=check_captioner)


def _refuse_bombs(data: object, source: str) -> None:
    """Anchors that repeat each other make a few lines of YAML endless."""
    left, seen = [data], 0
    while left:
        value = left.pop()
        seen += 1
        if seen > _MOST_VALUES:
            raise RecipeError(f"{source}: more than {_MOST_VALUES} values, anchors written out; a recipe has some 100")
        if isinstance(value, dict | list):
            left.extend(value.values() if isinstance(value, dict) else value)


def parse_recipe(data: object, source: str, *, check_captioner: bool = True) -> Recipe:
    """A recipe from plain data. check_captioner: also whether there is such a captioner, and what it is told; not for a
    recipe that was checked where it came from, which may name another package's captioner that is not on this machine.
    Raises RecipeError with every fault, one per line."""
    return _parse(data, source, None, check_captioner=check_captioner)


def _parse(data: object, source: str, lines: Lines | None, *, check_captioner: bool) -> Recipe:
    if not isinstance(data, dict):
        raise RecipeError(f"{source}: a recipe is a mapping with the keys {', '.join(Recipe.model_fields)}")
    wrong = list(lines.faults) if lines else []
    recipe = None
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        wrong += _structural(error)
    built, faults = _built(data)
    wrong += [*faults, *_tier_faults(data), *_length_faults(data)]
    if check_captioner:
        wrong += _captioner_faults(data, files=lines is not None)
    if recipe is None or wrong:
        wrong.sort(key=lambda fault: _position(fault, data, lines))
        told = "\n".join(f"  {_line(fault, lines)}{fault}" for fault in wrong)
        raise RecipeError(f"{source}: this recipe cannot be used:\n{told}", wrong)
    vars(recipe)["built"] = built  # `Recipe.built` would make the same again.
    return recipe


def _position(fault: Fault, data: object, lines: Lines | None) -> tuple[int, ...]:
    """Faults are told in the order of the file."""
    line = lines.line(fault.where) if lines else None
    steps = [line or 0]
    for part in fault.where:
        keys = list(data) if isinstance(data, dict) else []
        texts = list(map(str, keys))
        if str(part) in texts:
            steps.append(texts.index(str(part)))
            data = data[keys[steps[-1]]] if isinstance(data, dict) else None
        elif isinstance(data, list) and isinstance(part, int):
            steps.append(part)
            data = data[part] if part < len(data) else None
        else:
            break
    return tuple(steps)


def _line(fault: Fault, lines: Lines | None) -> str:
    line = lines.line(fault.where) if lines else None
    return f"line {line}: " if line else ""


def _structural(error: ValidationError) -> list[Fault]:
    """What the models of the sections refuse. Nothing that a captioner is told is repeated: it may be a secret."""
    openly = [fault for fault in faults_of(error, Recipe, noun="key") if fault.where[:1] != ("captioning",)]
    secretly = faults_of(error, Recipe, noun="key", quote=False)
    return [*openly, *(fault for fault in secretly if fault.where[:1] == ("captioning",))]


def _built(data: Mapping[str, Any]) -> tuple[dict[str, Filter[Any]], list[Fault]]:
    """The filters that can be made, and all that is wrong with the others."""
    built: dict[str, Filter[Any]] = {}
    faults: list[Fault] = []
    try:
        splitting, sampling = (
            Splitting.model_validate(data.get("splitting", {})),
            Sampling.model_validate(data.get("sampling", {})),
        )
    except ValidationError:  # The models of these sections report the error.
        splitting, sampling = Splitting(), Sampling()
    spacing = keyframe_spacing(splitting, sampling)
    for name, settings in _mapping(data.get("filters")).items():
        if isinstance(name, str) and isinstance(settings, dict) and all(isinstance(key, str) for key in settings):
            try:
                built[name] = _seeing(data.get("crop"), _with_spacing(name, settings, spacing))
            except UnknownFilter as error:
                faults += [Fault(("filters", name, *fault.where), fault.what) for fault in error.faults]
    compares = [name for name, filter_ in built.items() if _on_embeddings(filter_)]
    embeds = next((filter_ for filter_ in built.values() if filter_.embeds), None)
    if compares and not faults and embeds is None:
        what = "compares embeddings, which the filter aesthetic makes: add it"
        faults += [Fault(("filters", name), what) for name in compares]
    for name, filter_ in built.items():
        if not faults and filter_.reads_scores_of not in (None, *built):
            faults.append(
                Fault(("filters", name), f"compares what the filter {filter_.reads_scores_of} measures: add it")
            )
        if filter_.asks:
            vars(filter_)["asked_of"] = partial(_asked_of, _mapping(data.get("captioning")))
            captioner = _mapping(data.get("captioning")).get("captioner", "descriptors")
            if captioner in MODELS and captioner not in BACKENDS:
                faults.append(Fault(("filters", name), _NO_MODEL.format(captioner)))
            if name in schemas.CLIPS.names:
                faults.append(Fault(("filters", name), "is the name of another column of the clips manifest"))
        if filter_.reads_embeddings and embeds is not None:
            vars(filter_)["embedded_by"] = embeds
    return built, faults


def _on_embeddings(filter_: Filter[Any]) -> bool:
    return filter_.reads_embeddings or (filter_.needs == Needs.CORPUS and filter_.reads_scores_of is None)


def _asked_of(captioning: Mapping[str, Any]) -> str:
    """The model that questions are put to, for protocols. Raises FilterUnavailable."""
    from longtake.captioning.chat import CaptionerFault

    try:
        return questioner(captioning.get("captioner", "descriptors"), _mapping(captioning.get("settings"))).identity
    except (ValueError, CaptionerFault) as error:
        raise FilterUnavailable(str(error)) from error


def questioner(captioner: str, settings: Mapping[str, Any]) -> Questioner:
    """What puts questions to the model of a captioner. Raises ValueError if there is no such captioner, or it has no model."""
    from longtake.captioning.progressive import Progressive
    from longtake.captioning.questions import Questioner

    made = make_captioner(captioner, settings)
    if not isinstance(made, Progressive):
        raise ValueError(_NO_MODEL.format(captioner))
    return Questioner(made)


def keyframe_spacing(splitting: Splitting, sampling: Sampling) -> float | Literal["any"]:
    """Seconds between the neighbouring keyframes of a clip, where all clips that are cut out of shots have the same; or `any`."""
    if splitting.longer == "faster" or splitting.min_seconds < splitting.window_seconds:
        return "any"
    return splitting.window_seconds / sampling.keyframes


def _with_spacing(name: str, settings: Mapping[str, Any], spacing: float | Literal["any"]) -> Filter[Any]:
    """A filter; one that compares keyframes knows how far apart those of the recipe are, unless its entry says so."""
    try:
        fields = filter_class(name, settings.get("backend")).settings_model.model_fields
    except UnknownFilter:  # `build` reports all that is wrong.
        fields = {}
    return build(name, {"spacing": spacing, **settings} if "spacing" in fields else settings)


def _seeing(crop: object, filter_: Filter[Any]) -> Filter[Any]:
    """A filter; one that sees pictures, or tells their size, knows whether their borders are cut away before."""
    sees = filter_.needs in (Needs.SAMPLE, Needs.FRAMES) or filter_.name in ("width", "height")
    return filter_.seeing(CROPPING) if crop and sees else filter_


def _tier_faults(data: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong between tiers and filters."""
    tiers, filters = data.get("tiers"), data.get("filters")
    if tiers == {}:
        yield Fault(("tiers",), "there must be at least one")
    for tier, gates in _mapping(tiers).items():
        if isinstance(tier, str) and not tier.replace("-", "").replace("_", "").isalnum():
            yield Fault(("tiers", tier), f"{tier!r} is not a name (letters, digits, - and _)")
        elif isinstance(tier, str) and len(tier.encode(errors="replace")) > _LONGEST_NAME:
            what = f"is too long for the name of a folder ({_LONGEST_NAME} bytes)"
            yield Fault(("tiers", f"{tier[:40]}…"), what)
        for gate in _mapping(gates):
            if isinstance(filters, dict) and gate not in filters:
                known = list(map(str, filters))
                close = closest(gate, known)
                hint = f"; did you mean {close!r}?" if close else ""
                yield Fault(("tiers", tier, gate), f"no filter of that name in `filters` ({', '.join(known)}){hint}")


def _length_faults(data: Mapping[str, Any]) -> Iterator[Fault]:
    """What does not fit into the shortest clip, whose seconds `splitting` names."""
    try:
        splitting = Splitting.model_validate(data.get("splitting", {}))
        sampling = Sampling.model_validate(data.get("sampling", {}))
    except ValidationError:  # The models of these sections report the error.
        return
    shortest = f"the shortest clip (splitting.min_seconds: {splitting.min_seconds:g})"
    if sampling.partner_seconds >= splitting.min_seconds:
        what = f"{sampling.partner_seconds:g} s lie beyond {shortest}: both pictures of a pair belong to one clip"
        yield Fault(("sampling", "partner_seconds"), what)
    most = math.floor(splitting.min_seconds / SHORTEST_FRAME)
    if sampling.keyframes > most:
        yield Fault(
            ("sampling", "keyframes"), f"{sampling.keyframes} pictures are more than {shortest} has in any film"
        )
    if splitting.trim_frames > most:
        what = f"{splitting.trim_frames} frames at each cut are longer in any film than {shortest}"
        yield Fault(("splitting", "trim_frames"), what)


def _captioner_faults(data: Mapping[str, Any], *, files: bool) -> list[Fault]:
    chosen = _mapping(data.get("captioning", {}))
    name, settings = chosen.get("captioner", Captioning().captioner), chosen.get("settings", {})
    if not isinstance(name, str):
        return []
    if name not in captioner_names():
        return [Fault(("captioning", "captioner"), f"no captioner is named {name!r}{near(name, captioner_names())}")]
    if not (isinstance(settings, dict) and all(isinstance(key, str) for key in settings)):
        return []
    try:
        faults = settings_faults(name, settings, files=files)
    except ValueError as error:  # The captioner comes from another package, which does not load.
        return [Fault(("captioning", "captioner"), str(error))]
    return [Fault(("captioning", "settings", *fault.where), fault.what) for fault in faults]


def _mapping(value: object) -> Mapping[Any, Any]:
    """A mapping, or an empty one in place of what is none: that is told by the model of its section."""
    return value if isinstance(value, dict) else {}


def differences(old: Recipe, new: Recipe) -> list[tuple[str, Any, Any]]:
    """(key, old value, new value) for each setting that differs, keys dotted; a missing one is None."""
    a, b = _flatten(old.model_dump(mode="json")), _flatten(new.model_dump(mode="json"))
    return [(key, a.get(key), b.get(key)) for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]


def stale_scores(old: Recipe, new: Recipe) -> list[str]:
    """Filters whose scores, measured under `old`, cannot be used under `new`."""
    if old.clip_protocol != new.clip_protocol:
        return list(new.filters)
    return [
        name
        for name, filter_ in new.built.items()
        if name not in old.built or _measurement(old.built[name]) != _measurement(filter_)
    ]


def _measurement(filter_: Filter[Any]) -> tuple[Any, ...]:
    """What its scores depend on: its protocol but for the reduction; its settings, where a missing package hides that."""
    try:
        return (filter_.protocol.rpartition("/")[0],)
    except FilterUnavailable:
        settings = filter_.settings
        return filter_.backend, filter_.version, settings.model_dump(exclude={"reduce", *settings.without_effect})


def _flatten(data: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(data, dict) or not data:
        return {prefix: data}
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
