"""The recipe: one YAML file that says how a corpus is split, sampled, scored, gated, captioned and exported."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

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
    WithJsonSchema,
    field_validator,
    model_validator,
)

from longtake.curation.errors import SetupError
from longtake.filters.base import Filter, FilterUnavailable, Needs
from longtake.filters.gates import Gate
from longtake.filters.registry import UnknownFilter, build

_MOST_VALUES = 10_000
_OWN_VARIABLE = re.compile(r"LONGTAKE_[A-Z0-9_]+")


class RecipeError(SetupError):
    """A recipe that cannot be used; names the file, the key and what would be right."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))


GateField = Annotated[
    Gate,
    BeforeValidator(Gate.parse),
    PlainSerializer(str),
    WithJsonSchema({"type": ["string", "array"], "examples": [">= 40", "<= 0.05", "[20, 180]"]}),
]


class Scan(_Section):
    """Limits for the decoding of one video; what exceeds one ends as an error row."""

    time_limit: PositiveFloat = Field(4.0, description="seconds of decoding per second of video …")
    min_time_limit: PositiveFloat = Field(60.0, description="… but never less than this many seconds")
    memory_limit_mib: PositiveInt = Field(3072, description="resident memory of the decoding process")
    max_pixels: PositiveInt = Field(8192 * 8192, description="of a coded frame")
    max_corrupt: float = Field(0.01, ge=0, le=1, description="share of packets that may be damaged")


class Splitting(_Section):
    """From a video to clips."""

    detector: Literal["adaptive", "content", "transnetv2", "none"] = "adaptive"
    threshold: PositiveFloat | None = Field(None, description="of the detector; null: its own default")
    dissolves: bool = Field(True, description="a second, sparse look for dissolves and fades")
    min_seconds: PositiveFloat = Field(15.0, description="a shorter shot gives no clip")
    window_seconds: PositiveFloat = Field(15.0, description="a longer shot is cut into windows")
    trim_frames: int = Field(3, ge=0, description="left out on both sides of each cut")


class Sampling(_Section):
    """The frames kept of a clip."""

    keyframes: int = Field(5, ge=2)
    partner_seconds: PositiveFloat = 0.5
    jpeg_quality: int = Field(92, ge=1, le=100)


class Captioning(_Section):
    """Which captioner, and its settings."""

    captioner: str = "descriptors"
    settings: dict[str, Any] = {}
    max_copies: PositiveInt | None = Field(
        None, description="clips that may share one caption, nearly; null: any number"
    )

    @field_validator("settings")
    @classmethod
    def _no_secrets(cls, settings: dict[str, Any]) -> dict[str, Any]:
        # A recipe is kept in the workspace, printed and passed on, and may come from a stranger.
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
    fps: PositiveFloat | None = 30.0
    frames: PositiveInt | None = 450
    max_height: PositiveInt | None = None
    crf: int = Field(18, ge=0, le=51)
    preset: str = "veryfast"
    rows_per_shard: PositiveInt = 10_000
    clips_per_tar: PositiveInt = 500


class Recipe(_Section):
    """A whole recipe. `filters` measure, `tiers` decide: each gate names a filter."""

    name: str = Field(pattern=r"^[\w.-]+$")
    description: str = ""
    not_applied: dict[str, str] = Field({}, description="gates of the paper left out, and why")
    scan: Scan = Scan()
    splitting: Splitting = Splitting()
    sampling: Sampling = Sampling()
    filters: dict[str, dict[str, Any]]
    tiers: dict[str, dict[str, GateField]]
    captioning: Captioning = Captioning()
    export: Export = Export()

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if self.splitting.window_seconds < self.splitting.min_seconds:
            raise ValueError("splitting.window_seconds must not be smaller than splitting.min_seconds")
        if not self.tiers:
            raise ValueError("tiers: there must be at least one")
        for tier, gates in self.tiers.items():
            if not tier.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"tiers: {tier!r} is not a name (letters, digits, - and _)")
            for gate in gates:
                if gate not in self.filters:
                    known = ", ".join(self.filters)
                    raise ValueError(f"tiers.{tier}.{gate}: no filter of that name in `filters` ({known})")
        try:
            _ = self.built
        except (UnknownFilter, TypeError) as error:
            raise ValueError(f"filters: {error}") from error
        if self.needing(Needs.CORPUS) and not any(filter_.embeds for filter_ in self.built.values()):
            raise ValueError("filters.duplicates compares embeddings, which the filter aesthetic makes: add it")
        return self

    @cached_property
    def built(self) -> dict[str, Filter[Any]]:
        """The filters, ready to measure, in the recipe's order."""
        return {name: build(name, settings) for name, settings in self.filters.items()}

    def needing(self, needs: Needs) -> dict[str, Filter[Any]]:
        """The filters that measure on `needs`, cheapest first."""
        chosen = [(name, f) for name, f in self.built.items() if f.needs == needs]
        return dict(sorted(chosen, key=lambda pair: pair[1].cost))

    @cached_property
    def clip_protocol(self) -> str:
        """What clips and their samples depend on: another value means another scan."""
        return _digest(self.splitting.model_dump(), self.sampling.model_dump())

    @cached_property
    def export_protocol(self) -> str:
        """What an encoded clip depends on."""
        settings = self.export.model_dump(include={"fps", "frames", "max_height", "crf", "preset"})
        return _digest(settings, {"version": 1})

    def with_gates(self, changes: Mapping[str, Gate | None], source: str = "--set") -> Recipe:
        """A copy with other gates: 'tier.gate' → gate, or None to drop it. source: who asks, for the RecipeError."""
        tiers = {tier: dict(gates) for tier, gates in self.tiers.items()}
        for key, gate in changes.items():
            tier, _, name = key.partition(".")
            if tier not in tiers:
                raise RecipeError(f"{key!r}: no tier {tier!r}; there are: {', '.join(tiers)}")
            if gate is None:
                if name not in tiers[tier]:
                    raise RecipeError(f"{key!r}: tier {tier!r} has no such gate; there are: {', '.join(tiers[tier])}")
                del tiers[tier][name]
            else:
                tiers[tier][name] = gate
        return parse_recipe({**self.model_dump(), "tiers": tiers}, source=source)

    def with_formats(self, formats: Sequence[str]) -> Recipe:
        """A copy that exports to these formats, and to Parquet. Raises RecipeError."""
        chosen = list(dict.fromkeys(["parquet", *formats]))
        return parse_recipe(
            {**self.model_dump(), "export": {**self.export.model_dump(), "formats": chosen}}, source="--format"
        )

    def to_yaml(self) -> str:
        """The whole recipe, every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)


def _digest(*parts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def shipped() -> dict[str, Path]:
    """Recipes that come with the package: name → file."""
    folder = Path(str(files("longtake.curation") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_recipe(name_or_file: str | Path) -> Recipe:
    """A shipped recipe by name, or a YAML file. Raises RecipeError."""
    path = shipped().get(str(name_or_file)) or Path(name_or_file)
    if not path.is_file():
        close = difflib.get_close_matches(str(name_or_file), list(shipped()), 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise RecipeError(f"no recipe {str(name_or_file)!r}: neither a file nor one of {', '.join(shipped())}.{hint}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_yaml(content, source=str(path))


def parse_yaml(content: bytes, source: str) -> Recipe:
    """A recipe from the content of a YAML file. Raises RecipeError."""
    try:
        data = yaml.safe_load(content.decode("utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{source}: not YAML that can be read: {str(error) or 'nested too deeply'}") from error
    _refuse_bombs(data, source)
    return parse_recipe(data, source)


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


def parse_recipe(data: object, source: str) -> Recipe:
    """A recipe from plain data. Raises RecipeError with every fault, one per line."""
    if not isinstance(data, dict):
        raise RecipeError(f"{source}: a recipe is a mapping with the keys {', '.join(Recipe.model_fields)}")
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        lines = "\n".join(f"  {line}" for line in _explain(error))
        raise RecipeError(f"{source}: this recipe cannot be used:\n{lines}") from error


def _explain(error: ValidationError) -> Iterator[str]:
    for fault in error.errors():
        where = ".".join(str(part) for part in fault["loc"])
        if fault["type"] != "extra_forbidden":
            yield f"{where + ': ' if where else ''}{fault['msg'].removeprefix('Value error, ')}"
            continue
        section: Any = Recipe
        for part in fault["loc"][:-1]:
            section = section.model_fields[str(part)].annotation
        key = str(fault["loc"][-1])
        close = difflib.get_close_matches(key, list(section.model_fields), 1)
        known = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(section.model_fields)}"
        yield f"{where}: unknown key; {known}"


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
    """What its scores depend on: backend and method; its settings, where a missing package hides the method."""
    try:
        return filter_.backend, filter_.method
    except FilterUnavailable:
        return filter_.backend, {
            key: value for key, value in vars(filter_).items() if key != "reduce" and key[0] != "_"
        }


def _flatten(data: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(data, dict) or not data:
        return {prefix: data}
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
