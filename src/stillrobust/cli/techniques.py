"""The commands on techniques: techniques list, show, deepaugment."""

from pathlib import Path
from typing import Annotated

import typer

from stillrobust.cli.completion import names_of
from stillrobust.cli.corruptions import Scale, print_folder_summary
from stillrobust.cli.output import print_text
from stillrobust.runtime.progress import progress_display

commands = typer.Typer(
    no_args_is_help=True, help="List and show techniques that make a model robust."
)


@commands.command("list")
def list_command() -> None:
    """List techniques with their papers.

    A note names the test's corruptions that a technique shows in training.

    Example: stillrobust techniques list
    """
    from stillrobust.robustify import TECHNIQUES, cards_of

    for card in (card for name in TECHNIQUES for card in cards_of(name)):
        overlaps = ", ".join(card.overlaps_test)
        note = f"; shows {overlaps} of the test in training" if overlaps else ""
        print_text(f"{card.name}: {card.title}, {card.paper}{note}")


@commands.command("show")
def show_command(
    technique: Annotated[
        str,
        typer.Argument(
            autocompletion=names_of("techniques"),
            help="Such as prime, ant(kernel=3), augmix+prime or my_technique.py.",
        ),
    ],
) -> None:
    """Show the card of a technique.

    The card names the paper, the arguments, the cost, published results, and overlap with the test.

    Example: stillrobust techniques show prime
    """
    from stillrobust.robustify.techniques import require_known_techniques

    require_known_techniques(technique)
    from stillrobust.robustify import cards_of

    print_text("\n\n".join(card.text() for card in cards_of(technique)))


@commands.command()
def deepaugment(
    source: Annotated[Path, typer.Argument(help="Training images, one folder for each class.")],
    out: Annotated[Path, typer.Argument(help="Output folder, with the same layout.")],
    network: Annotated[str, typer.Option(help="edsr or cae.")],
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights of the network: edsr_baseline_x4.pt or model_final.state."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all draws.")] = 0,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Worker processes (default: one for each GPU or core)."),
    ] = None,
    scale: Scale = None,
) -> None:
    """Make DeepAugment's folder of changed training images.

    The technique deepaugment(roots=...) reads it. Finished images are skipped.

    Example: stillrobust techniques deepaugment images out --network cae --weights model_final.state
    """
    from stillrobust.tools.deepaugment_folder import make_deepaugment_folder

    with progress_display() as listen:
        summary = make_deepaugment_folder(
            source, out, network, weights, seed, workers, listen, scale
        )
    print_text(f"weights: SHA-256 {summary.protocol['weights']}")
    print_folder_summary(summary, out)
