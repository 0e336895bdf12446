"""Names files that are given as weights and are something else, by how they begin."""

import json
import re
from collections.abc import Iterable

from stillrobust.backbones.pickles import RefusedFileError

SAVE_STATE_DICT = "load it where you trust it, and save its state_dict() with torch.save"
_CONVERT = "convert it to PyTorch first, and save the state_dict() of that model"
_UNPACK = "unpack it first, and give the file inside"
_FETCH = "get the file again; the address may ask for a login or a confirmation"

# beginning -> what the file is, what to do
_SIGNATURES = (
    (
        b"version https://git-lfs.github.com/spec/",
        "it is a Git LFS pointer instead of the file",
        "run 'git lfs pull' in its repository",
    ),
    (b"\x89HDF\r\n\x1a\n", "it is an HDF5 file, as Keras and TensorFlow write", _CONVERT),
    (b"model_checkpoint_path:", "it is the index of a TensorFlow checkpoint", _CONVERT),
    (b"\x93NUMPY", "it is a NumPy array without a name", "save a state dict with torch.save"),
    (b"GGUF", "it is a GGUF file", _CONVERT),
    (b"\x1f\x8b", "it is compressed with gzip", _UNPACK),
    (b"BZh", "it is compressed with bzip2", _UNPACK),
    (b"\xfd7zXZ\x00", "it is compressed with xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "it is a 7z archive", _UNPACK),
    (b"Rar!", "it is a RAR archive", _UNPACK),
)
_TABLE_FOOTER = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # of a LevelDB table: TensorFlow's .index files
# entries of a zip archive -> what it is, what to do
_ARCHIVES = (
    (r"model\.weights\.h5", "it is a Keras model", _CONVERT),
    (
        r"(.*/)?(models/.*\.json|serialized_exported_program\.json)",
        "it is a torch.export archive",
        SAVE_STATE_DICT,
    ),
    (
        r"(.*/)?\.metadata",
        "it is a zip archive of a distributed checkpoint",
        "unpack it, and convert it with torch.distributed.checkpoint.format_utils",
    ),
)


def refuse_foreign_file(content: bytes, name: str) -> None:
    """Refuse a file of a known kind that holds no weights of PyTorch.

    Args:
        content: The file.
        name: Its name; formats without a signature are known by its end.

    Raises:
        RefusedFileError: It names the kind, and what to do.
    """
    for signature, found, advice in _SIGNATURES:
        if content.startswith(signature):
            raise RefusedFileError(found, advice)
    start = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")):
        raise RefusedFileError("it is a web page instead of the file", _FETCH)
    if start.startswith((b"{", b"[")):
        _refuse_json(content)
    if content[257:262] == b"ustar":
        raise RefusedFileError("it is a tar archive", _UNPACK)
    if content[4:8] == b"TFL3":
        raise RefusedFileError("it is a TensorFlow Lite model", _CONVERT)
    # protobuf: field 1, a version, field 2; TensorFlow's version is 1, ONNX' is 3 and above
    version = content[1] if content[:1] == b"\x08" and content[2:3] in (b"\x12", b"\x3a") else 0
    if name.endswith(".onnx") or 3 <= version < 32:
        raise RefusedFileError(
            "it is an ONNX model", "evaluate it as onnx:FILE, or export the state_dict() instead"
        )
    if (
        version == 1
        or content.endswith(_TABLE_FOOTER)
        or re.search(r"\.pb$|\.data-\d{5}-of-\d{5}$", name)
    ):
        raise RefusedFileError("it is a TensorFlow file", _CONVERT)
    if re.match(rb"[\x81-\x8f\xde\xdf][\x00-\xff]{0,4}?[\xa1-\xbf\xd9][ -~]", content):
        raise RefusedFileError("it is a msgpack file, as Flax writes", _CONVERT)


def _refuse_json(content: bytes) -> None:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return
    if isinstance(found, dict) and isinstance(found.get("weight_map"), dict):
        shards = len({str(file) for file in found["weight_map"].values()})
        raise RefusedFileError(
            f"it is the index of a checkpoint in {shards} files and holds no tensors",
            "load them where you trust them, and save all tensors in one file",
        )
    raise RefusedFileError("it is JSON text instead of the file", _FETCH)


def refuse_foreign_archive(names: Iterable[str]) -> None:
    """Refuse a zip archive of a known kind that is no state dict.

    Args:
        names: Names of its entries.

    Raises:
        RefusedFileError: It names the kind, and what to do.
    """
    listed = list(names)
    for pattern, found, advice in _ARCHIVES:
        if any(re.fullmatch(pattern, name) for name in listed):
            raise RefusedFileError(found, advice)
