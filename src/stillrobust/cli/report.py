"""Commands on results: report and compare; and the report that ends every evaluation."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from stillrobust.cli.grouping import RegroupBy, open_store
from stillrobust.cli.output import print_text
from stillrobust.cli.results import Reference, Standard, store_folder
from stillrobust.names import format_count

commands = typer.Typer()

TERMINAL_ROWS = 40  # of the extra corruptions; the page has all


def finish(
    results: Path,
    out: Path,
    reference: str | None = None,
    standard: Sequence[str] = (),
    group_by: str | None = None,
    chance_corrected: bool = False,
) -> None:
    """Write the report of a results store, and print its tables and its path.

    Args:
        results: Folder of the results store.
        out: Folder of the report.
        reference: Run that mCE is relative to.
        standard: Runs without a technique, for effective robustness.
        group_by: Rule for groups of images, instead of the stored groups.
        chance_corrected: Whether the table has the drop corrected for chance as well.
    """
    from stillrobust.report import add_breakdown, results_table, summarize, to_text, write_report
    from stillrobust.report.extra_corruptions import extra_corruptions_table
    from stillrobust.report.headline import headline
    from stillrobust.report.partial_results import partial_results_table
    from stillrobust.report.transfer_gain import transfer_gain, transfer_gain_table
    from stillrobust.report.upstream_gain import upstream_gain, upstream_gain_table

    store = open_store(results, group_by)
    summary = summarize(store)
    page = write_report(store, add_breakdown(store, summary, reference, standard), out)
    runs, rows, partial = store.runs(), summary.rows, summary.partial_rows
    transfer = transfer_gain_table(transfer_gain(runs, rows))
    lacking = [f"{one.run}: {one.reason}" for one in summary.incomplete]
    texts = [
        "\n".join(textwrap.wrap(headline(runs, summary).sentence, 100)) if rows or partial else "",
        to_text(results_table(rows, summary.replicates, chance_corrected))
        if rows or not partial
        else "",
        "\n".join(lacking) if not rows and not partial else "",
        to_text(partial_results_table(partial)),
        to_text(upstream_gain_table(upstream_gain(runs, rows))),
        to_text(transfer) if transfer.rows else "",
        to_text(extra_corruptions_table(summary), limit=TERMINAL_ROWS),
    ]
    print_text("\n\n".join(filter(None, texts)))
    for run, sentences in summary.implausible.items():
        for sentence in sentences:
            print_text(f"\nwarning: {run}: {sentence}", err=True)
    print_text(f"\nReport: {page}")


@commands.command()
def report(
    results: Annotated[
        Path, typer.Argument(help="Folder of results: the --out of evaluate, study run or others.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for report.html and the files of its numbers.")],
    paper: Annotated[
        bool,
        typer.Option(
            "--paper", help="Also write the paper's tables and figures, and judge its claims."
        ),
    ] = False,
    protocol: Annotated[
        str | None,
        typer.Option(help="Protocol of --paper: paper (severity 1) or benchmark (1 to 5)."),
    ] = None,
    reference: Reference = None,
    standard: Standard = None,
    group_by: RegroupBy = None,
    chance_corrected: Annotated[
        bool,
        typer.Option("--chance-corrected", help="Also print the drop of the score above chance."),
    ] = False,
) -> None:
    """Write the report of finished results.

    Example: stillrobust report studies --out report --paper

    Example: stillrobust report studies --out report --reference run-a --standard run-a
    --standard run-b
    """
    store = store_folder(results)
    finish(store, out, reference, standard or (), group_by, chance_corrected)
    if paper:
        show_paper(store, out / "paper", protocol)


@commands.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="RUN_A", help="Name of a run.")],
    second: Annotated[str, typer.Argument(metavar="RUN_B", help="Name of another run.")],
    results: Annotated[
        Path, typer.Option(help="Folder of results: the --out of evaluate, study run or others.")
    ],
    metric: Annotated[
        str | None,
        typer.Option(help="Metric to compare (default: the task's first, such as box_ap)."),
    ] = None,
    group_by: RegroupBy = None,
) -> None:
    """Compare two runs corruption by corruption, with intervals.

    Example: stillrobust compare run-a run-b --results studies
    """
    from stillrobust.report.comparison import compare_runs, comparison_text

    store = open_store(results, group_by)
    print_text(comparison_text(compare_runs(store, first, second, metric)))


def show_paper(results: Path, out: Path, protocol: str | None, studies: Sequence[str] = ()) -> None:
    """Write the paper's tables and figures, and print the comparison with the paper.

    Args:
        results: Folder of the results store.
        out: Folder to write to.
        protocol: Name of a protocol of the studies.
        studies: Names or files (default: the paper's).
    """
    from stillrobust.report.claims import claims_text
    from stillrobust.report.paper_report import write_paper_report

    report = write_paper_report(results, out, protocol, studies)
    print_text("\n\n".join(filter(None, ["", report.side_by_side, claims_text(report.verdicts)])))
    if report.missing:
        print_text(f"\nIncomplete, and therefore not shown: {', '.join(report.missing)}")
    print_text(f"\n{format_count(len(report.files), 'file')}: {out}")
