"""The command ``import``."""

from pathlib import Path
from typing import Annotated

import typer

from stillrobust.cli.output import print_text
from stillrobust.errors import UserError

commands = typer.Typer()


@commands.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="mmdetection, robustbench or semsegbench.")],
    path: Annotated[
        Path, typer.Argument(help="File of the tool, or RobustBench's folder of cards and tables.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of results to write to; it may have other runs.")
    ],
    model: Annotated[
        str, typer.Option(help="Name of the model (mmdetection), or the only one to import.")
    ] = "",
    dataset: Annotated[
        str, typer.Option(help="Name of the dataset as in your runs, or the only one to import.")
    ] = "",
    known: Annotated[
        list[str] | None,
        typer.Option(help="FIELD=VALUE of the protocol that the source does not document."),
    ] = None,
) -> None:
    """Import results of other tools, each with its protocol; `report` shows them.

    Example: stillrobust import mmdetection results.pkl --dataset "COCO val2017" --out results

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
        source, path, out / "results", model, dataset, {field: value for field, _, value in pairs}
    ):
        levels = ", ".join(map(str, one.severities)) or "none"
        state = f"{one.missing} cells missing, so no mPC" if one.missing else "complete"
        print_text(
            "; ".join(
                [f"{one.run}: {', '.join(one.metrics)} at severities {levels}, {state}", *one.notes]
            )
        )
    print_text(f"Next: stillrobust report {out} --out report")
