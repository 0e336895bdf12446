"""The command about results: report; and how every command that measures ends."""

from pathlib import Path
from typing import Annotated

import typer

from stillrobust.errors import UserError

commands = typer.Typer()


def finish(results: Path, out: Path) -> None:
    """Write the report of ``results`` to ``out``, show its table and name it."""
    from stillrobust.report import report, summarize, text_table
    from stillrobust.store import Store

    page = report(results, out)
    typer.echo(text_table(summarize(Store(results)).rows))
    typer.echo(f"\nReport: {page}")


@commands.command()
def report(
    results: Annotated[Path, typer.Argument(help="The folder 'results' of a study or an evaluation.")],
    out: Annotated[Path, typer.Option(help="Folder for report.html, table.csv and measurements.csv.")],
) -> None:
    """Write the table and the page from results that are there."""
    if not (results / "runs").is_dir():
        raise UserError(f"Expected a folder of results (with runs/ and cells/) at {results}, but there is none")
    finish(results, out)
