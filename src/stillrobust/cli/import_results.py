"""The command that puts others' numbers beside ours: import."""

from pathlib import Path
from typing import Annotated

import typer

from stillrobust.errors import UserError

commands = typer.Typer()


@commands.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="mmdetection, robustbench or semsegbench.")],
    path: Annotated[
        Path, typer.Argument(help="The file, or RobustBench's folder of cards and tables.")
    ],
    out: Annotated[
        Path, typer.Option(help="The folder of results to write to; it may hold runs of your own.")
    ],
    model: Annotated[
        str, typer.Option(help="The model's name (mmdetection), or the only one to take.")
    ] = "",
    dataset: Annotated[
        str, typer.Option(help="The data's name as your own runs have it, or the only one to take.")
    ] = "",
    known: Annotated[
        list[str] | None,
        typer.Option(help="FIELD=VALUE of the protocol that the source leaves unknown."),
    ] = None,
) -> None:
    """Take others' numbers into a folder of results, each with its protocol; `report` shows them.

    Example: stillrobust import mmdetection mask_rcnn_r50_results.pkl --dataset "COCO val2017" --out
    results

    Example: stillrobust import semsegbench miou.csv --dataset ADE20K --out results
    """
    from stillrobust.importers import import_results

    pairs = [text.partition("=") for text in known or []]
    wrong = [field for field, sign, value in pairs if not (field and sign and value)]
    if wrong:
        raise UserError(
            f"Expected --known FIELD=VALUE, but got {wrong[0]!r}; give for example --known seed=0"
        )
    for one in import_results(
        source, path, out, model, dataset, {field: value for field, _, value in pairs}
    ):
        levels = ", ".join(map(str, one.severities)) or "none"
        state = f"{one.holes} cells missing, so no mean" if one.holes else "complete"
        typer.echo(
            "; ".join(
                [f"{one.run}: {', '.join(one.metrics)} at severities {levels}, {state}", *one.notes]
            )
        )
    typer.echo(f"Now: stillrobust report {out} --out report")
