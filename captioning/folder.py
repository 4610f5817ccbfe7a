"""A model's folder, as transformers stores it: whether it is one, and what names its content in a protocol."""

from __future__ import annotations

import hashlib
from pathlib import Path

from longtake.captioning.chat import CaptionerFault
from longtake.manifests.folder import in_words

# Files besides the weights that change an answer.
CONFIGS = ("*.json", "*.jinja", "*.model", "*.txt")


def check_folder(folder: Path) -> None:
    """Raises CaptionerFault unless a model is there."""
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise CaptionerFault(
            f"{folder} holds no model: settings.path must be a folder with config.json, a processor and *.safetensors"
        )


def content(folder: Path) -> str:
    """Twelve digits that change with what is in it: settings as they are; of weights, which may be many gigabytes, their
    names, sizes and first and last MiB. Raises CaptionerFault where there is no model."""
    check_folder(folder)
    digest = hashlib.sha256()
    try:
        for path in sorted({path for pattern in CONFIGS for path in folder.glob(pattern)}):
            digest.update(f"{path.name}\0".encode() + path.read_bytes())
        for path in sorted(folder.glob("*.safetensors")):
            size = path.stat().st_size
            digest.update(f"{path.name}\0{size}\0".encode())
            with path.open("rb") as file:
                digest.update(file.read(2**20))
                file.seek(max(0, size - 2**20))
                digest.update(file.read(2**20))
    except OSError as error:
        raise CaptionerFault(f"the model's folder {folder} cannot be read: {in_words(error)}") from error
    return digest.hexdigest()[:12]
