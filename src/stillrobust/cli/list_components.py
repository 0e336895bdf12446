"""The command that lists the components of a family."""

from typing import Annotated

import typer

from stillrobust.cli.families import FAMILIES
from stillrobust.cli.output import print_text
from stillrobust.names import lookup

commands = typer.Typer()


@commands.command("list")
def list_(what: Annotated[str, typer.Argument(help=f"One of {', '.join(FAMILIES)}.")]) -> None:
    """List the components of a family.

    Example: stillrobust list checkpoints
    """
    print_text("\n".join(lookup("family", what, FAMILIES)()))
