"""What captioners can be told: their settings as models, without the code that captions, so that checking a recipe loads
neither OpenCV nor an HTTP client.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator, model_validator

from longtake.captioning.permission import plain_url
from longtake.captioning.prompting import DEFAULT, load_prompts
from longtake.settings import Fault, SettingsError, checked

# Environment variables: the model's name at its endpoint, the key, and the file that holds the key.
MODEL, KEY, KEY_FILE = "LONGTAKE_CAPTION_MODEL", "LONGTAKE_CAPTION_KEY", "LONGTAKE_CAPTION_KEY_FILE"
# Variables that a recipe may name. A recipe may come from an untrusted source, and other variables hold secrets of
# other programs.
VARIABLES = re.compile(r"LONGTAKE_[A-Z0-9_]+")
NO_FILE = f"a recipe names no key file, since it could name any file of this machine; set {KEY_FILE} in the environment instead"
NO_VARIABLE = (
    "a recipe may name only variables that begin with LONGTAKE_ (capitals, digits, _), since it could name any secret of "
    f"this machine; put the key into {KEY}"
)


class Settings(BaseModel):
    """Settings from a recipe: an unknown one is an error. No message repeats a value: it may be a secret."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


# Words of a sub-caption, from and to, that each style asks for. `release`: the evaluation prompts that were published
# with LongTake-HD have 42 to 81 words a sub-caption.
STYLES: dict[str, tuple[int, int]] = {"plain": (20, 80), "release": (40, 90)}
# Tokens that an answer may have: for one text, and for all texts of a question.
ANSWER_TOKENS = {"stepwise": 1024, "joint": 4096}


class MethodSettings(Settings):
    """What is the same for all captioners that put questions to a model."""

    method: Literal["joint", "stepwise"] = Field(
        "joint",
        description="`joint`: two questions a clip, for the keyframes with the overall caption, and for the five sub-captions; "
        "`stepwise`: eleven, one for each text",
    )
    style: Literal["plain", "release"] = Field(
        "plain",
        description="length of a sub-caption: 20 to 80 words; `release`: 40 to 90, as the published prompts have",
    )
    prompts: str | dict[str, str] = Field(
        DEFAULT, description="a set that ships; a folder with refine.txt and so on; or templates by role"
    )
    seed: int = Field(0, ge=0, description="every question has a seed of its own that follows from this one")
    temperature: float = Field(0.7, ge=0, le=2, description="of an answer")
    max_tokens: int | None = Field(
        None, ge=16, description="of an answer; null: 4096 with the method joint, 1024 with stepwise"
    )
    tries: int = Field(3, ge=1, le=10, description="answers asked for per step, until one can be used")
    words: tuple[int, int] | None = Field(
        None, description="length of a sub-caption, from and to; null: what the style asks for"
    )
    caption_words: tuple[int, int] = Field((30, 150), description="length of the overall caption, from and to")
    lengths: tuple[Literal["short", "long"], ...] = Field(
        (), description="also a short and a long overall caption, by the same question (joint only)"
    )
    short_words: tuple[int, int] = Field((5, 25), description="length of the short overall caption, from and to")
    long_words: tuple[int, int] = Field((100, 300), description="length of the long overall caption, from and to")
    facts: bool = Field(
        False,
        description="also subject, action, place, light, camera movement and shot size as columns, by the same question "
        "(joint only)",
    )
    language: str = Field("en", pattern=r"^[a-z]{2,3}$", description="ISO 639-1", examples=["en"])
    speculations: int = Field(0, ge=0, description="words of guessing that a text may have")
    refiner: dict[str, Any] | None = Field(
        None,
        description="settings of another model for the refinement, over those of the describer; with `captioner`, of "
        "another backend",
    )

    @field_validator("words", "caption_words", "short_words", "long_words")
    @classmethod
    def _rising(cls, words: tuple[int, int] | None) -> tuple[int, int] | None:
        if words is not None and not 1 <= words[0] <= words[1]:
            raise ValueError(f"words are [from, to], not [{words[0]}, {words[1]}]")
        return words

    @model_validator(mode="after")
    def _only_joint(self) -> MethodSettings:
        if self.method != "joint" and (self.lengths or self.facts):
            name = "lengths" if self.lengths else "facts"
            raise ValueError(f"{name}: only the method joint writes them")
        return self

    @property
    def band(self) -> tuple[int, int]:
        """Words of a sub-caption, from and to."""
        return self.words or STYLES[self.style]

    @property
    def answer_tokens(self) -> int:
        """Tokens that an answer may have."""
        return self.max_tokens or ANSWER_TOKENS[self.method]

    def protocol(self) -> dict[str, Any]:
        """What captions depend on besides model and prompts. Of `stepwise` the same as before there was another method, so that
        captions that were paid for still count."""
        asked: dict[str, Any] = {
            "seed": self.seed,
            "temperature": self.temperature,
            "max_tokens": self.answer_tokens,
            "words": self.band,
            "caption_words": self.caption_words,
            "language": self.language,
            "speculations": self.speculations,
        }
        if self.method == "joint":
            asked["facts"] = self.facts
            asked |= {name: getattr(self, f"{name}_words") for name in sorted(self.lengths)}
        return asked


class EndpointSettings(Settings):
    """Where the model is served, and how it may be asked."""

    endpoint: str | None = Field(
        None, description="the base URL, up to and with /v1; null: the variable LONGTAKE_CAPTION_ENDPOINT"
    )
    model: str | None = Field(None, description="as the endpoint calls it; null: the variable LONGTAKE_CAPTION_MODEL")
    api_key_env: str = Field(
        KEY, description="the environment variable that holds the key, if one is needed: one of LONGTAKE_*"
    )
    concurrency: int = Field(32, ge=1, le=4096, description="requests in flight, of all workers and runs together")
    requests_per_minute: float | None = Field(
        None, gt=0, description="where the provider limits them: of all workers and runs together"
    )
    timeout: float = Field(120.0, gt=0, description="seconds for one answer")
    patience: float = Field(900.0, gt=0, description="seconds in which a failing request is sent again")
    request_tries: int = Field(6, ge=1, le=50, description="times that a failing request is sent")
    max_answer_kib: int = Field(256, ge=1, description="a longer answer is refused")
    token_ceiling: int | None = Field(
        None,
        ge=1,
        description="tokens of one run, over all its workers; at it the run stops, and only what is in flight is still paid",
    )
    cost_ceiling: float | None = Field(None, gt=0, description="the same in money")
    prompt_price: float | None = Field(None, ge=0, description="per million tokens, in the currency of the ceiling")
    completion_price: float | None = Field(None, ge=0, description="per million tokens, in the currency of the ceiling")
    workers: int = Field(1, ge=1, description="processes that ask, at most; they share the limits")

    @model_validator(mode="before")
    @classmethod
    def _no_file(cls, settings: Any) -> Any:
        if isinstance(settings, dict) and "api_key_file" in settings:
            raise ValueError(f"api_key_file: {NO_FILE}")
        return settings

    @field_validator("endpoint")
    @classmethod
    def _plain(cls, endpoint: str | None) -> str | None:
        return endpoint if endpoint is None else plain_url(endpoint)

    @field_validator("api_key_env")
    @classmethod
    def _own_variable(cls, name: str) -> str:
        if not VARIABLES.fullmatch(name):
            raise ValueError(NO_VARIABLE)
        return name


class LocalSettings(Settings):
    """Which model runs in the worker, and how."""

    path: str = Field(description="the model's folder, in the form of transformers, with its processor")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` is CUDA where torch sees it")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="the numbers it computes in")
    batch_size: int = Field(16, ge=1, description="requests generated together; halved for good when memory runs out")


class WaveSettings(Settings):
    """Which model runs in vLLM's engines, and on what."""

    path: str = Field(description="the model's folder, on every node")
    gpus: int = Field(
        1,
        ge=0,
        description="engines at once, each on `tensor_parallel` GPUs; 0: one engine on a CPU, for vLLM's build for CPUs",
    )
    tensor_parallel: int = Field(1, ge=1, description="GPUs of one engine")
    engine: dict[str, Any] = Field(default_factory=dict, description="further arguments of vLLM's engine")
    clips_per_wave: int = Field(2048, ge=1, description="clips that are captioned together")


# The built-in captioners that put questions to a model, and the settings of their backends.
BACKENDS: dict[str, type[Settings]] = {
    "openai": EndpointSettings,
    "transformers": LocalSettings,
    "vllm": WaveSettings,
}
# The built-in captioners and their settings.
MODELS: dict[str, type[Settings]] = {
    "descriptors": Settings,
    "sidecar": Settings,
    **{
        name: create_model(
            f"{backend.__name__.removesuffix('Settings')}CaptionerSettings", __base__=(MethodSettings, backend)
        )
        for name, backend in BACKENDS.items()
    },
}


def faults_in(name: str, settings: Mapping[str, Any], *, files: bool = False) -> list[Fault]:
    """Everything that is wrong with the settings of a built-in captioner. files: also look whether the prompts are there."""
    faults: list[Fault] = []
    try:
        checked(MODELS[name], settings, quote=False)
    except SettingsError as error:
        faults += error.faults
    if name not in BACKENDS:
        return faults
    prompts, method = settings.get("prompts"), settings.get("method", "joint")
    wrong = {fault.where[0] for fault in faults if fault.where}
    if not wrong & {"prompts", "method"} and (isinstance(prompts, dict) or (files and isinstance(prompts, str))):
        try:
            load_prompts(prompts, method)
        except ValueError as error:
            faults.append(Fault(("prompts",), str(error).removeprefix("prompts: ")))
    if isinstance(settings.get("refiner"), dict):
        faults += _refiner_faults(name, settings)
    return faults


def _refiner_faults(name: str, settings: Mapping[str, Any]) -> list[Fault]:
    changes = dict(settings["refiner"])
    other = changes.pop("captioner", name)
    if other in MODELS and other not in BACKENDS:
        return [Fault(("refiner", "captioner"), f"the captioner {other!r} does not answer questions")]
    if other not in BACKENDS:
        return []  # The captioner comes from another package: its settings are checked when it is made.
    own = {key: value for key, value in settings.items() if key in BACKENDS[name].model_fields}
    merged = {**(own if other == name else {}), **changes}
    try:
        checked(BACKENDS[other], merged, quote=False)
    except SettingsError as error:
        # A fault in a setting that the refiner takes over from the describer is reported at the describer.
        own_faults = [
            fault for fault in error.faults if not fault.where or fault.where[0] not in own or fault.where[0] in changes
        ]
        return [Fault(("refiner", *fault.where), fault.what) for fault in own_faults]
    return []
