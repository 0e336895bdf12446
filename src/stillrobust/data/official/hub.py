"""Download of a dataset of Hugging Face's hub to a folder that the format ``huggingface`` reads."""

import re
import shutil
from pathlib import Path
from typing import Any

from stillrobust.errors import UserError
from stillrobust.extras import require_extra
from stillrobust.names import format_count, parse_spec
from stillrobust.storage.downloads import require_reachable
from stillrobust.storage.files import output_folder, temporary_path

KIND = "huggingface"
OPTIONS = ("config", "revision")
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def fetch_hub_dataset(head: str, name: str, root: Path, mirror: str | None = None) -> list[str]:
    """Download a dataset of the hub and save it with its images.

    Args:
        head: ``huggingface``, or ``huggingface(config='NAME', revision='COMMIT')``.
        name: OWNER/NAME of the dataset.
        root: Folder to create.
        mirror: Folder with a copy of the hub's repositories, ``OWNER/NAME``; no connection is
            opened then.

    Returns:
        What was saved, such as ``["train: 100 images"]``.

    Raises:
        UserError: If the spec is wrong, the folder exists, or the dataset cannot be fetched.
    """
    kind, given = parse_spec(head)
    wrong = [option for option in given if option not in OPTIONS]
    if kind != KIND or wrong or not REPOSITORY.fullmatch(name):
        raise UserError(
            f"Expected a dataset of the hub as {KIND}:OWNER/NAME or {KIND}(config='NAME',"
            f" revision='COMMIT'):OWNER/NAME, but got {head}:{name}; correct it"
        )
    require_extra("huggingface")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(
            f"Expected a new folder for {name}, but {root} is not empty; choose another, or remove"
            " it"
        )
    found = _load(_source(name, mirror), given, name)
    staging = temporary_path(root.absolute())
    with output_folder(root.absolute().parent):
        try:
            found.save_to_disk(staging)
            if root.is_dir():
                root.rmdir()
            staging.rename(root)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return [f"{split}: {format_count(len(data), 'image')}" for split, data in found.items()]


def _source(name: str, mirror: str | None) -> str:
    """The repository on the hub or its copy; the hub is asked once, so that nothing waits."""
    if mirror is None:
        import huggingface_hub

        # its own retries take a minute where there is no network
        require_reachable(huggingface_hub.constants.ENDPOINT)
        return name
    folder = Path(mirror).expanduser() / name
    if not folder.is_dir():
        raise UserError(
            f"Expected a copy of {name} at {folder}, but there is none; give the folder that holds"
            " OWNER/NAME, or set HF_ENDPOINT to the address of a mirror of the hub"
        )
    return str(folder)


def _load(source: str, given: dict[str, Any], name: str) -> Any:
    """All splits, as a ``datasets.DatasetDict`` whose images are in its tables."""
    import datasets
    from datasets.table import embed_table_storage

    try:
        found = datasets.load_dataset(source, given.get("config"), revision=given.get("revision"))
        for split, data in found.items():
            stored = data.with_format("arrow").map(embed_table_storage, batched=True)
            found[split] = stored.with_format(None)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(
            f"Cannot fetch {name} from Hugging Face's hub: {reason}; check the name, give config="
            " if the dataset has several, and log in with `hf auth login` if it is gated"
        ) from None
    return found
