"""The command line: it parses, builds one dataclass, calls one library function. Heavy imports happen inside."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stillrobust import cli_corruptions, cli_data, cli_deepaugment, cli_evaluate, cli_report, cli_study
from stillrobust.errors import UserError
from stillrobust.progress import progress

STOPPED = 130  # the exit status of a program that Ctrl-C ended: 128 + SIGINT

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Are these models still robust? Transfer ImageNet backbones, measure them under image corruptions, report.",
)
for room in (cli_corruptions, cli_data, cli_deepaugment, cli_evaluate, cli_report, cli_study):
    app.add_typer(room.commands)


def main() -> None:
    """The entry point: a user's mistake is one sentence and status 2, Ctrl-C is 130."""
    try:
        app()
    except UserError as error:
        print(f"stillrobust: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as ending:
        if ending.code == STOPPED:  # typer ends so, without a word, on Ctrl-C
            print("stillrobust: stopped; what was finished is kept, run the same command again to go on", file=sys.stderr)
        raise
    except OSError as error:
        print(f"stillrobust: {error.strerror or error} ({error.filename}); what was finished is kept", file=sys.stderr)
        sys.exit(2)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for data, models, results and the report.")] = Path("demo"),
    workers: Annotated[int | None, typer.Option(help="Worker processes; by default one a core.")] = None,
) -> None:
    """Three tasks, both modes of transfer, 15 corruptions at 5 severities, on generated scenes; minutes on two cores."""
    from stillrobust.study import Site, select

    cli_study.do(select(["demo"]), Site(out.resolve()), workers)


@app.command()
def train(
    data: Annotated[str, typer.Option(help="FORMAT:PATH; `stillrobust list formats` names them.")],
    backbone: Annotated[str, typer.Option(help="efficientnet_lite0, any timm name, or NAME(weights='FILE').")],
    out: Annotated[Path, typer.Option(help="Folder for the finished model.")],
    transfer: Annotated[str, typer.Option(help="fixed_feature or full_network.")] = "full_network",
    steps: Annotated[int, typer.Option(help="Training steps.")] = 1000,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 8,
    lr: Annotated[float, typer.Option(help="Highest learning rate of the head.")] = 2e-3,
    seed: Annotated[int, typer.Option(help="Seed of the head, the order and the augmentation.")] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the task, KEY=VALUE (YAML), repeatable.")
    ] = None,
) -> None:
    """Transfer a backbone to your data.

    Example: stillrobust train --data coco:mydata --backbone efficientnet_lite0 --out runs/mine --steps 2000
    """
    from stillrobust.data import open_dataset
    from stillrobust.training import Plan, Recipe
    from stillrobust.training import train as run_training

    dataset = open_dataset(data, "train", training=True)
    recipe = Recipe(steps=steps, batch_size=batch_size, lr=lr, seed=seed)
    plan = Plan(dataset.info.task, backbone, transfer, recipe, _settings(settings or []))  # type: ignore[arg-type]
    with progress() as listen:
        folder = run_training(plan, dataset, out, lambda done, total, text: listen("train", done, total, text))
    typer.echo(f"Finished model: {folder}")


def _settings(pairs: list[str]) -> dict[str, Any]:
    import yaml

    values = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"Expected --set KEY=VALUE, but got {pair!r}")
        values[key.strip()] = yaml.safe_load(value)
    return values


@app.command("list")
def list_(what: Annotated[str, typer.Argument(help="backbones, corruptions, tasks or formats.")]) -> None:
    """List the components of a family."""
    from stillrobust.names import lookup

    def backbones() -> list[str]:
        from stillrobust.backbones import CHECKPOINTS

        rows = [f"{c.name}: ImageNet-1k top-1 {100 * c.top1:.1f} %, package {c.package}" for c in CHECKPOINTS.values()]
        return [*rows, "... and every model of timm by its name"]

    def corruptions() -> list[str]:
        from stillrobust.corruptions import CORRUPTIONS

        return list(CORRUPTIONS)

    def tasks() -> list[str]:
        from stillrobust.tasks import TASKS

        return list(TASKS)

    def formats() -> list[str]:
        from stillrobust.data import FORMATS

        return list(FORMATS)

    families = {"backbones": backbones, "corruptions": corruptions, "tasks": tasks, "formats": formats}
    typer.echo("\n".join(lookup("family", what, families)()))


@app.command()
def doctor() -> None:
    """Say what this machine has, and compile the corruption kernels ahead of the first use."""
    import torch

    from stillrobust import corruptions

    typer.echo(f"torch {torch.__version__}, {os.cpu_count()} cores, {torch.cuda.device_count()} GPUs")
    typer.echo(f"frost textures: {corruptions.protocol()}")
    corruptions.warm_up()
    typer.echo("corruption kernels: compiled")


if __name__ == "__main__":
    main()
