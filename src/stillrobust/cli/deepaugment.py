"""The command that makes DeepAugment's folders."""

from pathlib import Path
from typing import Annotated

import typer

from stillrobust.runtime.progress import progress_display

commands = typer.Typer()


@commands.command()
def deepaugment(
    source: Annotated[Path, typer.Argument(help="Training images, a folder a class.")],
    out: Annotated[
        Path, typer.Argument(help="Folder for the changed images, laid out in the same way.")
    ],
    network: Annotated[str, typer.Option(help="edsr or cae.")],
    weights: Annotated[
        Path | None,
        typer.Option(help="Its published weights: edsr_baseline_x4.pt or model_final.state."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all draws.")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Worker processes; 0, the default: one a core.")
    ] = None,
) -> None:
    """Make a folder of changed training images for deepaugment(roots=...); a second call does only
    what is missing.

    Example: stillrobust deepaugment imagenet/train deepaugmented/edsr --network edsr --weights
    edsr_baseline_x4.pt
    """
    from stillrobust.tools.deepaugment_folder import deepaugment_set

    with progress_display() as listen:
        summary = deepaugment_set(source, out, network, weights, seed, workers, listen)
    for name, reason in sorted(summary.skipped.items()):
        typer.echo(f"skipped: {name}: {reason}")
    typer.echo(f"weights: SHA-256 {summary.sha256}")
    typer.echo(
        f"{summary.written} files written, {summary.already} were there; {len(summary.skipped)}"
        f" images skipped: {out}"
    )
    if summary.skipped:
        raise typer.Exit(3)
