"""From a run's newest checkpoint to a model folder that AllegroPipeline loads."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from longtake.presto import checkpoint
from longtake.presto.config import parse_config
from longtake.presto.errors import PrestoError
from longtake.presto.folder import PARTS, require_model_folder, write_weights_record
from longtake.presto.model import empty_transformer, save_transformer

log = logging.getLogger(__name__)


def export(run: Path, model: Path, output: Path, *, average: bool | None = None) -> Path:
    """Write the weights of a run's newest checkpoint as a model folder; the folder.

    model: the model folder that the run started from; what is not trained is copied from there (hard links where the
    disk has them). average: the averaged weights; None: if there are any. Which they are is written to weights.json
    and logged. One process, float32, as much memory as the weights take. Raises PrestoError.
    """
    require_model_folder(model)
    found = checkpoint.newest(run)
    if found is None:
        raise PrestoError(f"{run} holds no checkpoint to export")
    config = parse_config(found.meta["config"], str(found.path / checkpoint.MANIFEST))
    has_average = config.optimizer.ema is not None
    if average and not has_average:
        raise PrestoError(f"{found.path}: optimizer.ema is null, so there are no averaged weights")
    averaged = has_average and average is not False
    transformer = empty_transformer(model, config.attention).to_empty(device="cpu")
    checkpoint.load_weights(found, transformer.state_dict(), "ema" if averaged else "model")
    staged = output.with_name(f".{output.name}.part")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    for name in PARTS[1:]:
        shutil.copytree(model / name, staged / name, copy_function=_link)
    shutil.copyfile(model / "model_index.json", staged / "model_index.json")
    save_transformer(transformer, staged / "transformer")
    record = {
        "weights": "averaged" if averaged else "last",
        "decay": config.optimizer.ema if averaged else None,
        "step": found.step,
        "recipe": config.name,
        "encoding": config.encoding.model_dump(mode="json"),
    }
    write_weights_record(staged, record)
    shutil.rmtree(output, ignore_errors=True)
    staged.rename(output)
    log.info("%s holds the %s weights of step %d", output, record["weights"], found.step)
    return output


def _link(source: str, target: str) -> None:
    try:
        Path(target).hardlink_to(Path(source).resolve())
    except OSError:  # another disk
        shutil.copyfile(source, target)
