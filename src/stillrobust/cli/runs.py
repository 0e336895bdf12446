"""The commands on the runs of a results store: list, remove, rename."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stillrobust.cli.output import print_text
from stillrobust.cli.results import store_folder
from stillrobust.names import format_count

if TYPE_CHECKING:
    from stillrobust.storage.store import Store

commands = typer.Typer(no_args_is_help=True)
runs = typer.Typer(no_args_is_help=True, help="List, remove and rename the runs in results.")
commands.add_typer(runs, name="runs")

Results = Annotated[Path, typer.Argument(help="Folder that --out of another command made.")]


def _open(results: Path) -> "Store":
    from stillrobust.storage.store import Store

    return Store(store_folder(results))


@runs.command("list")
def list_(results: Results) -> None:
    """List runs with task, dataset, number of cells, and the beginning of their weights' SHA-256.

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


@runs.command()
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


@runs.command()
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
