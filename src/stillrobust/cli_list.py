"""The command that lists the components of a family."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from stillrobust.cli_checkpoints import checkpoint_lines
from stillrobust.names import format_spec, lookup

commands = typer.Typer()


def backbones() -> list[str]:
    """Architectures by name, and what was made here."""
    from stillrobust.backbones import ARCHITECTURES

    return [*ARCHITECTURES, *_made_here(), "... and every model of timm by its name"]


def _made_here() -> list[str]:
    """The specs of backbones that ``robustify`` or a study made in or below this folder."""
    found = (path for depth in ("*", "*/*", "*/runs/*") for path in sorted(Path().glob(f"{depth}/checkpoint.json")))
    specs = []
    for path in found:
        with suppress(OSError, ValueError, KeyError, TypeError):
            architecture = json.loads(path.read_text(encoding="utf-8"))["architecture"]
            specs.append(format_spec(architecture, {"weights": str(path.parent)}))
    return list(dict.fromkeys(specs))


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
    """Techniques with their papers, and the corruptions of the test that they show in training."""
    from stillrobust.robustify import TECHNIQUES, cards_of

    every = [card for name in TECHNIQUES for card in cards_of(name)]
    shown = (f"; shows {', '.join(card.overlaps)} of the test in training" if card.overlaps else "" for card in every)
    return [f"{card.name}: {card.title}, {card.paper}{more}" for card, more in zip(every, shown, strict=True)]


def transfers() -> list[str]:
    """Modes of transfer and what they mean."""
    from stillrobust.training import TRANSFERS

    return [f"{name}: {meaning}" for name, meaning in TRANSFERS.items()]


def studies() -> list[str]:
    """Studies that are shipped, with their titles."""
    from stillrobust.study.schema import read_study, shipped

    return [f"{name}: {read_study(path).title}" for name, path in shipped().items()]


FAMILIES: Mapping[str, Callable[[], list[str]]] = {
    "backbones": backbones,
    "checkpoints": checkpoint_lines,
    "corruptions": corruptions,
    "tasks": tasks,
    "formats": formats,
    "recipes": recipes,
    "techniques": techniques,
    "transfers": transfers,
    "studies": studies,
}
"""What can be listed -> its lines."""


@commands.command("list")
def list_(what: Annotated[str, typer.Argument(help=f"One of {', '.join(FAMILIES)}.")]) -> None:
    """List the components of a family.

    Example: stillrobust list checkpoints
    """
    typer.echo("\n".join(lookup("family", what, FAMILIES)()))
