"""The command about transfer: train."""

from pathlib import Path
from typing import Annotated, Any

import typer

from stillrobust.errors import UserError
from stillrobust.progress import progress

commands = typer.Typer(no_args_is_help=True)


@commands.command()
def train(
    data: Annotated[str, typer.Option(help="FORMAT:PATH; `stillrobust list formats` names them.")],
    backbone: Annotated[str, typer.Option(help="efficientnet_lite0, any timm name, or NAME(weights='FILE').")],
    out: Annotated[Path, typer.Option(help="Folder for the finished model.")],
    transfer: Annotated[str, typer.Option(help="One of `stillrobust list transfers`.")] = "full_network",
    recipe: Annotated[str, typer.Option(help="One of `stillrobust list recipes`; the other options change it.")] = "small",
    technique: Annotated[str, typer.Option(help="Acts on the images in training, such as prime(geometry=False).")] = "",
    steps: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step, over all processes.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate of the head.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the head, the order and the augmentation.")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--change", help="A field of the recipe, KEY=VALUE (YAML), repeatable: devices=8.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the task, KEY=VALUE (YAML), repeatable.")
    ] = None,
) -> None:
    """Transfer a backbone to your data. On several GPUs: --change devices=8, or start it by torchrun.

    Example: stillrobust train --data coco:mydata --backbone efficientnet_lite0 --out runs/mine --steps 2000
    """
    from stillrobust.data import open_dataset
    from stillrobust.tasks.recipes import recipe_of
    from stillrobust.training import Plan
    from stillrobust.training import train as run_training

    trains = transfer != "upstream"
    dataset = open_dataset(data, "train" if trains else "val", training=trains)
    options = {"steps": steps, "batch_size": batch_size, "lr": lr, "seed": seed}
    given = {key: value for key, value in options.items() if value is not None}
    chosen = recipe_of(recipe, **pairs_of("--change", change or []), **given)
    plan = Plan(dataset.info.task, backbone, transfer, chosen, pairs_of("--set", settings or []), technique)  # type: ignore[arg-type]
    with progress() as listen:
        folder = run_training(plan, dataset, out, lambda done, total, text: listen("train", done, total, text))
    typer.echo(f"Finished model: {folder}")


def pairs_of(option: str, pairs: list[str]) -> dict[str, Any]:
    """``["a=1", "b=[2, 3]"]`` -> ``{"a": 1, "b": [2, 3]}``."""
    import yaml

    values = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        try:
            values[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not equals:
            raise UserError(f"Expected {option} KEY=VALUE with a YAML value, but got {pair!r}")
    return values
