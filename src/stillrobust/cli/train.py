"""The commands ``train`` (transfer to a task) and ``robustify`` (upstream training)."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stillrobust.cli.completion import names_of
from stillrobust.cli.output import print_text
from stillrobust.errors import UserError
from stillrobust.names import format_spec, lookup, parse_spec
from stillrobust.runtime.progress import progress_display
from stillrobust.runtime.run_log import RUN_LOG, log_failures

LONG_TRAINING = 600.0
"""Seconds from which a training is announced."""

if TYPE_CHECKING:
    from stillrobust.samples import Dataset
    from stillrobust.tasks.recipes import Recipe
    from stillrobust.training import Plan

commands = typer.Typer(no_args_is_help=True)

# options that change a recipe
RecipeName = Annotated[
    str,
    typer.Option(
        autocompletion=names_of("recipes"),
        help="A recipe of `stillrobust recipes list`. The next options change it.",
    ),
]
Steps = Annotated[int | None, typer.Option(help="Training steps.")]
BatchSize = Annotated[int | None, typer.Option(help="Images per step, over all processes.")]
Rate = Annotated[float | None, typer.Option(help="Highest learning rate.")]
Seed = Annotated[int | None, typer.Option(help="Seed of weights, data order and augmentation.")]
Change = Annotated[
    list[str] | None,
    typer.Option("--change", help="Change a field of the recipe: KEY=VALUE (YAML), repeatable."),
]


@commands.command("train")
def train_command(
    data: Annotated[str, typer.Option(help="FORMAT:PATH; see `stillrobust data list`.")],
    backbone: Annotated[
        str,
        typer.Option(
            autocompletion=names_of("backbones"),
            help="efficientnet_lite0, any timm name, or NAME(weights='FILE').",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the finished model.")],
    transfer: Annotated[
        str,
        typer.Option(
            autocompletion=names_of("transfers"),
            help="full_network trains everything; fixed_feature trains the head only.",
        ),
    ] = "full_network",
    upstream: Annotated[
        bool,
        typer.Option(
            "--upstream", help="Train nothing: write the backbone with its own classifier."
        ),
    ] = False,
    recipe: RecipeName = "small",
    technique: Annotated[
        str,
        typer.Option(
            autocompletion=names_of("techniques"),
            help="Technique that augments the images, such as prime(geometry=False).",
        ),
    ] = "",
    method: Annotated[
        str,
        typer.Option(
            autocompletion=names_of("methods"),
            help="Fine-tuning methods that keep robustness: lp_ft + ema(decay=0.99).",
        ),
    ] = "",
    steps: Steps = None,
    batch_size: BatchSize = None,
    lr: Rate = None,
    seed: Seed = None,
    change: Change = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change a setting: KEY=VALUE (YAML), repeatable; see `stillrobust tasks show`.",
        ),
    ] = None,
) -> None:
    """Transfer a backbone to your data.

    Finished work is skipped, so the command resumes.

    On several GPUs: --change devices=8, or start the command with torchrun.

    Example: stillrobust train --data coco:mydata --backbone efficientnet_lite0 --out runs/mine
    """
    from stillrobust.data import open_dataset
    from stillrobust.finetuning.methods import split_methods
    from stillrobust.training import TRANSFERS

    chosen = _recipe(recipe, change, steps=steps, batch_size=batch_size, lr=lr, seed=seed)
    lookup("transfer", transfer, TRANSFERS)
    _require_known_names(backbone, technique)
    split_methods(method)
    dataset = open_dataset(data, "val" if upstream else "train", training=not upstream)
    for note in dataset.info.notes:
        print_text(f"note on {dataset.info.name}: {note}", err=True)
    from stillrobust.training import Plan, train
    from stillrobust.training.launch import is_main_process

    plan = Plan(
        dataset.info.task,
        backbone,
        transfer,  # type: ignore[arg-type]
        chosen,
        parse_pairs("--set", settings or []),
        technique,
        method,
    )
    if not upstream and not (out / "model.json").exists():
        _print_estimate(plan, dataset)
    with progress_display() as listen, log_failures(out / RUN_LOG, "training"):
        folder = train(
            plan, dataset, out, lambda done, total, text: listen("train", done, total, text)
        )
    if is_main_process():
        print_text(f"Finished model: {folder}")


def _print_estimate(plan: "Plan", dataset: "Dataset") -> None:
    """Print how long a detector trains without a GPU, if it is long."""
    import torch

    from stillrobust.runtime.forecast import format_duration
    from stillrobust.training.estimate import estimate_training_seconds

    if plan.task != "detection" or torch.cuda.is_available():
        return
    seconds = estimate_training_seconds(plan, dataset)
    if seconds > LONG_TRAINING:
        print_text(
            f"note: without a GPU this training takes about {format_duration(seconds)}, by the time"
            " of two images; --steps, --batch-size and smaller images, such as"
            " --set image_size=[256,320], shorten it",
            err=True,
        )


@commands.command("robustify")
def robustify_command(
    technique: Annotated[
        str,
        typer.Option(
            autocompletion=names_of("techniques"),
            help="Technique, such as prime, ant(kernel=3) or augmix+prime; regular for none.",
        ),
    ],
    backbone: Annotated[
        str, typer.Option(help="Backbone to start from, such as NAME(weights='random').")
    ],
    data: Annotated[
        str,
        typer.Option(help="imagenet:PATH, folders:PATH, or source for a small generated dataset."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    recipe: RecipeName = "source_small",
    steps: Steps = None,
    batch_size: BatchSize = None,
    lr: Rate = None,
    seed: Seed = None,
    change: Change = None,
) -> None:
    """Make a backbone robust with a technique.

    The result is a checkpoint: use it as BACKBONE(weights='FOLDER'). Finished work is skipped, so
    the command resumes.

    Example: stillrobust robustify --technique augmix --backbone resnet50 --data source --out made
    """
    from stillrobust.data import open_dataset
    from stillrobust.data.generated.source_set import write_source_set

    chosen = _recipe(recipe, change, steps=steps, batch_size=batch_size, lr=lr, seed=seed)
    _require_known_names(backbone, "" if technique == "regular" else technique)
    dataset = None if data == "source" else open_dataset(data, "train", training=True)
    from stillrobust.training.launch import is_main_process
    from stillrobust.training.upstream_training import robustify, robustify_plan

    plan = robustify_plan(backbone, technique, chosen)
    if dataset is None:
        source = write_source_set(out.resolve().parent / "source")
        dataset = open_dataset(f"folders:{source}", "train", training=True)
    for note in dataset.info.notes:
        print_text(f"note on {dataset.info.name}: {note}", err=True)
    with progress_display() as listen, log_failures(out / RUN_LOG, "training"):
        folder = robustify(
            plan, dataset, out, lambda done, total, text: listen("robustify", done, total, text)
        )
    if is_main_process():
        print_text(f"Backbone: {format_spec(parse_spec(backbone)[0], {'weights': str(folder)})}")


def _require_known_names(backbone: str, technique: str) -> None:
    """Check the names in specs before torch is imported."""
    from stillrobust.backbones.architectures import require_known_backbone
    from stillrobust.robustify.techniques import require_known_techniques

    require_known_backbone(backbone)
    if technique:
        require_known_techniques(technique)


def _recipe(name: str, change: list[str] | None, **options: Any) -> "Recipe":
    from stillrobust.tasks.recipes import recipe_of

    given = {key: value for key, value in options.items() if value is not None}
    return recipe_of(name, **parse_pairs("--change", change or []), **given)


def parse_pairs(option: str, pairs: list[str]) -> dict[str, Any]:
    """Parse ``["a=1", "b=[2, 3]"]`` to ``{"a": 1, "b": [2, 3]}``.

    Args:
        option: Name of the option, for messages.
        pairs: KEY=VALUE texts, values in YAML.

    Raises:
        UserError: If a text is no such pair.
    """
    from stillrobust.strict_yaml import YamlError, load_yaml

    values = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        try:
            values[key.strip()] = load_yaml(value)
        except YamlError:
            equals = ""
        if not equals:
            raise UserError(
                f"Expected {option} KEY=VALUE with a YAML value, but got {pair!r}; write it as"
                " lr=0.1"
            )
    return values
