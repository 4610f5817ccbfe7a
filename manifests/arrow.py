"""NumPy arrays as Arrow arrays, without what `pa.array` imports for it (numpy.ma, and pandas for some): up to 0.5 s of CPU
that a look at a workspace can do without."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def from_numpy(values: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """As `pa.array(values, mask=~valid)`. values: [n] of whole numbers, floats or bool; numbers are not copied."""
    values = np.ascontiguousarray(values)
    known = None if valid is None else _bits(valid)
    if values.dtype == np.bool_:
        return pa.Array.from_buffers(pa.bool_(), len(values), [known, _bits(values)])
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [known, pa.py_buffer(values)])


def _bits(values: npt.NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(values, bitorder="little"))
