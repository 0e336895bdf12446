"""The command that lists the components of a family."""

from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from stillrobust.cli_checkpoints import checkpoint_lines
from stillrobust.names import lookup

commands = typer.Typer()


def backbones() -> list[str]:
    """Architectures by name."""
    from stillrobust.backbones import ARCHITECTURES

    return [*ARCHITECTURES, "... and every model of timm by its name"]


def corruptions() -> list[str]:
    """The 15 common ones, then the 4 extra."""
    from stillrobust.corruptions import CORRUPTIONS

    return list(CORRUPTIONS)


def tasks() -> list[str]:
    """Tasks by name."""
    from stillrobust.tasks import TASKS

    return list(TASKS)


def formats() -> list[str]:
    """What may stand before the colon of ``--data``."""
    from stillrobust.data import FORMATS

    return list(FORMATS)


def recipes() -> list[str]:
    """Recipes with their sources."""
    from stillrobust.tasks.recipes import RECIPES

    return [f"{name}: {recipe.source}" for name, recipe in RECIPES.items()]


def techniques() -> list[str]:
    """Techniques with their papers."""
    from stillrobust.robustify import TECHNIQUES

    return [f"{name}: {entry.card.title}, {entry.card.paper}" for name, entry in TECHNIQUES.items()]


def transfers() -> list[str]:
    """Modes of transfer and what they mean."""
    from stillrobust.training import TRANSFERS

    return [f"{name}: {meaning}" for name, meaning in TRANSFERS.items()]


FAMILIES: Mapping[str, Callable[[], list[str]]] = {
    "backbones": backbones,
    "checkpoints": checkpoint_lines,
    "corruptions": corruptions,
    "tasks": tasks,
    "formats": formats,
    "recipes": recipes,
    "techniques": techniques,
    "transfers": transfers,
}
"""What can be listed -> its lines."""


@commands.command("list")
def list_(what: Annotated[str, typer.Argument(help=f"One of {', '.join(FAMILIES)}.")]) -> None:
    """List the components of a family.

    Example: stillrobust list checkpoints
    """
    typer.echo("\n".join(lookup("family", what, FAMILIES)()))
