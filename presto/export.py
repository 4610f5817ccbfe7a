"""From a run's newest checkpoint to a model folder that AllegroPipeline loads."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from longtake.presto import checkpoint
from longtake.presto.adapter import adapt, adapters, merged, save_adapter
from longtake.presto.config import TrainConfig, parse_config
from longtake.presto.errors import PrestoError
from longtake.presto.folder import PARTS, SETTINGS, require_model_folder, write_weights_record
from longtake.presto.model import empty_transformer, load_transformer, save_transformer
from longtake.presto.sample import scheduler_of

log = logging.getLogger(__name__)


def export(run: Path, model: Path, output: Path, *, average: bool | None = None) -> Path:
    """Write the weights of a run's newest checkpoint as a model folder; the folder.

    model: the model folder that the run started from; what is not trained is copied from there (hard links where the
    disk has them). average: the averaged weights; None: if there are any. Which they are is written to weights.json
    and logged. One process, float32, as much memory as the weights take. Raises PrestoError.
    """
    require_model_folder(model)
    checkpoint, config = _newest(run)
    has_average = config.optimizer.ema is not None
    if average and not has_average:
        raise PrestoError(f"{checkpoint.path}: optimizer.ema is null, so there are no averaged weights")
    averaged = has_average and average is not False
    transformer = _trained(checkpoint, model, config, "ema" if averaged else "model")
    staged = output.with_name(f".{output.name}.part")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    for name in PARTS[1:]:
        shutil.copytree(model / name, staged / name, copy_function=_link)
    shutil.copyfile(model / "model_index.json", staged / "model_index.json")
    if config.loss.objective == "flow":
        _write_scheduler(staged, scheduler_of(model, config.loss))
    save_transformer(transformer, staged / "transformer")
    record = {
        "weights": "averaged" if averaged else "last",
        "decay": config.optimizer.ema if averaged else None,
        "step": checkpoint.step,
        "recipe": config.name,
        "encoding": config.encoding.model_dump(mode="json"),
    }
    write_weights_record(staged, record)
    shutil.rmtree(output, ignore_errors=True)
    staged.rename(output)
    log.info("%s holds the %s weights of step %d", output, record["weights"], checkpoint.step)
    return output


def export_adapter(run: Path, model: Path, output: Path, *, average: bool | None = None) -> Path:
    """Write the adapters of a run's newest checkpoint as a folder that `peft.PeftModel.from_pretrained` loads onto the
    transformer of `model`, the folder that the run started from. average: see `export`. Raises PrestoError."""
    newest, config = _newest(run)
    if config.lora is None:
        raise PrestoError(f"{newest.path}: lora is null, so the run has no adapters")
    transformer = load_transformer(model, config.attention)
    adapt(transformer, config.lora)
    weights = adapters(transformer)
    averaged = config.optimizer.ema is not None and average is not False
    checkpoint.load_weights(newest, weights, "ema" if averaged else "model")
    output.mkdir(parents=True, exist_ok=True)
    save_adapter(weights, config.lora, output)
    (output / SETTINGS).write_text(config.attention.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return output


def _newest(run: Path) -> tuple[checkpoint.Checkpoint, TrainConfig]:
    newest = checkpoint.newest(run)
    if newest is None:
        raise PrestoError(f"{run} holds no checkpoint to export")
    return newest, parse_config(newest.meta["config"], str(newest.path / checkpoint.MANIFEST))


def _trained(source: checkpoint.Checkpoint, model: Path, config: TrainConfig, part: str) -> Any:
    """The transformer with the weights of a checkpoint's part; adapters are merged into it."""
    transformer = empty_transformer(model, config.attention).to_empty(device="cpu")
    if config.lora is None:
        checkpoint.load_weights(source, transformer.state_dict(), part)
        return transformer
    adapted = load_transformer(model, config.attention)
    adapt(adapted, config.lora)
    checkpoint.load_weights(source, adapters(adapted), part)
    transformer.load_state_dict(merged(adapted))
    return transformer


def _write_scheduler(folder: Path, scheduler: Any) -> None:
    """In the place of a model folder's own, by which AllegroPipeline then samples."""
    shutil.rmtree(folder / "scheduler")
    scheduler.save_pretrained(folder / "scheduler")
    path = folder / "model_index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    index["scheduler"] = ["diffusers", type(scheduler).__name__]
    path.write_text(json.dumps(index, indent=2), encoding="utf-8")


def _link(source: str, target: str) -> None:
    try:
        Path(target).hardlink_to(Path(source).resolve())
    except OSError:  # The target is on another disk.
        shutil.copyfile(source, target)
