"""The command that measures: evaluate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stillrobust.cli.completion import names_of
from stillrobust.cli.corruptions import ChannelOrder, Mode, severities_of
from stillrobust.cli.report import finish
from stillrobust.errors import UserError
from stillrobust.names import lookup
from stillrobust.runtime.progress import progress_display
from stillrobust.runtime.run_log import RUN_LOG, log_failures

if TYPE_CHECKING:
    from stillrobust.predictors import Predictor
    from stillrobust.samples import DatasetInfo

commands = typer.Typer()


def _measured(run: Path | None, model: str | None, info: "DatasetInfo") -> "Path | Predictor":
    from stillrobust.predictors import open_predictor

    if run is not None and model is None:
        return run
    if run is None and model is not None:
        return open_predictor(model, info)
    raise UserError(
        "Expected either the folder of a finished run or --model FILE.py, and not both; give one of"
        " them"
    )


@commands.command()
def evaluate(
    data: Annotated[
        str,
        typer.Option(
            help=(
                "FORMAT:PATH; its val split is used. FORMAT(leave_out_bad=True):PATH: without bad"
                " images."
            )
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for results and the report.")],
    run: Annotated[Path | None, typer.Argument(help="The folder of a finished run.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Instead of a run: FILE.py or LIBRARY:NAME, see docs/models.md."),
    ] = None,
    task: Annotated[str | None, typer.Option(help="To be sure: what the data must be for.")] = None,
    corruptions: Annotated[
        str,
        typer.Option(
            autocompletion=names_of("corruptions"),
            help="Names or own files with commas; 'common' is the 15.",
        ),
    ] = "common",
    severities: Annotated[str, typer.Option(help="Severities with commas.")] = "1,2,3,4,5",
    images: Annotated[
        int | None, typer.Option(help="Only so many images, spread over the set.")
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(help="Only so many cells, then an estimate; see docs/statistics.md."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the corruptions.")] = 0,
    regime: Annotated[
        str | None, typer.Option(help="Severity table; by default the data's own.")
    ] = None,
    mode: Mode = "fast",
    channel_order: ChannelOrder = "rgb",
    warp_truth: Annotated[
        bool, typer.Option("--warp-truth", help="Ground truth follows what moves pixels.")
    ] = False,
) -> None:
    """Measure a finished model of any make under corruptions; a second call does only what is
    missing.

    Started by torchrun, each process measures a part of the images on a GPU of its own.

    Example: stillrobust evaluate runs/mine --data coco:mydata --out results

    Example: stillrobust evaluate --task detection --data coco:mydata --model my_model.py --out
    results
    """
    from stillrobust.data import open_dataset
    from stillrobust.data.bad_images import counted
    from stillrobust.evaluation import Protocol
    from stillrobust.evaluation import evaluate as run_evaluation
    from stillrobust.evaluation.process_group import join_process_group
    from stillrobust.predictors import Predictor
    from stillrobust.tasks import TASKS

    names = tuple(corruptions.split(","))
    chosen: dict[str, Any] = {
        "mode": mode,
        "regime": regime,
        "channel_order": channel_order,
        "warp_truth": warp_truth,
    }
    protocol = Protocol(
        names, severities_of(severities), seed=seed, images=images, budget=budget, **chosen
    )
    group = join_process_group()
    dataset = open_dataset(data, "val")
    if (
        task is not None
        and lookup("task", task, dict.fromkeys(TASKS, task))
        and task != dataset.info.task
    ):
        raise UserError(
            f"Expected data for {task}, but {data} is for {dataset.info.task}; give other data or"
            " leave --task out"
        )
    if dataset.info.left_out:
        typer.echo(
            f"{len(dataset):,} images of {dataset.info.name}; left out:"
            f" {counted(dataset.info.left_out)}",
            err=True,
        )
    measured = _measured(run, model, dataset.info)
    if (
        isinstance(measured, Predictor)
        and dataset.info.has_masks
        and not measured.masks
        and group.is_main_process
    ):
        typer.echo(f"{measured.model} gives no masks: boxes are scored, mask_ap is not", err=True)
    log = (run or out) / RUN_LOG  # a model of another make has no folder of its own
    with progress_display() as listen, log_failures(log, "evaluation"):
        name = run_evaluation(
            measured,
            dataset,
            out / "results",
            protocol,
            progress=lambda done, total, text: (
                listen("evaluate", done, total, text) if group.is_main_process else None
            ),
            log=log,
            group=group,
        )
    if not group.is_main_process:
        return
    finish(out / "results", out)
    if budget is not None:
        _tell_estimates(out / "results", name, protocol.severities)


def _tell_estimates(results: Path, run: str, severities: tuple[int, ...]) -> None:
    from stillrobust.analysis.estimates import estimate_run
    from stillrobust.storage.store import Store

    for one in estimate_run(Store(results), run, severities):
        typer.echo(
            f"Estimate of mPC of {run}, {one.metric}: {100 * one.value:.1f} [{100 * one.low:.1f},"
            f" {100 * one.high:.1f}] from {one.cells} of {one.of} cells; not to be put beside full"
            " numbers without its interval"
        )
