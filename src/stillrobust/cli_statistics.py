"""The command about what one number hides: details."""

from pathlib import Path
from typing import Annotated

import typer

from stillrobust.cli_corruptions import severities_of
from stillrobust.errors import UserError

commands = typer.Typer()


@commands.command()
def details(
    results: Annotated[Path, typer.Argument(help="The folder 'results' of a study or an evaluation.")],
    run: Annotated[str | None, typer.Option(help="Only this run.")] = None,
    severities: Annotated[str, typer.Option(help="Severities with commas.")] = "1,2,3,4,5",
) -> None:
    """Calibration, sizes, classes, worst corruption and mCE of finished runs, clean and corrupted, from kept statistics.

    Example: stillrobust details results/results --severities 1,3,5
    """
    from stillrobust.breakdown import told
    from stillrobust.names import lookup
    from stillrobust.store import Store

    store = Store(results)
    runs = {one.name: one for one in store.runs()}
    if not runs:
        raise UserError(f"Expected a folder of results (with runs/ and cells/) at {results}, but there is none")
    for one in runs.values() if run is None else [lookup("run", run, runs)]:
        typer.echo("\n  ".join([one.name, *told(store, one, severities_of(severities))]))
