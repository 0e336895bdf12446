"""The commands about results: report and compare; and how every command that measures ends."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from stillrobust.errors import UserError

commands = typer.Typer()


def finish(
    results: Path, out: Path, reference: str | None = None, standard: Sequence[str] = ()
) -> None:
    """Write the report of ``results`` to ``out``, show its table and name it."""
    from stillrobust.report import summarize, text_table, with_inside, write_report
    from stillrobust.report.beside import beside_text
    from stillrobust.report.came_along import came_along, came_along_text
    from stillrobust.report.gained_upstream import gained_text, gained_upstream
    from stillrobust.storage.store import Store

    store = Store(results)
    summary = summarize(store)
    page = write_report(store, with_inside(store, summary, reference, standard), out)
    runs, rows = store.runs(), summary.rows
    along = gained_text(gained_upstream(runs, rows)), came_along_text(came_along(runs, rows))
    texts = text_table(rows), *along, beside_text(summary)
    typer.echo("\n\n".join(filter(None, texts)))
    typer.echo(f"\nReport: {page}")


@commands.command()
def report(
    results: Annotated[
        Path, typer.Argument(help="The folder 'results' of a study or an evaluation.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for report.html and the files of its numbers.")],
    paper: Annotated[
        bool,
        typer.Option(
            "--paper", help="Also the paper's tables and figures, side by side, and claims."
        ),
    ] = False,
    protocol: Annotated[
        str | None, typer.Option(help="With --paper: paper (severity 1) or benchmark (1 to 5).")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="The run that mCE is relative to; by default AlexNet, on ImageNet."),
    ] = None,
    standard: Annotated[
        list[str] | None,
        typer.Option(help="A run without a technique, for effective robustness; give two or more."),
    ] = None,
) -> None:
    """Write the table and the page from results that are there.

    Example: stillrobust report studies/results --out report --paper

    Example: stillrobust report studies/results --out report --reference run-a --standard run-a
    --standard run-b
    """
    if not (results / "runs").is_dir():
        raise UserError(
            f"Expected a folder of results (with runs/ and cells/) at {results}, but there is none"
            "; check the path or measure something first"
        )
    finish(results, out, reference, standard or ())
    if paper:
        show_paper(results, out / "paper", protocol)


@commands.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="RUN_A", help="A run's name.")],
    second: Annotated[str, typer.Argument(metavar="RUN_B", help="Another run's name.")],
    results: Annotated[
        Path, typer.Option(help="The folder 'results' of a study or an evaluation.")
    ],
    metric: Annotated[
        str | None, typer.Option(help="By default the task's first, such as box_ap.")
    ] = None,
) -> None:
    """Which corruptions two runs differ on, by how much, and what is not distinguishable.

    Example: stillrobust compare run-a run-b --results studies/results
    """
    from stillrobust.report.comparison import compare as compared
    from stillrobust.report.comparison import comparison_text
    from stillrobust.storage.store import Store

    typer.echo(comparison_text(compared(Store(results), first, second, metric)))


def show_paper(results: Path, out: Path, protocol: str | None, studies: Sequence[str] = ()) -> None:
    """Write the paper's tables and figures, and show ours beside the printed values and what
    becomes of the claims.
    """
    from stillrobust.report.claims import claims_text
    from stillrobust.report.paper_report import paper_report

    made = paper_report(results, out, protocol, studies)
    typer.echo("\n\n".join(filter(None, ["", made.side_by_side, claims_text(made.judgements)])))
    if made.missing:
        typer.echo(f"\nNot complete, and so not shown: {', '.join(made.missing)}")
    typer.echo(f"\n{len(made.files)} files: {out}")
