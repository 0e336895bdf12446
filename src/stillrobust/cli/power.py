"""The command ``power``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stillrobust.cli.grouping import RegroupBy, open_store
from stillrobust.cli.output import print_text
from stillrobust.errors import UserError
from stillrobust.names import format_count, lookup

if TYPE_CHECKING:
    from stillrobust.analysis.power import Pilot
    from stillrobust.grid import Place
    from stillrobust.storage.store import Store

commands = typer.Typer()

SIZES = (100, 200, 500, 1000, 2000, 5000, 10_000, 50_000)
QUANTITIES = ("mpc", "drop", "clean")


@commands.command()
def power(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...", help="One or two runs of a pilot: a first evaluation on few images."
        ),
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Folder of results that holds the pilot.")
    ] = None,
    discordant: Annotated[
        float | None,
        typer.Option(help="Without a pilot: % of the images on which only one model is right."),
    ] = None,
    metric: Annotated[str, typer.Option(help="mpc, drop or clean.")] = "mpc",
    images: Annotated[int | None, typer.Option(help="Planned number of images.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Planned seeds of each model.")] = 1,
    difference: Annotated[
        float | None,
        typer.Option(help="Difference in points to detect; the images it needs are printed."),
    ] = None,
    seed_deviation: Annotated[
        float, typer.Option(help="Standard deviation of a model over its seeds, in points.")
    ] = 0.0,
    probability: Annotated[
        float, typer.Option("--power", help="Probability of detecting the difference, in %.")
    ] = 80.0,
    group_by: RegroupBy = None,
) -> None:
    """Plan how many images a difference needs.

    With --images, the smallest difference that an evaluation can show is printed.

    Example: stillrobust power run-a run-b --results out --images 2000

    Example: stillrobust power --discordant 10 --difference 1.0
    """
    from stillrobust.analysis.power import images_needed, planned_pilot, smallest_difference

    lookup("metric of a plan", metric, dict.fromkeys(QUANTITIES, ""))
    if seeds > 1 and not seed_deviation:
        raise UserError(
            f"Expected --seed-deviation with --seeds {seeds}; take the spread of the report's mean"
            " of seeds, or a guess such as 0.5"
        )
    spread = seed_deviation / 100
    if results is not None and runs and discordant is None:
        pilot = _pilot(open_store(results, group_by), runs, metric, spread)
    elif results is None and not runs and discordant is not None:
        pilot = planned_pilot(discordant / 100, spread)
    else:
        raise UserError(
            "Expected either one or two runs with --results, or --discordant without a run; give"
            " one of both"
        )
    share = probability / 100
    by = f"with {format_count(seeds, 'seed')} each and a probability of {probability:g} %"
    for count in [images] if images is not None else SIZES:
        shown = 100 * smallest_difference(pilot, count, seeds, share)
        print_text(f"{format_count(count, 'image')} show a difference of {shown:.2f} points, {by}")
    if difference is not None:
        needed = images_needed(pilot, difference / 100, seeds, share)
        if needed is None:
            print_text(f"No number of images shows {difference:g} points, {by}: plan more seeds")
        else:
            print_text(f"{difference:g} points need {format_count(needed, 'image')}, {by}")
    if runs and len(runs) == 1:
        print_text(
            "One run: as if the other model erred on other images. Give a second run: models err on"
            " the same images, and the differences above become smaller."
        )


def _pilot(store: "Store", names: list[str], metric: str, spread: float) -> "Pilot":
    from stillrobust.analysis.power import pilot_of_runs
    from stillrobust.analysis.resampling import resample_cells
    from stillrobust.metrics import HEADLINE_METRIC

    if len(names) > 2:
        raise UserError(f"Expected one or two runs, but got {len(names)}; leave the others out")
    known = {run.name: run for run in store.runs()}
    runs = [lookup("run", name, known) for name in names]
    score = HEADLINE_METRIC[runs[0].task]
    places = [_places(store, run.name, score, metric) for run in runs]
    if places[0] != places[-1]:
        raise UserError(
            f"Expected the same cells of {' and '.join(names)}, but they differ; evaluate both"
            " under one protocol"
        )
    drawn = [resample_cells(store, run.name, places[0]) for run in runs]
    found = [one for one in drawn if one is not None and score in one.values]
    if len(found) < len(runs):
        raise UserError(
            f"Expected {score} with statistics of every image of {' and '.join(names)}, but there"
            " are none; evaluate them here"
        )
    return pilot_of_runs(found, score, metric, spread)


def _places(store: "Store", run: str, score: str, metric: str) -> "list[Place]":
    from stillrobust.analysis.robustness import covered_cells
    from stillrobust.grid import CLEAN, COMMON, SEVERITIES

    own = [one for one in store.measurements(run) if one.metric == score]
    present = sorted({one.severity for one in own if one.corruption in COMMON}) or SEVERITIES
    severities, corruptions = covered_cells(own, tuple(present))
    cells = [(name, level) for name in corruptions for level in severities]
    return [CLEAN] if metric == "clean" else [CLEAN, *cells]
