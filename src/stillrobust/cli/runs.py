"""The commands on the runs of a results store: runs list, show, import, export, remove, rename."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stillrobust.cli.corruptions import parse_severities
from stillrobust.cli.output import print_text
from stillrobust.cli.results import Reference, Standard, store_folder
from stillrobust.errors import UserError
from stillrobust.names import format_count

if TYPE_CHECKING:
    from stillrobust.storage.store import Store

commands = typer.Typer(
    no_args_is_help=True, help="List, show, import, export, remove and rename evaluated models."
)

Results = Annotated[
    Path, typer.Argument(help="Folder of results: the --out of evaluate, study run or others.")
]


def _open(results: Path) -> "Store":
    from stillrobust.storage.store import Store

    return Store(store_folder(results))


@commands.command("list")
def list_command(
    results: Annotated[
        Path, typer.Argument(help="Folder of results: the --out of evaluate, study run or others.")
    ] = Path("results"),
) -> None:
    """List runs with task, dataset and number of cells.

    The last column is the beginning of the SHA-256 of their weights.

    Example: stillrobust runs list results
    """
    store = _open(results)
    if not store.runs():
        print_text(f"no runs in {results}")
    for run in store.runs():
        measured = store.measurements(run.name)
        cells = {(one.corruption, one.severity) for one in measured}
        weights = sorted({str(one.protocol.get("weights", "?"))[:12] for one in measured})
        print_text(
            f"{run.name}: {run.task} on {run.dataset}, {format_count(len(cells), 'cell')}, weights"
            f" {', '.join(weights) or 'none'}"
        )


@commands.command("show")
def show_command(
    results: Results,
    run: Annotated[str | None, typer.Option(help="Show only this run (default: all).")] = None,
    severities: Annotated[str, typer.Option(help="Severities, separated by commas.")] = "1,2,3,4,5",
    reference: Reference = None,
    standard: Standard = None,
    classes: Annotated[
        int, typer.Option(help="Number of classes to show, largest loss first.")
    ] = 5,
) -> None:
    """Show calibration, object sizes, classes and mCE of runs.

    Effective robustness is shown too, if --standard names runs.

    Example: stillrobust runs show results --severities 1,3,5

    Example: stillrobust runs show results --reference a --standard a --standard b
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


@commands.command("import")
def import_command(
    source: Annotated[str, typer.Argument(help="card, mmdetection, robustbench or semsegbench.")],
    path: Annotated[
        Path, typer.Argument(help="File of the tool, a folder of cards, or RobustBench's folder.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of results to add to.")],
    model: Annotated[
        str,
        typer.Option(help="Name of the model (mmdetection), or the one model to import (others)."),
    ] = "",
    dataset: Annotated[
        str, typer.Option(help="Name of the dataset as in your runs, or the one dataset to import.")
    ] = "",
    known: Annotated[
        list[str] | None,
        typer.Option(help="FIELD=VALUE: a fact of the protocol that you know and the file lacks."),
    ] = None,
) -> None:
    """Import results of other tools.

    Each result has its protocol; `report` shows them.

    Example: stillrobust runs import mmdetection results.pkl --dataset "COCO val2017" --out results

    Example: stillrobust runs import semsegbench miou.csv --dataset ADE20K --out results

    Example: stillrobust runs import card cards --out leaderboard
    """
    from stillrobust.importers import import_results

    pairs = [text.partition("=") for text in known or []]
    wrong = [field for field, sign, value in pairs if not (field and sign and value)]
    if wrong:
        raise UserError(
            f"Expected --known FIELD=VALUE, but got {wrong[0]!r}; give for example --known seed=0"
        )
    for one in import_results(
        source, path, out / "results", model, dataset, {field: value for field, _, value in pairs}
    ):
        levels = ", ".join(map(str, one.severities)) or "none"
        state = f"{one.missing} cells missing, so no mPC" if one.missing else "complete"
        print_text(
            "; ".join(
                [f"{one.run}: {', '.join(one.metrics)} at severities {levels}, {state}", *one.notes]
            )
        )
    print_text(f"Next: stillrobust report {out} --out report")


@commands.command()
def export(
    results: Results,
    name: Annotated[str, typer.Argument(metavar="RUN", help="Name of a run.")],
    card: Annotated[Path, typer.Option(help="JSON file to write.")],
) -> None:
    """Write the card of a run, which others can import.

    The card has scores, intervals, protocol and hashes, and no image.

    Example: stillrobust runs export results my-model --card my-model.json
    """
    from stillrobust.report.run_cards import card_json, make_card
    from stillrobust.storage.files import write_whole

    made = make_card(_open(results), name)
    write_whole({card: card_json(made).encode()})
    print_text(f"Card: {card}\nCite it so: {made.cite}")


@commands.command()
def remove(
    results: Results,
    names: Annotated[list[str], typer.Argument(help="Names of runs.", metavar="RUN...")],
) -> None:
    """Remove runs with all their cells.

    Example: stillrobust runs remove results old-run
    """
    from stillrobust.names import lookup

    store = _open(results)
    known = {run.name: run for run in store.runs()}
    for name in names:  # a wrong name removes nothing
        lookup("run", name, known)
    for name in names:
        store.remove_run(name)
        print_text(f"removed: {name}")


@commands.command()
def rename(
    results: Results,
    name: Annotated[str, typer.Argument(metavar="RUN", help="Name of a run.")],
    new_name: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
) -> None:
    """Rename a run. Its cells stay valid.

    Example: stillrobust runs rename results my-model my-model-fp32
    """
    _open(results).rename_run(name, new_name)
    print_text(f"renamed: {name} is {new_name}")
