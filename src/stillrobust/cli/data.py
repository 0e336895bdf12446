"""The commands about data sets: data check, data fetch."""

from pathlib import Path
from typing import Annotated

import typer

from stillrobust.runtime.progress import progress_display

commands = typer.Typer(no_args_is_help=True)
data = typer.Typer(
    no_args_is_help=True, help="Data sets: what is there of one, and how to get what is missing."
)
commands.add_typer(data, name="data")

NOT_WHOLE = 3  # the exit status for a set with parts missing or damaged


@data.command()
def check(
    name: Annotated[
        str,
        typer.Argument(
            help=(
                "A format: coco, imagenet, imagenet_c, cifar10, cifar10_c, ade20k, maps or folders."
            )
        ),
    ],
    root: Annotated[Path, typer.Argument(help="The folder of the set.")],
    full: Annotated[
        bool, typer.Option("--full", help="Decode every image, not 200 of each part.")
    ] = False,
) -> None:
    """Say what is there of a data set, what is missing or damaged, and how to get it; status 0 if
    it is whole, else 3.

    Example: stillrobust data check coco datasets/coco
    """
    from stillrobust.data.check import check_dataset

    with progress_display() as listen:
        verdict = check_dataset(name, root.expanduser(), full, listen)
    typer.echo(verdict.text())
    if not verdict.whole:
        raise typer.Exit(NOT_WHOLE)


@data.command()
def fetch(
    name: Annotated[
        str, typer.Argument(help="coco, ade20k, cifar10, cifar10_c (with cifar10) or imagenet_c.")
    ],
    root: Annotated[Path, typer.Argument(help="The folder for the set.")],
    mirror: Annotated[
        str | None,
        typer.Option("--from", help="A folder or base URL with the archives, tried first."),
    ] = None,
) -> None:
    """Download and unpack what is missing of a data set that is openly served; the archives go once
    they are unpacked.

    Example: stillrobust data fetch cifar10_c datasets
    """
    from stillrobust.data.official.fetch import fetch_dataset

    root = root.expanduser()
    with progress_display() as listen:
        folders = fetch_dataset(name, root, mirror, listen)
    typer.echo(
        f"{name} in {root}: {', '.join(folders)}; `stillrobust data check {name} {root}` looks"
        " through it"
    )
