"""The command that makes DeepAugment's folders."""

from pathlib import Path
from typing import Annotated

import typer

from stillrobust.cli.corruptions import Scale, print_folder_summary
from stillrobust.cli.output import print_text
from stillrobust.runtime.progress import progress_display

commands = typer.Typer()


@commands.command()
def deepaugment(
    source: Annotated[Path, typer.Argument(help="Training images, one folder for each class.")],
    out: Annotated[Path, typer.Argument(help="Output folder, with the same layout.")],
    network: Annotated[str, typer.Option(help="edsr or cae.")],
    weights: Annotated[
        Path | None,
        typer.Option(help="Its published weights: edsr_baseline_x4.pt or model_final.state."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all draws.")] = 0,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Worker processes (default: one for each GPU or core)."),
    ] = None,
    scale: Scale = None,
) -> None:
    """Make a folder of changed training images for deepaugment(roots=...). Resumes if interrupted.

    Example: stillrobust deepaugment imagenet/train out --network edsr --weights edsr_baseline_x4.pt
    """
    from stillrobust.tools.deepaugment_folder import make_deepaugment_folder

    with progress_display() as listen:
        summary = make_deepaugment_folder(
            source, out, network, weights, seed, workers, listen, scale
        )
    print_text(f"weights: SHA-256 {summary.protocol['weights']}")
    print_folder_summary(summary, out)
