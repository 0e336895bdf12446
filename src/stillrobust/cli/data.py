"""The commands on datasets: data list, check, fetch."""

from pathlib import Path
from typing import Annotated

import typer

from stillrobust.cli.output import print_text
from stillrobust.runtime.progress import progress_display

commands = typer.Typer(no_args_is_help=True, help="List formats; check and download datasets.")

NOT_WHOLE = 3  # exit status for a dataset with missing or damaged parts


@commands.command("list")
def list_command() -> None:
    """List the formats of datasets, with task and options.

    Example: stillrobust data list
    """
    from stillrobust.data import FORMATS

    for name, one in FORMATS.items():
        options = ", ".join(option.name for option in one.options)
        print_text(f"{name}: {one.task or 'any task'}{f'; options {options}' if options else ''}")


@commands.command()
def check(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT:PATH",
            help="A folder, whose format is recognised, or a dataset as FORMAT:PATH.",
        ),
    ],
    full: Annotated[
        bool, typer.Option("--full", help="Decode every image (default: 200 of each part).")
    ] = False,
) -> None:
    """Check a dataset and print its spec.

    What was assumed and what was repaired is printed too. The exit status is 0 if the dataset is
    whole, else 3.

    Example: stillrobust data check mydata

    Example: stillrobust data check "coco(split='valid'):mydata" --full
    """
    from stillrobust.data.check import check_dataset

    with progress_display() as listen:
        report = check_dataset(dataset, full, listen)
    print_text(report.text())
    if not report.whole:
        raise typer.Exit(NOT_WHOLE)


@commands.command()
def fetch(
    name: Annotated[
        str,
        typer.Argument(
            help="coco, ade20k, cifar10, cifar10_c, imagenet_c, or huggingface:OWNER/NAME."
        ),
    ],
    root: Annotated[Path, typer.Argument(help="Folder for the dataset.")],
    mirror: Annotated[
        str | None,
        typer.Option("--from", help="Folder or base URL with the archives, tried first."),
    ] = None,
) -> None:
    """Download and unpack a dataset.

    Complete parts are skipped. Archives are removed afterwards.

    Example: stillrobust data fetch cifar10_c datasets

    Example: stillrobust data fetch huggingface:cppe-5/cppe-5 cppe5
    """
    from stillrobust.data import split_dataset_spec
    from stillrobust.data.official.fetch import fetch_dataset
    from stillrobust.data.official.hub import fetch_hub_dataset

    root = root.expanduser()
    head, repository = split_dataset_spec(name)
    if head:
        saved = fetch_hub_dataset(head, repository, root, mirror)
        print_text(
            f"{repository} in {root}: {', '.join(saved)}; `stillrobust data check"
            f" huggingface:{root}` checks it"
        )
        return
    with progress_display() as listen:
        folders = fetch_dataset(name, root, mirror, listen)
    print_text(
        f"{name} in {root}: {', '.join(folders)}; `stillrobust data check {name}:{root}` checks it"
    )
