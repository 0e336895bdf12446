"""The command ``details``."""

from pathlib import Path
from typing import Annotated

import typer

from stillrobust.cli.corruptions import parse_severities
from stillrobust.cli.output import print_text
from stillrobust.cli.results import store_folder
from stillrobust.errors import UserError

commands = typer.Typer()


@commands.command()
def details(
    results: Annotated[Path, typer.Argument(help="Folder that --out of another command made.")],
    run: Annotated[str | None, typer.Option(help="Show only this run (default: all).")] = None,
    severities: Annotated[str, typer.Option(help="Severities with commas.")] = "1,2,3,4,5",
    reference: Annotated[
        str | None,
        typer.Option(help="Run that mCE is relative to (default: AlexNet, on ImageNet)."),
    ] = None,
    standard: Annotated[
        list[str] | None,
        typer.Option(help="A run without a technique, for effective robustness; repeat it."),
    ] = None,
    classes: Annotated[
        int, typer.Option(help="Number of classes, those with the largest loss first.")
    ] = 5,
) -> None:
    """Print calibration, object sizes, classes, mCE and effective robustness of finished runs.

    Example: stillrobust details results --severities 1,3,5

    Example: stillrobust details results --reference a --standard a --standard b
    """
    from stillrobust.analysis.breakdown import breakdown_lines
    from stillrobust.names import lookup
    from stillrobust.report import summarize
    from stillrobust.report.breakdown import relative_score_lines, relative_scores
    from stillrobust.storage.store import Store

    store = Store(store_folder(results))
    runs = {one.name: one for one in store.runs()}
    levels = parse_severities(severities)
    others = relative_scores(summarize(store, 0, severities=levels).rows, reference, standard or ())
    for one in runs.values() if run is None else [lookup("run", run, runs)]:
        comparisons = [
            f"{metric}: {line}"
            for (name, metric), against in others.items()
            if name == one.name
            for line in relative_score_lines(against)
        ]
        try:
            lines = breakdown_lines(store, one, levels, classes)
        # a run with missing cells must not hide the others
        except UserError as error:
            if run is not None:
                raise
            lines = [str(error)]
        print_text("\n  ".join([one.name, *lines, *comparisons]))
