"""The commands on fine-tuning methods: methods list, show, and interpolate."""

from pathlib import Path
from typing import Annotated

import typer

from stillrobust.cli.completion import names_of
from stillrobust.cli.output import print_text
from stillrobust.errors import UserError

commands = typer.Typer(
    no_args_is_help=True, help="List and show fine-tuning methods that keep robustness."
)


@commands.command("list")
def list_command() -> None:
    """List fine-tuning methods with their papers.

    Example: stillrobust methods list
    """
    from stillrobust.finetuning import METHODS

    for name, entry in METHODS.items():
        print_text(f"{name}: {entry.card.title}, {entry.card.paper}")


@commands.command("show")
def show_command(
    method: Annotated[
        str, typer.Argument(autocompletion=names_of("methods"), help="Such as lp_ft or lp_ft+ema.")
    ],
) -> None:
    """Show the card of a fine-tuning method.

    It has the paper, formula, arguments, differences from the paper, and cost.

    Example: stillrobust methods show lp_ft
    """
    from stillrobust.finetuning.methods import split_methods
    from stillrobust.names import parse_spec

    names = [parse_spec(part)[0] for part in split_methods(method)]
    from stillrobust.finetuning import METHODS

    print_text("\n\n".join(METHODS[name].card.text() for name in names))


@commands.command("interpolate")
def interpolate_command(
    first: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    second: Annotated[Path, typer.Argument(help="Folder of another, of the same architecture.")],
    out: Annotated[Path, typer.Option(help="Folder for the runs, one for each share.")],
    alphas: Annotated[
        str, typer.Option(help="Shares of the second run, 0 to 1, with commas.")
    ] = "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1",
) -> None:
    """Write models between two finished runs.

    Their weights are interpolated. Evaluate each of them as any finished run.

    Example: stillrobust methods interpolate runs/frozen runs/full --out runs/path --alphas 0.5
    """
    try:
        shares = [float(text) for text in alphas.split(",")]
    except ValueError:
        raise UserError(
            f"Expected numbers from 0 to 1 with commas for --alphas, but got {alphas!r}; write for"
            " instance 0,0.5,1"
        ) from None
    from stillrobust.training.interpolation import interpolate_runs

    for alpha, folder in interpolate_runs(first, second, shares, out).items():
        print_text(f"alpha {alpha:g}: {folder}")
