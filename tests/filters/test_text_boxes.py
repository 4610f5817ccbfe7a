import hashlib

import cv2
import numpy as np
import pytest

pytest.importorskip("rapidocr")

from longtake.filters.base import Image
from longtake.filters.text_boxes import LARGEST, model_hash, model_path, text_boxes
from tests.filters.pictures import crop, resized


def written(x: int, y: int) -> tuple[Image, tuple[int, int, int, int]]:
    """A photograph 480×270 with a line of text at (x, y), and the text's exact extent (left, top, right, bottom)."""
    image = resized(crop(1500), 480, 270)
    ink = np.zeros(image.shape[:2], dtype=np.uint8)
    cv2.putText(ink, "LONG TAKES ONLY", (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.9, 255, 2, cv2.LINE_AA)
    image[cv2.dilate(ink, np.ones((3, 3), np.uint8)) > 0] = 0
    image[ink > 128] = 255
    rows, columns = np.nonzero(ink)
    return image, (int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max()))


@pytest.mark.parametrize(("x", "y"), [(60, 60), (120, 230)])
def test_a_line_of_text_is_found_where_it_is(x: int, y: int) -> None:
    image, (left, top, right, bottom) = written(x, y)
    boxes = text_boxes(image)
    assert boxes.dtype == np.int32
    assert boxes.shape[1:] == (4, 2)
    found = np.zeros(image.shape[:2], dtype=np.uint8)
    for box in boxes:
        cv2.fillConvexPoly(found, box, 1)
    true = np.zeros_like(found)
    true[top : bottom + 1, left : right + 1] = 1
    assert (found & true).sum() / true.sum() > 0.9
    assert (found & true).sum() / (found | true).sum() > 0.5  # The boxes are a little generous.


def test_no_text_no_boxes() -> None:
    assert text_boxes(np.full((270, 480, 3), 90, dtype=np.uint8)).shape == (0, 4, 2)


def test_no_box_is_as_big_as_the_picture() -> None:
    # One letter that fills the picture: no line of text.
    image = np.full((128, 128, 3), 255, dtype=np.uint8)
    cv2.putText(image, "A", (8, 116), cv2.FONT_HERSHEY_SIMPLEX, 5, (0, 0, 0), 14)
    assert all(cv2.contourArea(box) <= LARGEST * 128 * 128 for box in text_boxes(image))


def test_the_hash_is_that_of_the_file() -> None:
    assert model_path().suffix == ".onnx"
    assert model_hash() == hashlib.sha256(model_path().read_bytes()).hexdigest()[:12]
