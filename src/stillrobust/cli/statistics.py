"""The command about what one number hides: details."""

from pathlib import Path
from typing import Annotated

import typer

from stillrobust.cli.corruptions import severities_of
from stillrobust.errors import UserError

commands = typer.Typer()


@commands.command()
def details(
    results: Annotated[
        Path, typer.Argument(help="The folder 'results' of a study or an evaluation.")
    ],
    run: Annotated[str | None, typer.Option(help="Only this run.")] = None,
    severities: Annotated[str, typer.Option(help="Severities with commas.")] = "1,2,3,4,5",
    reference: Annotated[
        str | None,
        typer.Option(help="The run that mCE is relative to; by default AlexNet, on ImageNet."),
    ] = None,
    standard: Annotated[
        list[str] | None,
        typer.Option(help="A run without a technique, for effective robustness; give two or more."),
    ] = None,
    classes: Annotated[int, typer.Option(help="So many classes, the most lost first.")] = 5,
) -> None:
    """Calibration, sizes, classes, worst corruption, mCE, effective robustness of finished runs,
    clean and corrupted.

    Example: stillrobust details results/results --severities 1,3,5

    Example: stillrobust details results/results --reference run-a --standard run-a --standard run-b
    --classes 20
    """
    from stillrobust.analysis.breakdown import told
    from stillrobust.names import lookup
    from stillrobust.report import summarize
    from stillrobust.report.breakdown import relative_score_lines, relative_scores
    from stillrobust.storage.store import Store

    store = Store(results)
    runs = {one.name: one for one in store.runs()}
    if not runs:
        raise UserError(
            f"Expected a folder of results (with runs/ and cells/) at {results}, but there is none"
            "; check the path or measure something first"
        )
    levels = severities_of(severities)
    others = relative_scores(summarize(store, 0, severities=levels).rows, reference, standard or ())
    for one in runs.values() if run is None else [lookup("run", run, runs)]:
        beside = [
            f"{metric}: {line}"
            for (name, metric), against in others.items()
            if name == one.name
            for line in relative_score_lines(against)
        ]
        try:
            lines = told(store, one, levels, classes)
        # a run with holes or without a clean score keeps nothing back from the others
        except UserError as error:
            if run is not None:
                raise
            lines = [str(error)]
        typer.echo("\n  ".join([one.name, *lines, *beside]))
