"""The command ``evaluate``."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

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
from stillrobust.errors import UserError
from stillrobust.names import format_count, lookup
from stillrobust.runtime.progress import progress_display
from stillrobust.runtime.run_log import RUN_LOG, log_failures

if TYPE_CHECKING:
    from stillrobust.predictors import Predictor
    from stillrobust.samples import DatasetInfo

commands = typer.Typer()


def _require_known_model(run: Path | None, model: str | None) -> None:
    """Check that there is one model and that its name exists, before its library is imported."""
    from stillrobust.predictors import parse_model_spec

    if (run is None) == (model is None):
        raise UserError(
            "Expected either the folder of a finished run or --model, and not both; give one of"
            " them"
        )
    if model is not None:
        parse_model_spec(model)
    elif run is not None and not run.is_dir():
        raise UserError(
            f"Expected the folder of a finished run at {run}, but there is none; check the path, or"
            " give another library's model with --model"
        )


def _open_model(run: Path | None, model: str | None, info: "DatasetInfo") -> "Path | Predictor":
    from stillrobust.predictors import open_predictor

    return open_predictor(model, info) if model is not None else cast(Path, run)


@commands.command("evaluate")
def evaluate_command(
    data: Annotated[
        str,
        typer.Option(
            help=(
                "Dataset as FORMAT:PATH, such as coco:mydata; see `stillrobust data check`. Its"
                " val split is used."
            )
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for results and the report.")],
    run: Annotated[
        Path | None, typer.Argument(help="Folder that `train` wrote; leave it out with --model.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model from elsewhere: a file, a folder, or KIND:NAME such as timm:resnet50."
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Stop if the dataset is for another task."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the run in the results (default: that of the folder or model)."),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Remove cells of other weights or data under the same name."
        ),
    ] = False,
    corruptions: Corruptions = "common",
    severities: Severities = "1,2,3,4,5",
    images: Annotated[
        int | None, typer.Option(help="Evaluate on N evenly spaced images (default: all).")
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(help="Evaluate N cells only, and estimate mPC from them."),
    ] = None,
    seed: Seed = 0,
    regime: DatasetRegime = None,
    draws: Draws = "fast",
    channel_order: ChannelOrder = "rgb",
    warp_truth: WarpTruth = False,
    group_by: GroupBy = None,
    accept_chance: AcceptChance = False,
) -> None:
    """Evaluate a model under image corruptions.

    Finished cells are skipped, so the command resumes.

    If torchrun starts the command, each process evaluates a shard of the images on its own GPU.

    Example: stillrobust evaluate runs/mine --data coco:mydata --out results

    Example: stillrobust evaluate --data coco:mydata --model my_model.py --out results
    """
    from stillrobust.corruptions.compilation import warm_up
    from stillrobust.data import open_dataset
    from stillrobust.data.bad_images import format_fault_counts
    from stillrobust.evaluation import Protocol
    from stillrobust.metrics import METRICS
    from stillrobust.predictors import Predictor

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
    _require_known_model(run, model)
    if task is not None:
        lookup("task", task, METRICS)
    dataset = open_dataset(data, "val")
    if task is not None and task != dataset.info.task:
        raise UserError(
            f"Expected data for {task}, but {data} is for {dataset.info.task}; give other data or"
            " leave --task out"
        )
    if dataset.info.left_out:
        print_text(
            f"{format_count(len(dataset), 'image')} of {dataset.info.name}; left out:"
            f" {format_fault_counts(dataset.info.left_out)}",
            err=True,
        )
    from stillrobust.evaluation import evaluate
    from stillrobust.evaluation.process_group import join_process_group

    group = join_process_group()
    for note in dataset.info.notes:
        print_text(f"note on {dataset.info.name}: {note}", err=True)
    opened = _open_model(run, model, dataset.info)
    if (
        isinstance(opened, Predictor)
        and dataset.info.has_masks
        and not opened.masks
        and group.is_main_process
    ):
        print_text(f"{opened.model} has no masks: box_ap is computed, mask_ap is not", err=True)
    if isinstance(opened, Predictor) and "read_as" in opened.about and group.is_main_process:
        facts = (f"{name} {value}" for name, value in opened.about["read_as"].items())
        print_text(f"{opened.model} is read as: {', '.join(facts)}", err=True)
    log = (run or out) / RUN_LOG  # an external model has no folder
    with progress_display() as display, log_failures(log, "evaluation"):
        warm_up(protocol.corruptions, protocol.draws, partial(display, "kernels"))
        run_name = evaluate(
            opened,
            dataset,
            out / "results",
            protocol,
            name,
            progress=lambda done, total, text: (
                display("evaluate", done, total, text) if group.is_main_process else None
            ),
            replace_stale=replace,
            log=log,
            group=group,
            group_by=group_by,
            chance_picture=None if accept_chance else out / CHANCE_PICTURE,
        )
    if not group.is_main_process:
        return
    finish(out / "results", out)
    if budget is not None:
        _print_estimates(out / "results", run_name, protocol.severities)


def _print_estimates(results: Path, run: str, severities: tuple[int, ...]) -> None:
    from stillrobust.analysis.estimates import estimate_run
    from stillrobust.report.table import Percent
    from stillrobust.storage.store import Store

    for one in estimate_run(Store(results), run, severities):
        print_text(
            f"Estimate of mPC of {run}, {one.metric}: {Percent(one.value, (one.low, one.high))}"
            f" from {one.cells} of {one.total_cells} cells; compare it with full results only with"
            " its interval"
        )
