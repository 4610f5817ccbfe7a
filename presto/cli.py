"""The command line, `longtake-presto`. Commands are thin; heavy packages are loaded when one of them needs them."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer
import yaml
from typer.core import TyperGroup

from longtake.presto.errors import PrestoError
from longtake.terminal import ENVIRONMENT, check_names, make_ready, unwritable, wrap_streams, wrapped_streams

USAGE, INTERRUPTED = 2, 130
if TYPE_CHECKING:
    EngineName = str
else:
    EngineName = StrEnum("EngineName", {"INLINE": "inline", "RAY": "ray"})
RAY: EngineName = EngineName("ray")
P = ParamSpec("P")
T = TypeVar("T")


class Commands(TyperGroup):
    """The commands; while one of them runs, whatever is written to the standard streams is made printable."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        with wrapped_streams():
            try:
                return super().main(*args, **kwargs)
            except OSError as error:
                if (told := unwritable(error)) is None:
                    raise
                print(f"longtake-presto: {told}", file=sys.stderr)
                raise SystemExit(ENVIRONMENT) from None


app = typer.Typer(
    name="longtake-presto",
    cls=Commands,
    help="Train, sample and evaluate Presto on the shards of longtake export.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from longtake import __version__

        typer.echo(f"longtake-presto {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """The options of `longtake-presto` itself."""


Model = Annotated[
    Path,
    typer.Option(
        "--model", "-m", help="Use this model folder: a download of rhymes-ai/Allegro, or an export.", metavar="DIR"
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Write into this folder.")]
RecipeName = Annotated[
    str, typer.Option("--recipe", "-r", metavar="NAME_OR_FILE", help="Use this recipe: one that ships, or a YAML file.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Use another value, such as optimizer.rate=5e-5. Repeat the option for several values.",
    ),
]
Seeds = Annotated[list[int] | None, typer.Option("--seed", help="Use this seed. Repeat the option for several seeds.")]


def guarded(command: Callable[P, T]) -> Callable[P, T]:
    """Faults that the user can mend are one message and an exit code."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        logging.basicConfig(format="%(message)s", level=logging.INFO)
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        for name in ("httpx", "diffusers", "transformers", "torch", "absl", "aiobotocore"):
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            return command(*args, **kwargs)
        except PrestoError as error:
            print(f"longtake-presto: {error}", file=sys.stderr)
            raise typer.Exit(USAGE) from None
        except ImportError as error:
            print(f"longtake-presto: {error}. Install the trainer: pip install '.[presto]'", file=sys.stderr)
            raise typer.Exit(ENVIRONMENT) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None

    return run


def _config(recipe: str, sets: list[str] | None) -> Any:
    from longtake.presto.config import load_config

    changes = {}
    for given in sets or []:
        key, equals, value = given.partition("=")
        if not equals:
            raise PrestoError(f"--set {given}: KEY=VALUE is wanted")
        try:
            changes[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise PrestoError(f"--set {given}: {error}") from error
    return load_config(recipe, changes)


@app.command()
@guarded
def encode(
    dataset: Annotated[
        str, typer.Argument(help="Encode this folder dataset/<tier> of longtake export, or its URI (s3://…).")
    ],
    model: Model,
    output: Annotated[str, typer.Option("--output", "-o", metavar="DIR", help="Write into this folder, or URI.")],
    recipe: RecipeName = "pretrain",
    sets: Sets = None,
    engine: Annotated[EngineName, typer.Option(help="Encode on Ray, or in this process (inline).")] = RAY,
    address: Annotated[str | None, typer.Option(help="Join this Ray cluster instead of starting a local one.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Let this many workers run at once. Default: one per GPU, or per CPU on a cluster without GPUs."
        ),
    ] = None,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Try clips again that failed before.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print how much is left to encode, and write nothing.")
    ] = False,
) -> None:
    """Encode a dataset into VAE latents and T5 embeddings. After a stop at any moment, the same command goes on."""
    from longtake.presto.encode import compact, encode_here, plan
    from longtake.presto.files import place
    from longtake.presto.progress import Progress, left, outcome

    config, written = _config(recipe, sets), place(output)
    buckets, tolerance = config.data.buckets, config.data.aspect_tolerance
    settings = {"retry_errors": retry_errors, "note": not dry_run}
    todo = plan(place(dataset), model, written, buckets, tolerance, config.encoding, **settings)
    print(left(todo))
    if dry_run:
        return
    progress = Progress(sum(batch.num_rows for batch in todo.batches), print)
    if engine == "inline":
        rows, errors = encode_here(todo, progress.add)
    else:
        from longtake.presto.launch import encode_on_ray

        rows, errors = encode_on_ray(todo, address, workers, progress.add)
    compact(written)
    print(f"{rows - errors} encoded, {errors} failed → {output}, which now holds")
    print(outcome(todo))


@app.command()
@guarded
def train(
    data: Annotated[
        str,
        typer.Argument(
            help="Train on this folder of `encode`, or on dataset/<tier>, which is encoded in the loop; or on the URI of one."
        ),
    ],
    model: Model,
    output: Output,
    recipe: RecipeName = "pretrain",
    sets: Sets = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print buckets, steps, memory and drops, and train nothing.")
    ] = False,
    ranks: Annotated[
        int | None, typer.Option(min=1, help="Plan for this many ranks with --dry-run. Default: torchrun's.")
    ] = None,
    ray_workers: Annotated[
        int | None, typer.Option("--ray", min=1, metavar="N", help="Run N ranks under Ray Train.")
    ] = None,
    address: Annotated[str | None, typer.Option(help="Join this Ray cluster with --ray.")] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Use no GPUs with --ray.")] = False,
) -> None:
    """Train, or go on with a run that was stopped. For several GPUs: `torchrun --nproc-per-node 8 -m longtake.presto train …`."""
    from longtake.presto.files import place
    from longtake.presto.prepare import Run, describe, prepare

    config = _config(recipe, sets)
    run = Run(config, model.resolve(), place(data), output.resolve())
    if dry_run:
        print(describe(run, prepare(run), ranks or int(os.environ.get("WORLD_SIZE", "1"))))
        return
    if ray_workers:
        from longtake.presto.launch import fit_on_ray

        exported = fit_on_ray(run, ray_workers, gpus=not cpu, address=address)
    else:
        from longtake.presto.train import fit

        exported = fit(run)
    if int(os.environ.get("RANK", "0")) == 0:
        print(f"{config.steps} steps done → {exported}")


@app.command()
@guarded
def export(
    run: Annotated[Path, typer.Argument(help="Export the run in this folder.")],
    model: Model,
    output: Output,
    average: Annotated[
        bool | None,
        typer.Option(
            "--average/--last",
            help="Export the averaged weights, or the last ones. Default: the averaged ones if the run has any.",
        ),
    ] = None,
    adapter: Annotated[
        bool,
        typer.Option("--adapter", help="Export only the adapters of a run with lora, as a folder that peft loads."),
    ] = False,
) -> None:
    """Write the newest checkpoint of a run as a model folder that AllegroPipeline loads; adapters are merged into it."""
    from longtake.presto.export import export as write
    from longtake.presto.export import export_adapter

    print((export_adapter if adapter else write)(run, model, output, average=average))


@app.command()
@guarded
def sample(
    model: Annotated[Path, typer.Argument(help="Sample from this model folder of the trainer: RUN/export.")],
    output: Output,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="Use this prompt. Repeat the option for each segment, in order."),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Read the prompts of several videos from this file: JSON or YAML lists, or lines with blank ones between."
        ),
    ] = None,
    negative: Annotated[str | None, typer.Option(help="Use this negative prompt for every segment.")] = None,
    seed: Seeds = None,
    frames: Annotated[int, typer.Option(help="Make this many frames.")] = 88,
    height: Annotated[int, typer.Option(help="Make frames of this height in pixels.")] = 720,
    width: Annotated[int, typer.Option(help="Make frames of this width in pixels.")] = 1280,
    steps: Annotated[int, typer.Option(min=1, help="Take this many steps of the sampler (Euler ancestral).")] = 100,
    guidance: Annotated[float, typer.Option(min=1.0, help="Use this scale of classifier-free guidance.")] = 7.0,
    template: Annotated[
        str | None,
        typer.Option(
            help="Put these words around each prompt, which {} stands for; or the words of this file. With '{}', none are added."
        ),
    ] = None,
    fps: Annotated[float, typer.Option(min=0.1, help="Give the file this many frames per second.")] = 15.0,
    endpoint: Annotated[
        str | None, typer.Option(help="Let a model at this OpenAI-compatible endpoint expand a single prompt to five.")
    ] = None,
    endpoint_model: Annotated[str, typer.Option(help="Ask the model with this name at the endpoint.")] = "default",
) -> None:
    """Sample videos: five prompts each, or one that a language model expands to five."""
    from longtake.presto.config import POSITIVE, template_text
    from longtake.presto.sample import NEGATIVE, Settings, read_prompts, sample_to_files

    given = read_prompts(prompts) if prompts else [list(prompt or [])]
    ideas = [""] * len(given)
    if endpoint:
        from longtake.presto.expand import expand
        from longtake.presto.folder import SETTINGS, read_settings

        count = read_settings(model / "transformer" / SETTINGS).segments
        ideas = [texts[0] if len(texts) == 1 else "" for texts in given]
        given = [
            expand(idea, count, endpoint, endpoint_model) if idea else texts
            for idea, texts in zip(ideas, given, strict=True)
        ]
    try:
        words = POSITIVE if template is None else template_text(template)
    except ValueError as error:
        raise PrestoError(f"--template: {error}") from error
    settings = Settings(frames, height, width, steps, guidance, NEGATIVE if negative is None else negative, words, fps)
    for path in sample_to_files(model, given, output, settings, seed or [0], ideas):
        print(path)


@app.command()
@guarded
def evaluate(
    samples: Annotated[
        Path, typer.Argument(help="Evaluate this folder of `sample`: videos with their prompts beside them.")
    ],
    output: Output,
    real: Annotated[
        str | None, typer.Option(metavar="DIR", help="Measure the clips of this dataset/<tier>, too.")
    ] = None,
    flow: Annotated[
        str, typer.Option(help="Measure flow with dis, raft-large, raft-large-princeton (VBench's), unimatch, …")
    ] = "dis",
    clip: Annotated[
        str | None, typer.Option(help="Measure alignment, too, with ViT-L-14, ViT-B-32 or ViT-B-16.")
    ] = None,
    lpips: Annotated[str | None, typer.Option(help="Measure LPIPS, too, with alex, vgg or squeeze.")] = None,
    most: Annotated[int, typer.Option(min=1, help="Measure at most this many real clips.")] = 100,
) -> None:
    """Dynamic degree, segment–caption alignment, diversity and coherence, beside real clips and shuffled captions.

    Weights lie in the models folder, where `longtake models pull raft-large-princeton clip-vit-l-14 alexnet` puts them."""
    from longtake.presto.evaluate import evaluate_folder, report
    from longtake.presto.files import place

    measures = evaluate_folder(samples, place(real) if real else None, flow, clip, lpips, most)
    output.mkdir(parents=True, exist_ok=True)
    (output / "evaluation.json").write_text(json.dumps(measures, indent=1), encoding="utf-8")
    print(report(measures))


@app.command()
@guarded
def vbench(
    samples: Annotated[Path, typer.Argument(help="Copy this folder of `sample`.")],
    output: Output,
) -> None:
    """Copy samples under the names that VBench expects, to evaluate them in its own environment (docs/presto.md)."""
    from longtake.presto.evaluate import export_vbench

    print(export_vbench(samples, output))


@app.command()
@guarded
def ab(
    first: Annotated[Path, typer.Argument(help="Compare this folder of `sample` of one model.")],
    second: Annotated[
        Path, typer.Argument(help="Compare it with this folder of the other model, on the same prompts.")
    ],
    output: Output,
    seed: Annotated[int, typer.Option(help="Draw the sides of the pairs with this seed.")] = 0,
) -> None:
    """Write a page for a blind comparison: the folder to hand out, and beside it OUTPUT.key.json to keep."""
    from longtake.presto.ab import write_page

    made = write_page(first, second, output, seed)
    print(f"{made.pairs} pairs → {made.page}; the key, which judges must not see: {made.key}")
    for path in made.alone:
        print(f"left out, for no video of the other model has its prompts: {path}")


@app.command()
@guarded
def tally(
    key: Annotated[Path, typer.Argument(help="Use this key of the page: OUTPUT.key.json, beside its folder.")],
    votes: Annotated[list[Path], typer.Argument(help="Count these files, which judges sent back.")],
) -> None:
    """Count win, lose and tie of the first model, by criterion, with intervals and the agreement between judges."""
    from longtake.presto.ab import count_votes, tally_table

    print(tally_table(count_votes(key, votes)))


@app.command()
@guarded
def recipes(name: Annotated[str | None, typer.Argument(help="Print this recipe, with every default.")] = None) -> None:
    """Name the recipes that ship, or print one."""
    from longtake.presto.config import load_config
    from longtake.presto.config import recipes as names

    if name:
        print(load_config(name).to_yaml(), end="")
        return
    for each in names():
        print(f"{each:<28} {load_config(each).description}")


def main() -> None:
    """Entry point."""
    make_ready()
    wrap_streams()
    check_names()
    app()
