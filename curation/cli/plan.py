"""`longtake plan`: the price of a run, before it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from longtake.curation.cli.app import allow_all, app, command, console, errors, examples, outside
from longtake.curation.cli.options import (
    AccessFile,
    Address,
    AllowEndpoints,
    AllowPrivate,
    AllowScheme,
    AsJson,
    Engine,
    ListFps,
    RecipeName,
    SecretQuery,
    UriColumn,
    Videos,
    Workers,
)
from longtake.curation.cli.tables import print_table

if TYPE_CHECKING:
    from longtake.curation.planning.price import Price


@app.command(
    epilog=examples(
        "longtake plan videos/ -r base",
        "longtake plan 's3://corpus/**/*.mp4' -r longtake-hd --price cpu-hour=0.04 --price gpu-hour=2.5",
    )
)
@command
def plan(
    videos: Videos = None,
    recipe: RecipeName = None,
    prices: Annotated[
        list[str] | None,
        typer.Option(
            "--price",
            metavar="NAME=AMOUNT",
            help="Set the price of one cpu-hour, gpu-hour, request, million-prompt-tokens, million-completion-tokens or gb. "
            "Repeat the option for several prices. The sum is in the same money.",
            show_default=False,
        ),
    ] = None,
    ask: Annotated[
        bool,
        typer.Option(
            "--ask",
            help="Send the questions about the sample's clips and the requests for their captions, too, which may cost money. By "
            "default none is sent.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Draw another sample with another number.")] = 0,
    as_json: AsJson = False,
    uri_column: UriColumn = None,
    engine: Engine = None,
    address: Address = None,
    workers: Workers = None,
    list_fps: ListFps = None,
    access: AccessFile = None,
    secret_query: SecretQuery = None,
    allow_scheme: AllowScheme = None,
    allow_private: AllowPrivate = False,
    allow_endpoints: AllowEndpoints = None,
) -> None:
    """Estimate what a run will take. The command curates a sample (1 % of the videos and 30 clips, or more if those say too
    little), keeps nothing of it, and prints hours, requests, tokens, bytes and kept hours, each with an interval."""
    from longtake.curation.access import Access, Reach
    from longtake.curation.cli.progress import Progress
    from longtake.curation.inputs import gather
    from longtake.curation.lists import ListRules
    from longtake.curation.planning.price import parse_prices, price
    from longtake.curation.recipe import load_recipe
    from longtake.curation.stages.stage import Options

    allow_all(allow_endpoints)
    amounts = parse_prices(prices or [], typer.BadParameter)
    reads = Access.load(access, Reach.of(allow_scheme, allow_private, secret_query))
    gathered = gather(videos or [], ListRules(uri_column, list_fps), reads)
    options = Options(engine=engine, address=address, workers=workers)
    with Progress(errors if as_json else console) as progress:
        progress.inputs(gathered.report)
        estimate = price(
            gathered, load_recipe(recipe or "embedded"), options, progress, amounts, ask=ask, seed=seed, access=reads
        )
    if as_json:
        json.dump(asdict(estimate), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        _show(estimate)


def _show(price: Price) -> None:
    from longtake.curation.planning.estimate import LEVEL
    from longtake.curation.planning.price import QUANTITIES

    rows: list[tuple[object, ...]] = []
    for name, estimate in price.quantities.items():
        what = f"{name} ({QUANTITIES[name][0]})" if QUANTITIES[name][0] else name
        rows.append(
            (what, *(f"{value:,.3g}" for value in (estimate.expected, estimate.low, estimate.high)))
            if estimate
            else (what, *"???")
        )
    if price.money:
        rows.append(
            ("money", *(f"{value:,.3g}" for value in (price.money.expected, price.money.low, price.money.high)))
        )
    console.print()
    print_table(console, "what all of it takes", ("", "expected", "from", "to"), rows)
    console.print(
        f"From a sample of {price.sampled} of {price.videos} videos with {price.clips} clips, of which {price.kept} are kept. "
        f"The truth lies between the two ends {LEVEL:.0%} of the time, on machines like this one.",
        soft_wrap=True,
    )
    console.print("Unit costs, measured now on the sample:")
    for line in price.unit_costs:
        console.print(f"  {outside(line)}", soft_wrap=True)
    for note in price.notes:
        console.print(outside(note), soft_wrap=True)
