"""The lists of components without commands of their own: backbones, recipes, tasks."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from stillrobust.cli.output import print_text
from stillrobust.errors import UserError
from stillrobust.names import format_spec, lookup
from stillrobust.untrusted import parse_json, read_regular_file

backbones = typer.Typer(no_args_is_help=True, help="List backbones.")
recipes = typer.Typer(no_args_is_help=True, help="List recipes of training.")
tasks = typer.Typer(no_args_is_help=True, help="List tasks, their metrics and settings.")


@backbones.command("list")
def list_backbones() -> None:
    """List architectures, and the backbones made below this folder.

    Example: stillrobust backbones list
    """
    from stillrobust.backbones.architectures import ARCHITECTURES

    print_text("\n".join([*ARCHITECTURES, *local_backbones()]))
    print_text("... and every model of timm by its name")


def local_backbones() -> Iterator[str]:
    """Yield the specs of backbones that ``robustify`` or a study made in or below this folder."""
    for depth in ("*", "*/*", "*/runs/*"):
        for path in sorted(Path().glob(f"{depth}/checkpoint.json")):
            with suppress(OSError, UserError, ValueError, KeyError, TypeError):
                architecture = parse_json(read_regular_file(path))["architecture"]
                yield format_spec(architecture, {"weights": str(path.parent)})


@recipes.command("list")
def list_recipes() -> None:
    """List recipes of training with their sources.

    Example: stillrobust recipes list
    """
    from stillrobust.tasks.recipes import RECIPES

    for name, recipe in RECIPES.items():
        print_text(f"{name}: {recipe.source}")


@tasks.command("list")
def list_tasks() -> None:
    """List tasks with their metrics.

    Example: stillrobust tasks list
    """
    from stillrobust.metrics import METRICS

    for task, metric in METRICS.items():
        print_text(f"{task}: {', '.join(f'{key} ({name})' for key, name in metric.names.items())}")


@tasks.command("show")
def show_task(
    task: Annotated[str, typer.Argument(help="classification, detection or segmentation.")],
) -> None:
    """Show the settings of a task with their defaults.

    `--set KEY=VALUE` of `train` changes them.

    Example: stillrobust tasks show detection
    """
    from dataclasses import fields

    from stillrobust.metrics import METRICS

    lookup("task", task, METRICS)
    from stillrobust.tasks import make_task

    made = make_task(task, {})
    for field in fields(made):  # type: ignore[arg-type]
        print_text(f"{field.name} = {getattr(made, field.name)!r}")
