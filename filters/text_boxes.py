"""Where text stands in a frame: the detection model of RapidOCR alone, nothing is read.

The ONNX file lies in the rapidocr package (PP-OCR detection, a differentiable-binarisation network: Liao et al., AAAI
2020); nothing is downloaded. The thresholds are given here and not left to the package, so that they stay what the
protocol of a score says. One thread; one engine per process, built at the first call.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from longtake.filters.base import FilterUnavailable, Image

LONG_SIDE = 960
PIXEL_THRESHOLD = 0.3
BOX_THRESHOLD = 0.5
# PP-OCRv6 boxes some whole frames with soft skies (seen on real film, at scores up to 0.88): no line of text is so big.
LARGEST = 0.3  # Share of the frame's area.
# Boxes are grown by this share of area / perimeter: by the package's 1.6 they are a quarter larger than the letters.
UNCLIP = 1.0

Boxes = npt.NDArray[np.int32]

# Pictures whose boxes are remembered, since two filters ask for the same ones: those of a hundred clips.
_REMEMBERED = 512
_known: dict[bytes, Boxes] = {}


def text_boxes(image: Image) -> Boxes:
    """Boxes around the lines of text in one RGB uint8 [h, w, 3] image: int32 [n, 4, 2], corners as (x, y) in pixels.

    Images whose long side is over 960 px are reduced for the network, others go as they are (to the next multiple of
    32). A box over 30 % of the area is dropped. Raises FilterUnavailable without rapidocr or its model.
    """
    key = hashlib.blake2b(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).digest()
    boxes = _known.get(key)
    if boxes is None:
        boxes = _detected(image)
        if len(_known) >= _REMEMBERED:
            _known.clear()
        _known[key] = boxes
    return boxes.copy()


def _detected(image: Image) -> Boxes:
    # RapidOCR takes OpenCV's order of channels.
    import cv2

    detected = _engine()(np.ascontiguousarray(image[..., ::-1]), use_det=True, use_cls=False, use_rec=False)
    if detected.boxes is None or len(detected.boxes) == 0:
        return np.zeros((0, 4, 2), dtype=np.int32)
    boxes = np.rint(np.asarray(detected.boxes, dtype=np.float64)).astype(np.int32)
    largest = LARGEST * image.shape[0] * image.shape[1]
    return boxes[np.array([cv2.contourArea(box) <= largest for box in boxes], dtype=np.bool_)]


@cache
def model_path() -> Path:
    """The detection model in the rapidocr package. Loads nothing. Raises FilterUnavailable."""
    spec = importlib.util.find_spec("rapidocr")
    if spec is None or not spec.submodule_search_locations:
        raise FilterUnavailable(
            "overlaid text is found by the package rapidocr, which is missing: pip install 'longtake[models]'"
        )
    folder = Path(spec.submodule_search_locations[0]) / "models"
    models = sorted(folder.glob("*det*.onnx"))
    if not models:
        raise FilterUnavailable(f"no text detection model (*det*.onnx) in {folder}: install rapidocr again")
    return models[0]


@cache
def model_hash() -> str:
    """The first 12 digits of the SHA-256 of the model file: part of the protocol."""
    with model_path().open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


@cache
def _engine() -> Any:
    from rapidocr import RapidOCR

    return RapidOCR(
        params={
            "Global.log_level": "error",
            "Global.use_cls": False,
            "Global.use_rec": False,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            "Det.model_path": str(model_path()),
            "Det.limit_type": "max",
            "Det.limit_side_len": LONG_SIDE,
            "Det.thresh": PIXEL_THRESHOLD,
            "Det.box_thresh": BOX_THRESHOLD,
            "Det.unclip_ratio": UNCLIP,
        }
    )
