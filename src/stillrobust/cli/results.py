"""What commands on results share: their folder, which ``--out`` made, and options."""

from pathlib import Path
from typing import Annotated

import typer

from stillrobust.errors import UserError

Reference = Annotated[
    str | None,
    typer.Option(help="Reference run of mCE (default: AlexNet, for results on ImageNet)."),
]
Standard = Annotated[
    list[str] | None,
    typer.Option(
        help="Run without a technique, for effective robustness. Repeat it: two are required."
    ),
]


def store_folder(out: Path) -> Path:
    """Return the results store in a folder that ``--out`` of a command made.

    Args:
        out: That folder, or a store that was written from Python.

    Raises:
        UserError: If there is no store.
    """
    for folder in (out / "results", out):
        if (folder / "runs").is_dir():
            return folder
    raise UserError(
        "Expected a folder of results, which --out of evaluate, runs import or study made, at"
        f" {out}, but there is none; check the path or evaluate a model first"
    )
