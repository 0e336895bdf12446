"""Weights of other libraries' hubs: read from their caches, downloaded only by ``fetch``.

timm and transformers keep files in Hugging Face's cache, torchvision in torch's. Loading a model
looks there and opens no connection.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stillrobust.errors import UserError
from stillrobust.names import lookup, parse_spec, unknown_name_error
from stillrobust.storage.downloads import ByteProgress, fetch, require_reachable

TIMM_FILES = ("model.safetensors", "pytorch_model.bin")
"""Files of a timm model on its hub, in the order in which they are looked for."""
TRANSFORMERS_FILES = ("*.json", "*.safetensors")
HUB_LIMIT = 20 << 30  # bytes of a file


def timm_file(name: str) -> Path:
    """Return timm's own weight file of a model, from the cache.

    Args:
        name: timm's name of the model.

    Raises:
        UserError: If the model has no published weights, or they are not in the cache.
    """
    import huggingface_hub

    repository, url = _timm_source(name)
    for file in TIMM_FILES if repository else ():
        found = huggingface_hub.try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return Path(found)
    if url and _torch_file(url).is_file():
        return _torch_file(url)
    raise _missing(f"timm's weights of {name}", f"timm:{name}")


def torchvision_file(name: str, weights: Any) -> Path:
    """Return a weight file of torchvision, from torch's cache.

    Args:
        name: torchvision's name of the model.
        weights: A member of its enum of weights.

    Raises:
        UserError: If it is not in the cache.
    """
    path = _torch_file(weights.url)
    if path.is_file():
        return path
    spec = f"torchvision:{name}(weights='{weights.name}')"
    raise _missing(f"torchvision's weights {weights.name} of {name}", spec)


def transformers_folder(name: str) -> Path:
    """Return the folder of a model of Hugging Face's hub, from the cache.

    Args:
        name: OWNER/NAME on the hub.

    Raises:
        UserError: If it is not in the cache, or is no name of a model.
    """
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, local_files_only=True))
    except ValueError:  # its error for a name that cannot be one
        raise UserError(
            f"Expected a folder, or OWNER/NAME of a model on Hugging Face's hub, but got {name!r};"
            " check the path"
        ) from None
    except OSError:  # its error for what is not in the cache
        raise _missing(f"The model {name} of Hugging Face's hub", f"transformers:{name}") from None


def fetch_hub_model(spec: str, progress: ByteProgress = lambda done, total: None) -> Path:
    """Download the weights of another library's hub into that library's cache.

    Args:
        spec: ``timm:NAME``, ``torchvision:NAME``, ``torchvision:NAME(weights='WEIGHTS')`` or
            ``transformers:OWNER/NAME``.
        progress: Called with (bytes received, total bytes if known), where they are known.

    Returns:
        The file, or the folder of several.

    Raises:
        UserError: If the model is unknown, or the hub cannot be reached.
    """
    kind, _, rest = spec.partition(":")
    return lookup("kind of model on a hub", kind, _FETCHERS)(rest, progress)


def _fetch_timm(spec: str, progress: ByteProgress) -> Path:
    name, _ = parse_spec(spec)
    repository, url = _timm_source(name)
    if not repository:
        path = _torch_file(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        return fetch([url], path, limit=HUB_LIMIT, progress=progress)
    for file in TIMM_FILES:
        if (_download_from_hub(repository, (file,)) / file).is_file():
            break
    return timm_file(name)


def _fetch_torchvision(spec: str, progress: ByteProgress) -> Path:
    import torchvision

    name, arguments = parse_spec(spec)
    known = torchvision.models.list_models()
    if name not in known:
        raise unknown_name_error("torchvision model", name, known)
    rows = torchvision.models.get_model_weights(name).__members__
    row = lookup(f"weights of {name}", str(arguments.get("weights", "DEFAULT")), rows)
    path = _torch_file(row.url)
    # torchvision's files are named with the first digits of their SHA-256
    digits = path.stem.rpartition("-")[2]
    path.parent.mkdir(parents=True, exist_ok=True)
    return fetch([row.url], path, sha256=digits, limit=HUB_LIMIT, progress=progress)


def _fetch_transformers(name: str, progress: ByteProgress) -> Path:
    return _download_from_hub(name, TRANSFORMERS_FILES)


_FETCHERS: Mapping[str, Callable[[str, ByteProgress], Path]] = {
    "timm": _fetch_timm,
    "torchvision": _fetch_torchvision,
    "transformers": _fetch_transformers,
}


def _download_from_hub(repository: str, files: tuple[str, ...]) -> Path:
    """Download the files of a repository that match, and return their folder."""
    import huggingface_hub

    # its own retries take a minute where there is no network
    require_reachable(huggingface_hub.constants.ENDPOINT)
    try:
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(files)))
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:150]
        raise UserError(
            f"Cannot fetch {repository} from Hugging Face's hub: {reason}; check the name and the"
            " network, or carry the folder over and give its path"
        ) from None


def _timm_source(name: str) -> tuple[str, str]:
    """Repository and address of timm's weights; an empty one does not exist."""
    import timm

    if not timm.is_model(name.partition(".")[0]):
        raise unknown_name_error("timm model", name, timm.list_models())
    config = timm.get_pretrained_cfg(name)
    repository, url = (config.hf_hub_id or "", config.url or "") if config else ("", "")
    if not repository and not url:
        raise UserError(
            f"timm has no weights of {name}; give weights='FILE' for a local file, or"
            " weights='random'"
        )
    return repository, url


def _torch_file(url: str) -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def _missing(what: str, spec: str) -> UserError:
    return UserError(
        f"{what} are not on this machine, and nothing is downloaded unless asked; run: stillrobust"
        f' checkpoints fetch "{spec}"'
    )
