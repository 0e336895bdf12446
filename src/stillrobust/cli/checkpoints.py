"""The commands about published weights: show, fetch; and what ``list checkpoints`` prints."""

from pathlib import Path
from typing import Annotated, Any

import typer

from stillrobust.cli.completion import checkpoints
from stillrobust.runtime.progress import progress

commands = typer.Typer()

Name = Annotated[
    str,
    typer.Argument(
        autocompletion=checkpoints,
        help="As 'list checkpoints' writes it, or ARCHITECTURE/WEIGHTS, or WEIGHTS alone.",
    ),
]


@commands.command()
def show(
    name: Name,
) -> None:
    """Show all facts of a checkpoint: where it comes from, how it is stored, what it scored.

    Example: stillrobust show ant
    """
    from dataclasses import asdict

    from stillrobust.backbones import missing_weights
    from stillrobust.backbones.weights import find_checkpoint

    row = find_checkpoint(name)
    facts: dict[str, Any] = {"spec": row.spec, **asdict(row)}
    facts["here"] = missing_weights(row.spec) or "yes"
    for key, value in facts.items():
        if value not in (None, "", ()):
            text = ", ".join(map(str, value)) if isinstance(value, tuple) else value
            typer.echo(f"{key:<13} {text}")


@commands.command("fetch")
def fetch_(
    name: Name,
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--from", help="A file, a folder, or the address of a mirror ending in '/'; repeatable."
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="The cache; by default $STILLROBUST_CACHE, or ~/.cache/stillrobust."),
    ] = None,
) -> None:
    """Get a published checkpoint into the cache: resumed where it was cut off, checked, whole or
    not at all.

    Example: stillrobust fetch ant --from https://mirror.example.org/weights/
    """
    from stillrobust.backbones.reader import read_state
    from stillrobust.backbones.weights import fetch_checkpoint, find_checkpoint
    from stillrobust.storage.downloads import cache_folder

    row = find_checkpoint(name)
    with progress() as listen:
        path = fetch_checkpoint(
            row,
            source or [],
            to or cache_folder(),
            lambda done, total: listen(row.file, done >> 20, (total or done) >> 20, "MB"),
        )
    tensors = len(read_state(path))
    typer.echo(f"{row.spec}: {path} ({tensors} tensors; {row.licence})")
