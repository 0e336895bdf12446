"""Where the weights of a spec lie: a published row's file in the cache or a package, a file, or a
folder of ``robustify``.
"""

import dataclasses
import hashlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stillrobust.backbones.base import Backbone
from stillrobust.backbones.checkpoints import CHECKPOINTS, Checkpoint, checkpoints_of
from stillrobust.backbones.reader import unreadable_reason
from stillrobust.errors import UserError
from stillrobust.names import lookup, parse_spec, unknown
from stillrobust.storage.downloads import Progress, cache_folder, fetch
from stillrobust.storage.files import file_digest, sha256_of, write_whole

FORMAT = 1  # of checkpoint.json


def checkpoint_file(row: Checkpoint) -> Path:
    """The file of a published row.

    Raises ``UserError`` that says how to get it where it is not there.
    """
    if row.package:
        return _in_package(row)
    path = cache_folder() / "weights" / row.file
    if not path.is_file():
        raise UserError(
            f"The weights {row.spec} are not here yet (expected {path}); run: stillrobust fetch"
            f" {row.name}"
        )
    return path


def _in_package(row: Checkpoint) -> Path:
    """Found without importing the package."""
    spec = importlib.util.find_spec(row.package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        found = sorted(Path(folder).glob(row.file))
        if found:
            return found[0]
    package = row.package.replace("_", "-")
    raise UserError(
        f"The weights {row.spec} come with the package {package}, which is not installed; run: pip"
        f" install {package}"
    )


def find_checkpoint(name: str) -> Checkpoint:
    """A row by its spec, by ``ARCHITECTURE/WEIGHTS``, or by WEIGHTS alone where only one
    architecture has such.
    """
    architecture, arguments = parse_spec(name)
    rows = checkpoints_of(architecture)
    if rows:
        name = f"{architecture}/{arguments.get('weights', next(iter(rows)))}"
    alone = [row for row in CHECKPOINTS.values() if row.weights == name]
    if len(alone) == 1:
        return alone[0]
    # the nearest of what it was meant to be
    if name not in CHECKPOINTS and "/" not in name and not alone:
        raise unknown("checkpoint", name, {row.weights for row in CHECKPOINTS.values()})
    return lookup("checkpoint", name, CHECKPOINTS)


def fetch_checkpoint(
    row: Checkpoint, sources: Sequence[str], cache: Path, progress: Progress
) -> Path:
    """Get a row's file into ``cache`` from ``sources`` (see
    ``stillrobust.storage.downloads.fetch``), or else from its origin.

    What holds no weights is not put there; a file of yours that is named takes the place of another
    one that is there. Its SHA-256 is kept beside it, so that later damage is seen even where the
    publisher names none.
    """
    if row.package:
        return _in_package(row)
    if not sources and not row.url:
        raise UserError(
            f"{row.file} has to be fetched by hand: {row.by_hand}, then run: stillrobust fetch"
            f" {row.name} --from FILE"
        )
    target = cache / "weights" / row.file
    digest = _named_digest(row, sources) or _known_digest(row, target)
    path = fetch(
        sources or [row.url],
        target,
        sha256=digest or None,
        check=unreadable_reason,
        progress=progress,
    )
    write_whole({_note(target): f"{sha256_of(path)}  {row.file}\n".encode()})
    return path


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _named_digest(row: Checkpoint, sources: Sequence[str]) -> str:
    """The SHA-256 of the first file among the sources that may be the row's; empty where there is
    none.
    """
    files = (
        path / row.file if path.is_dir() else path
        for path in (Path(source).expanduser() for source in sources)
    )
    digests = (sha256_of(file) for file in files if file.is_file())
    return next((digest for digest in digests if digest.startswith(row.sha256)), "")


def _known_digest(row: Checkpoint, path: Path) -> str:
    """The hex digits that a row's file has to begin its SHA-256 with: of the first fetch, or as
    many as are published.
    """
    fetched = _note(path).read_text(encoding="utf-8").strip()[:64] if _note(path).is_file() else ""
    return fetched if fetched.startswith(row.sha256) else row.sha256


def verify_checkpoint(row: Checkpoint, path: Path) -> None:
    """Raise ``UserError`` where a published row's file is not the one that is meant, or was damaged
    since it was fetched.
    """
    if not file_digest(path).startswith(_known_digest(row, path)):
        raise UserError(
            f"Expected {row.spec} in {path}, but its SHA-256 is not that of the published file or"
            f" of the first fetch; remove it and run: stillrobust fetch {row.name}"
        )


# ---- folders that robustify writes


def write_folder(folder: Path, backbone: Backbone, row: Checkpoint) -> Path:
    """Write a backbone's upstream model and its row of facts, whole: ``weights.safetensors``, then
    ``checkpoint.json``.
    """
    from safetensors.torch import save

    tensors = {
        name: value.detach().cpu().contiguous()
        for name, value in backbone.model.state_dict().items()
    }
    weights = save(tensors)
    row = dataclasses.replace(
        row,
        architecture=backbone.name,
        weights=str(folder),
        file="weights.safetensors",
        sha256=hashlib.sha256(weights).hexdigest(),
        **backbone.preprocessing(),
    )
    text = (
        json.dumps({"format": FORMAT, **dataclasses.asdict(row)}, indent=1, ensure_ascii=False)
        + "\n"
    )
    write_whole({folder / row.file: weights, folder / "checkpoint.json": text.encode()})
    return folder


def read_folder(folder: Path) -> Checkpoint:
    """The row of facts in a folder that :func:`write_folder` wrote, its weights checked against it."""
    path = folder / "checkpoint.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        made_by = content.pop("format")
        if made_by != FORMAT:
            raise UserError(
                f"Expected format {FORMAT} in {path}, but got {made_by!r}; use the stillrobust that"
                " wrote it"
            )
        lists = {key: tuple(value) for key, value in content.items() if isinstance(value, list)}
        row = Checkpoint(**{**content, **lists, "weights": str(folder)})
        whole = Path(row.file).name == row.file and file_digest(folder / row.file) == row.sha256
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"Expected a checkpoint of 'stillrobust robustify' in {folder}, but {path} is missing"
            " or no such; make it again"
        ) from None
    if not whole:
        raise UserError(
            f"The weights in {folder} are not those that were written (checksum differs); make or"
            " copy them again"
        )
    return row
