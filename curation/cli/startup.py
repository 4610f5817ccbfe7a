"""What lets commands that only look at a workspace start quickly."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec


def leave_pandas_out() -> None:
    """Keep pyarrow from importing pandas, which it does at its first use only to tell pandas' objects from others.

    It costs 0.5 s of CPU, and commands that look at a workspace never hold such an object. pyarrow asks once; a later
    `to_pandas` still works. Does nothing where pandas is imported already.
    """
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    refusal = _Refusal()
    sys.meta_path.insert(0, refusal)
    try:
        pa.scalar(0)
    finally:
        sys.meta_path.remove(refusal)


class _Refusal:
    """An import hook for which there is no pandas."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name == "pandas":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None
