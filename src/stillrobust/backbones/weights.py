"""Weight files: published ones in the cache or in a package, and folders of ``robustify``."""

import dataclasses
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillrobust.backbones.checkpoint_facts import Checkpoint
from stillrobust.backbones.checkpoints import CHECKPOINTS, checkpoints_of
from stillrobust.errors import UserError
from stillrobust.names import lookup, parse_spec, unknown_name_error
from stillrobust.storage.downloads import ByteProgress, cache_folder, fetch
from stillrobust.storage.files import bytes_sha256, cached_file_sha256, file_sha256, write_whole
from stillrobust.untrusted import parse_json, read_regular_file

if TYPE_CHECKING:
    from stillrobust.backbones.base import Backbone

FORMAT = 1  # of checkpoint.json


def checkpoint_file(row: Checkpoint) -> Path:
    """The file of published weights, in the cache or in a package.

    Args:
        row: The row of facts.

    Raises:
        UserError: If the file is missing; the message says how to get it.
    """
    if row.package:
        return _in_package(row)
    path = cache_folder() / "weights" / row.file
    if not path.is_file():
        raise UserError(
            f"The weights {row.spec} are not here yet (expected {path}); run:"
            f" stillrobust checkpoints fetch {row.name}"
        )
    return path


def missing_checkpoint(row: Checkpoint) -> str:
    """Why the file of a row is missing, and how to get it; empty if it exists."""
    try:
        checkpoint_file(row)
    except UserError as error:
        return str(error)
    return ""


def _in_package(row: Checkpoint) -> Path:
    """The file inside the installed package, which is not imported."""
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
    """Look up a row of ``CHECKPOINTS``.

    Args:
        name: A spec, ``ARCHITECTURE/WEIGHTS``, or WEIGHTS alone if only one architecture has them.

    Raises:
        UserError: If there is no such row.
    """
    architecture, arguments = parse_spec(name)
    rows = checkpoints_of(architecture)
    if rows:
        name = f"{architecture}/{arguments.get('weights', next(iter(rows)))}"
    alone = [row for row in CHECKPOINTS.values() if row.weights == name]
    if len(alone) == 1:
        return alone[0]
    # suggest a name of the kind that was given
    if name not in CHECKPOINTS and "/" not in name and not alone:
        raise unknown_name_error("checkpoint", name, {row.weights for row in CHECKPOINTS.values()})
    return lookup("checkpoint", name, CHECKPOINTS)


def fetch_checkpoint(
    row: Checkpoint, sources: Sequence[str], cache: Path, progress: ByteProgress
) -> Path:
    """Fetch the file of published weights into the cache.

    A file without weights is never kept. A local file in ``sources`` replaces the one in the cache.
    The SHA-256 is stored beside the file, so that later damage is detected even if the publisher
    names none.

    Args:
        row: The row of facts.
        sources: Files, folders or mirrors (see ``stillrobust.storage.downloads.fetch``); empty for
            the origin.
        cache: Folder of the cache.
        progress: ``progress(done, total)`` in bytes.

    Returns:
        The path of the file.

    Raises:
        UserError: If no source has the file, or it is another file.
    """
    from stillrobust.backbones.reader import unreadable_reason

    if row.package:
        return _in_package(row)
    if not sources and not row.url:
        raise UserError(
            f"{row.file} has to be fetched by hand: {row.by_hand}, then run:"
            f" stillrobust checkpoints fetch {row.name} --from FILE"
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
    write_whole({_hash_file(target): f"{file_sha256(path)}  {row.file}\n".encode()})
    return path


def _hash_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _named_digest(row: Checkpoint, sources: Sequence[str]) -> str:
    """The SHA-256 of the first local file in ``sources`` that fits the row; empty without one."""
    files = (
        path / row.file if path.is_dir() else path
        for path in (Path(source).expanduser() for source in sources)
    )
    digests = (file_sha256(file) for file in files if file.is_file())
    return next((digest for digest in digests if digest.startswith(row.sha256)), "")


def _known_digest(row: Checkpoint, path: Path) -> str:
    """The known beginning of the file's SHA-256: of the first fetch, or as far as published."""
    fetched = (
        _hash_file(path).read_text(encoding="utf-8").strip()[:64]
        if _hash_file(path).is_file()
        else ""
    )
    return fetched if fetched.startswith(row.sha256) else row.sha256


def verify_checkpoint(row: Checkpoint, path: Path) -> None:
    """Check that a file is the one of a published row.

    Args:
        row: The row of facts.
        path: The file.

    Raises:
        UserError: If its SHA-256 is neither the published one nor that of the first fetch.
    """
    if not cached_file_sha256(path).startswith(_known_digest(row, path)):
        raise UserError(
            f"Expected {row.spec} in {path}, but its SHA-256 is not that of the published file or"
            f" of the first fetch; remove it and run: stillrobust checkpoints fetch {row.name}"
        )


# ---- folders of robustify


def write_folder(folder: Path, backbone: "Backbone", row: Checkpoint) -> Path:
    """Write a backbone as a checkpoint: ``weights.safetensors`` and ``checkpoint.json``.

    Args:
        folder: Folder to write into.
        backbone: Its upstream model is written.
        row: Facts of the checkpoint. Architecture, file, hash and preprocessing are filled in.

    Returns:
        The folder.

    Raises:
        UserError: If the folder cannot be written.
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
        sha256=bytes_sha256(weights),
        **backbone.preprocessing(),
    )
    text = (
        json.dumps({"format": FORMAT, **dataclasses.asdict(row)}, indent=1, ensure_ascii=False)
        + "\n"
    )
    write_whole({folder / row.file: weights, folder / "checkpoint.json": text.encode()})
    return folder


def read_folder(folder: Path) -> Checkpoint:
    """Read the row of facts of a folder that ``write_folder`` wrote, and check its weights.

    Args:
        folder: The folder.

    Raises:
        UserError: If it is no such folder, or the weights are damaged.
    """
    path = folder / "checkpoint.json"
    try:
        content: dict[str, Any] = parse_json(read_regular_file(path))
        version = content.pop("format")
        if version != FORMAT:
            raise UserError(
                f"Expected format {FORMAT} in {path}, but got {version!r}; use the stillrobust that"
                " wrote it"
            )
        lists = {key: tuple(value) for key, value in content.items() if isinstance(value, list)}
        row = Checkpoint(**{**content, **lists, "weights": str(folder)})
        intact = (
            Path(row.file).name == row.file and cached_file_sha256(folder / row.file) == row.sha256
        )
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"Expected a checkpoint of 'stillrobust robustify' in {folder}, but {path} is missing"
            " or damaged; make it again"
        ) from None
    if not intact:
        raise UserError(
            f"The weights in {folder} are damaged (checksum differs); make or copy them again"
        )
    return row
