"""Published weights: which there are, where they lie on this machine, and how they are read without trusting them.

Files lie in one folder (environment variable LONGTAKE_MODELS, else ~/.cache/longtake/models) under their original
names, in the subfolder the table gives or directly in the folder. Where the variable holds a URI, it is where `longtake
models pull` takes them from, and the folder is ~/.cache/longtake/models. Nothing here downloads: `longtake models pull
NAME` does. Everything is read with `weights_only=True`, from safetensors or from npz without pickles; only OpenAI's CLIP
files, which are TorchScript, are opened by TorchScript's own reader, and that only after their SHA-256 was right.
"""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longtake.filters.base import FilterUnavailable
from longtake.filters.keras_variables import read_variables
from longtake.manifests.folder import is_uri

if TYPE_CHECKING:
    from torch import Tensor

FOLDER_VARIABLE = "LONGTAKE_MODELS"
DEFAULT_FOLDER = "~/.cache/longtake/models"
RECORD_SUFFIX = ".sha256"


@dataclass(frozen=True, slots=True)
class Weight:
    """One published file.

    filename: path below the models folder; its last part is the original's name. source: URL of the original, or
    'owner/repo : path' where it comes only inside a bigger download. size: bytes, where known. sha256: 64 hex digits,
    or the first 8 where the publisher states no more (torchvision's names end in them); None: none is published,
    and the hash recorded beside the file at the first pull counts.
    """

    name: str
    filename: str
    source: str
    licence: str
    size: int | None = None
    sha256: str | None = None


_LAION_V1 = "https://raw.githubusercontent.com/LAION-AI/aesthetic-predictor/main/"
_OPENAI = "https://openaipublic.azureedge.net/clip/models/"
_TORCHVISION = "https://download.pytorch.org/models/"
_UNIMATCH = "https://s3.eu-central-1.amazonaws.com/avg-projects/unimatch/pretrained/"

WEIGHTS: dict[str, Weight] = {
    weight.name: weight
    for weight in (
        # OpenAI's URLs carry the SHA-256, and its own loader checks it.
        Weight(
            "clip-vit-l-14",
            "clip/ViT-L-14.pt",
            _OPENAI + "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
            "MIT",
            sha256="b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        ),
        Weight(
            "clip-vit-b-32",
            "clip/ViT-B-32.pt",
            _OPENAI + "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
            "MIT",
            sha256="40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        ),
        Weight(
            "clip-vit-b-16",
            "clip/ViT-B-16.pt",
            _OPENAI + "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt",
            "MIT",
            sha256="5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        ),
        Weight(
            "aesthetic-v2",
            "aesthetic/sac+logos+ava1-l14-linearMSE.pth",
            "https://raw.githubusercontent.com/christophschuhmann/improved-aesthetic-predictor/main/"
            "sac%2Blogos%2Bava1-l14-linearMSE.pth",
            "Apache-2.0",
            3714759,
            "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
        ),
        Weight(
            "aesthetic-v1-vit-l-14",
            "aesthetic/sa_0_4_vit_l_14_linear.pth",
            _LAION_V1 + "sa_0_4_vit_l_14_linear.pth",
            "MIT",
            4071,
            "2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
        ),
        Weight(
            "aesthetic-v1-vit-b-32",
            "aesthetic/sa_0_4_vit_b_32_linear.pth",
            _LAION_V1 + "sa_0_4_vit_b_32_linear.pth",
            "MIT",
            3047,
            "c7b14cead230694acc7b9447974d3cad78003c72da032e402a303b6c2429e85f",
        ),
        Weight(
            "aesthetic-v1-vit-b-16",
            "aesthetic/sa_0_4_vit_b_16_linear.pth",
            _LAION_V1 + "sa_0_4_vit_b_16_linear.pth",
            "MIT",
            3047,
            "8ad3923d7ecf019df20ecd2ab5542a3075fbba0278d239c0371345f3d7fcbde0",
        ),
        # A Keras archive: its variables are read without TensorFlow (`keras_variables.py`).
        Weight(
            "nsfw-vit-l-14",
            "nsfw/clip_autokeras_binary_nsfw.zip",
            "https://raw.githubusercontent.com/LAION-AI/CLIP-based-NSFW-Detector/"
            "d6bb8fe31fd4aecbfed7dfb62df4fe5858bfc014/clip_autokeras_binary_nsfw.zip",
            "MIT",
            1094585,
            "905520bb0336accc73ee282c605d926aef90cf14248889d44b9cee50eef71f8a",
        ),
        Weight(
            "alexnet",
            "lpips/alexnet-owt-7be5be79.pth",
            _TORCHVISION + "alexnet-owt-7be5be79.pth",
            "BSD-3-Clause",
            sha256="7be5be79",
        ),
        Weight(
            "vgg16",
            "lpips/vgg16-397923af.pth",
            _TORCHVISION + "vgg16-397923af.pth",
            "BSD-3-Clause",
            sha256="397923af",
        ),
        Weight(
            "squeezenet1_1",
            "lpips/squeezenet1_1-b8a52dc0.pth",
            _TORCHVISION + "squeezenet1_1-b8a52dc0.pth",
            "BSD-3-Clause",
            sha256="b8a52dc0",
        ),
        # The trunk alone, taken out of VMAF's lpips_sq.onnx under torchvision's names.
        Weight(
            "squeezenet1_1-vmaf",
            "lpips/squeezenet1_1_features_from_lpips_sq.npz",
            "Netflix/vmaf : model/tiny/lpips_sq.onnx",
            "BSD-2-Clause-Patent",
            2904138,
            "4c9be6a1060d6e6b6eefe55f492d7782d20a0220c0e9089e8920f7503d6d504b",
        ),
        Weight(
            "raft-small",
            "flow/raft_small_C_T_V2-01064c6d.pth",
            _TORCHVISION + "raft_small_C_T_V2-01064c6d.pth",
            "BSD-3-Clause",
            sha256="01064c6d",
        ),
        Weight(
            "raft-large",
            "flow/raft_large_C_T_SKHT_V2-ff5fadd5.pth",
            _TORCHVISION + "raft_large_C_T_SKHT_V2-ff5fadd5.pth",
            "BSD-3-Clause",
            sha256="ff5fadd5",
        ),
        Weight(
            "raft-small-princeton",
            "flow/raft-small.pth",
            "princeton-vl/RAFT : models/raft-small.pth (of download_models.sh)",
            "BSD-3-Clause",
            3984814,
            "c7d41b9cc88442bb8aa911dbb33086dac55a226394b142937ff22d5578717332",
        ),
        Weight(
            "raft-large-princeton",
            "flow/raft-things.pth",
            "princeton-vl/RAFT : models/raft-things.pth (of download_models.sh)",
            "BSD-3-Clause",
        ),
        # The S-Lab License 1.0 allows non-commercial purposes only. No hash of the file is published.
        Weight(
            "dover",
            "dover/DOVER.pth",
            "https://github.com/VQAssessment/DOVER/releases/download/v0.1.0/DOVER.pth",
            "S-Lab-1.0 (non-commercial)",
        ),
        # The digits at the end of UniMatch's names look like a hash, but are documented as none.
        Weight(
            "unimatch",
            "flow/gmflow-scale2-regrefine6-mixdata-train320x576-4e7b215d.pth",
            _UNIMATCH + "gmflow-scale2-regrefine6-mixdata-train320x576-4e7b215d.pth",
            "MIT",
        ),
        Weight(
            "unimatch-scale2",
            "flow/gmflow-scale2-mixdata-train320x576-9ff1c094.pth",
            _UNIMATCH + "gmflow-scale2-mixdata-train320x576-9ff1c094.pth",
            "MIT",
        ),
        Weight(
            "unimatch-scale1",
            "flow/gmflow-scale1-mixdata-train320x576-4c3a6e9a.pth",
            _UNIMATCH + "gmflow-scale1-mixdata-train320x576-4c3a6e9a.pth",
            "MIT",
        ),
    )
}


def models_folder() -> Path:
    """The local folder that holds the weights. It need not exist."""
    folder = os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER
    return Path(DEFAULT_FOLDER if is_uri(folder) else folder).expanduser()


def models_uri() -> str | None:
    """Where `longtake models pull` takes weights from, if the variable holds a URI and not a folder."""
    folder = os.environ.get(FOLDER_VARIABLE, "")
    return folder if is_uri(folder) else None


def find_weight(name: str) -> Path:
    """Where the file of a weight lies, unchecked. Raises FilterUnavailable if it is missing, KeyError for no weight."""
    weight, folder = WEIGHTS[name], models_folder()
    for path in (folder / weight.filename, folder / Path(weight.filename).name):
        if path.is_file():
            return path
    raise FilterUnavailable(
        f"{folder / weight.filename} is missing: get it with `longtake models pull {name}`"
        + (f" from {uri} ({FOLDER_VARIABLE})" if (uri := models_uri()) else "")
        + f", or copy it there from {weight.source}"
    )


def missing(names: Iterable[str]) -> list[str]:
    """Those of `names` whose file is not on this machine."""

    def absent(name: str) -> bool:
        try:
            find_weight(name)
        except FilterUnavailable:
            return True
        return False

    return [name for name in names if absent(name)]


def verify(name: str) -> Path:
    """Where the file of a weight lies, once its size and SHA-256 are right. The file is hashed once per process.

    Raises FilterUnavailable if it is missing, truncated or another file.
    """
    path = find_weight(name)
    weight = WEIGHTS[name]
    size = path.stat().st_size
    problem = None
    if weight.size is not None and size != weight.size:
        problem = f"it has {size} bytes, not {weight.size}"
    elif expected := expected_sha256(name):
        digest = file_sha256(path)
        if not digest.startswith(expected):
            problem = f"its SHA-256 is {digest}, not {expected}"
    if problem:
        raise FilterUnavailable(
            f"{path} is not the weight {name!r}: {problem}; remove it and run `longtake models pull {name}` "
            f"({weight.source})"
        )
    return path


def expected_sha256(name: str) -> str | None:
    """The hash (or its start) that the file must have: the table's, else the one recorded at the first pull."""
    if known := WEIGHTS[name].sha256:
        return known
    record = _record(find_weight(name))
    return record.read_text("ascii").split()[0] if record.is_file() else None


def weight_tag(name: str) -> str:
    """The first 8 digits of a weight's SHA-256, for protocols. Where the table knows them, no file is needed.

    Raises FilterUnavailable where it does not and the file is missing or wrong.
    """
    return (WEIGHTS[name].sha256 or file_sha256(verify(name)))[:8]


def record_sha256(path: Path) -> str:
    """Note a file's SHA-256 beside it, as `sha256sum -c` reads it: at the pull of a weight without a published hash."""
    digest = file_sha256(path)
    _record(path).write_text(f"{digest}  {path.name}\n", "ascii")
    return digest


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, computed again only when its size or time of change does."""
    stat = path.stat()
    return _file_sha256(path, stat.st_size, stat.st_mtime_ns)


@cache
def _file_sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record(path: Path) -> Path:
    return path.with_name(path.name + RECORD_SUFFIX)


def load_weight(name: str) -> dict[str, Tensor]:
    """The tensors of a weight by their original names, on the CPU; float ones as float32.

    What checkpoints are wrapped in ('model', 'state_dict', 'module.') is taken off. Raises FilterUnavailable if the
    file is missing, truncated, another one, or holds values that are not finite.
    """
    path = verify(name)
    import torch

    # A broken file may raise any error: RuntimeError, OSError, EOFError, UnpicklingError, BadZipFile, KeyError, ….
    try:
        content = _read(path, trusted=len(expected_sha256(name) or "") == 64)
    except Exception as error:
        raise FilterUnavailable(f"{path} is no readable weight file: {_first_line(error)}") from error
    for wrapper in ("model", "state_dict"):
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    state: dict[str, Tensor] = {}
    for key, value in content.items():
        if not isinstance(value, torch.Tensor):
            raise FilterUnavailable(f"{path} is no weight file: {key!r} is no tensor but {type(value).__name__}")
        if value.is_floating_point():
            value = value.float()
            if not torch.isfinite(value).all():
                raise FilterUnavailable(f"{path} is broken: {key!r} holds values that are not finite")
        state[key.removeprefix("module.")] = value
    return state


def fill(module: Any, state: Mapping[str, Tensor], name: str) -> None:
    """Put `state` into a torch module, all of it and nothing else. Raises FilterUnavailable naming the file."""
    try:
        module.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise FilterUnavailable(
            f"{find_weight(name)} holds the weights of another model: {' '.join(' '.join(lines[1:3]).split())[:300]}"
        ) from error
    module.requires_grad_(False).eval()


def _read(path: Path, *, trusted: bool) -> dict[str, Any]:
    import torch

    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    if path.suffix == ".zip":
        return {name: torch.from_numpy(value.copy()) for name, value in read_variables(path).items()}
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    if _is_torchscript(path):
        if not trusted:
            raise ValueError("it is TorchScript, which is opened only under a known SHA-256")
        reader: Any = torch.jit
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # TorchScript is deprecated, but OpenAI publishes its files in that form.
            return dict(reader.load(str(path), map_location="cpu").state_dict())
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(Path(member).name == "constants.pkl" for member in archive.namelist())


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
