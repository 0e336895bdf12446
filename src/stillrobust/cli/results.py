"""The folder of results that commands take: the one that ``--out`` made."""

from pathlib import Path

from stillrobust.errors import UserError


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
