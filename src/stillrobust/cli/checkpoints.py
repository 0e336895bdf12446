"""The commands on published weights: checkpoints list, show, fetch."""

from pathlib import Path
from typing import Annotated, Any

import typer

from stillrobust.cli.completion import checkpoints
from stillrobust.cli.output import print_text
from stillrobust.errors import UserError
from stillrobust.runtime.progress import progress_display

commands = typer.Typer(no_args_is_help=True, help="List, show and fetch published weights.")

Name = Annotated[
    str,
    typer.Argument(
        autocompletion=checkpoints,
        help="A spec of `checkpoints list`, ARCHITECTURE/WEIGHTS, or WEIGHTS.",
    ),
]
FetchName = Annotated[
    str,
    typer.Argument(
        autocompletion=checkpoints,
        help=(
            "A spec of `checkpoints list`, or of another library's hub: timm:NAME,"
            " torchvision:NAME, transformers:OWNER/NAME."
        ),
    ),
]


@commands.command("list")
def list_command() -> None:
    """List published weights with their accuracies.

    The columns are the spec, top-1 on ImageNet and ImageNet-C in %, whether the file is here, and
    the training.

    Example: stillrobust checkpoints list
    """
    from stillrobust.backbones.checkpoints import CHECKPOINTS
    from stillrobust.backbones.weights import missing_checkpoint

    rows = CHECKPOINTS.values()
    width = max(len(row.spec) for row in rows)
    print_text(f"{'spec':<{width}}  {'top-1':>6}  {'IN-C':>6}  file  trained by")
    for row in rows:
        print_text(
            f"{row.spec:<{width}}  {_percent(row.top1):>6}  {_percent(row.imagenet_c):>6}  "
            f"{'-' if missing_checkpoint(row) else 'here':<4}  {row.technique}"
        )


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{100 * value:.1f}"


@commands.command("show")
def show_command(name: Name) -> None:
    """Show the origin, licence, storage and scores of a checkpoint.

    Example: stillrobust checkpoints show ant
    """
    from dataclasses import asdict

    from stillrobust.backbones.weights import find_checkpoint, missing_checkpoint

    row = find_checkpoint(name)
    facts: dict[str, Any] = {"spec": row.spec, **asdict(row)}
    facts["here"] = missing_checkpoint(row) or "yes"
    for key, value in facts.items():
        if value not in (None, "", ()):
            text = ", ".join(map(str, value)) if isinstance(value, tuple) else value
            print_text(f"{key:<13} {text}")


@commands.command("fetch")
def fetch_command(
    name: FetchName,
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--from", help="File, folder, or address of a mirror ending in '/'; repeatable."
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="Cache (default: $STILLROBUST_CACHE, or ~/.cache/stillrobust)."),
    ] = None,
) -> None:
    """Download published weights into the cache.

    An interrupted download resumes.

    Example: stillrobust checkpoints fetch ant --from https://mirror.example.org/weights/

    Example: stillrobust checkpoints fetch timm:resnet10t
    """
    if ":" in name.partition("(")[0]:
        if source or to:
            raise UserError(
                f"{name} goes into its own library's cache, so --from and --to do not apply; leave"
                " them out"
            )
        _fetch_from_hub(name)
        return
    from stillrobust.backbones.weights import fetch_checkpoint, find_checkpoint
    from stillrobust.storage.downloads import cache_folder

    row = find_checkpoint(name)
    with progress_display() as listen:
        path = fetch_checkpoint(
            row,
            source or [],
            to or cache_folder(),
            lambda done, total: listen(row.file, done >> 20, (total or done) >> 20, "MB"),
        )
    print_text(f"{row.spec}: {path} ({path.stat().st_size >> 20} MB; {row.licence})")


def _fetch_from_hub(spec: str) -> None:
    from stillrobust.backbones.hubs import fetch_hub_model
    from stillrobust.predictors import parse_model_spec

    parse_model_spec(spec)
    with progress_display() as listen:
        path = fetch_hub_model(
            spec, lambda done, total: listen(spec, done >> 20, (total or done) >> 20, "MB")
        )
    print_text(f"{spec}: {path}")
