"""The commands on predictions that are made elsewhere: predictions list, export, score."""

from pathlib import Path
from typing import Annotated

import typer

from stillrobust.cli.corruptions import (
    CHANCE_PICTURE,
    AcceptChance,
    ChannelOrder,
    Corruptions,
    DatasetRegime,
    Draws,
    Seed,
    Severities,
    WarpTruth,
    parse_severities,
)
from stillrobust.cli.grouping import GroupBy
from stillrobust.cli.output import print_text
from stillrobust.cli.report import finish
from stillrobust.names import format_count
from stillrobust.runtime.progress import progress_display

commands = typer.Typer(no_args_is_help=True, help="Score predictions that were made elsewhere.")


@commands.command("list")
def list_command() -> None:
    """List the files of predictions that can be scored.

    Example: stillrobust predictions list
    """
    from stillrobust.evaluation.prediction_files import SUFFIXES

    for task, suffixes in SUFFIXES.items():
        names = (f"fog_3{suffix}" if suffix else "fog/3/" for suffix in suffixes)
        print_text(f"{task}: {', '.join(names)}")


@commands.command()
def export(
    data: Annotated[str, typer.Argument(help="FORMAT:PATH; its val split is used.")],
    out: Annotated[Path, typer.Argument(help="Folder for the images and the manifest.")],
    corruptions: Corruptions = "common",
    severities: Severities = "1,2,3,4,5",
    images: Annotated[
        int | None, typer.Option(help="Export N evenly spaced images (default: all).")
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(help="Export N cells only, and estimate mPC from them."),
    ] = None,
    seed: Seed = 0,
    regime: DatasetRegime = None,
    draws: Draws = "fast",
    channel_order: ChannelOrder = "rgb",
    warp_truth: WarpTruth = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes (default: one for each core).")
    ] = None,
) -> None:
    """Export the images of every cell, for a model elsewhere.

    The images are PNG, with a manifest. Finished cells are skipped.

    Example: stillrobust predictions export coco:mydata exported --corruptions fog --severities 3
    """
    from stillrobust.evaluation import Protocol
    from stillrobust.tools.prediction_export import export_images

    protocol = Protocol(
        tuple(corruptions.split(",")),
        parse_severities(severities),
        seed=seed,
        images=images,
        budget=budget,
        draws=draws,
        regime=regime,
        channel_order=channel_order,
        warp_truth=warp_truth,
    )
    with progress_display() as listen:
        summary = export_images(data, out, protocol, workers, listen)
    print_text(
        f"{format_count(summary.exported, 'cell')} of {format_count(summary.images, 'image')}"
        f" written, {summary.already} existed already: {out}"
    )


@commands.command()
def score(
    exported: Annotated[
        Path, typer.Argument(metavar="EXPORT", help="Folder that `predictions export` wrote.")
    ],
    files: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTIONS",
            help="Folder of the predictions, with one file or folder for each cell.",
        ),
    ],
    data: Annotated[str, typer.Option(help="The dataset that was exported, as FORMAT:PATH.")],
    out: Annotated[Path, typer.Option(help="Folder for results and the report.")],
    name: Annotated[str, typer.Option(help="Name of the run in the results.")],
    weights: Annotated[
        Path | None,
        typer.Option(help="File that identifies the model (default: the prediction files)."),
    ] = None,
    missing_are_empty: Annotated[
        bool,
        typer.Option(
            "--missing-are-empty",
            help="Count images that a file does not name as images without detections.",
        ),
    ] = False,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Remove cells of other predictions under this name."),
    ] = False,
    group_by: GroupBy = None,
    accept_chance: AcceptChance = False,
) -> None:
    """Score predictions for exported images.

    The records and the report are those of `evaluate`.

    Example: stillrobust predictions score exported mine --data coco:mydata --out results --name my
    """
    from stillrobust.data import open_dataset
    from stillrobust.evaluation.prediction_scoring import score_predictions

    with progress_display() as display:
        summary = score_predictions(
            exported,
            files,
            open_dataset(data, "val"),
            out / "results",
            name,
            weights,
            missing_are_empty=missing_are_empty,
            replace_stale=replace,
            progress=lambda done, total, text: display("score", done, total, text),
            group_by=group_by,
            chance_picture=None if accept_chance else out / CHANCE_PICTURE,
        )
    if summary.masks_missing:
        print_text(f"{name} has no masks: box_ap is computed, mask_ap is not", err=True)
    finish(out / "results", out)
    print_text(
        f"{format_count(len(summary.scored), 'cell')} scored,"
        f" {len(summary.already)} scored before, {len(summary.without_file)} without predictions"
    )
