"""Plain arrays as compressed npz files. Sizes are checked before anything is allocated."""

import io
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.lib import format as npy

from stillrobust.errors import UserError
from stillrobust.samples import Array

LARGEST = 1 << 32  # bytes of all arrays of a cell; statistics of COCO have 20 MB
NAME = re.compile(r"[a-z][a-z0-9_]*")
KINDS = "biufU"  # booleans, integers, floats, text
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
IMAGE_IDS = "image_ids"


def pack_arrays(arrays: Mapping[str, Array]) -> bytes:
    """Return arrays as the content of an npz file.

    Raises:
        UserError: If an array holds Python objects.
    """
    plain = {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in plain.items():
        if array.dtype.hasobject:
            raise UserError(
                f"Expected plain arrays in a record, but {name!r} holds Python objects: convert it"
                " first"
            )
    buffer = io.BytesIO()
    save: Any = np.savez_compressed  # its stub mistakes the arrays for allow_pickle
    save(buffer, **plain)
    return buffer.getvalue()


def unpack_arrays(content: bytes, images: int | None) -> dict[str, Array]:
    """Read the arrays of an npz file.

    Args:
        content: Content of the file.
        images: Required length of ``image_ids``; ``None`` for any.

    Raises:
        ValueError: If the file is damaged, or an array has an unusual name or type, values that are
            not finite, or image ids that are not unique or of another number.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_sizes(archive)
        with np.load(io.BytesIO(content), allow_pickle=False) as loaded:
            arrays: dict[str, Array] = {name: loaded[name] for name in loaded.files}
    except ValueError:
        raise
    except Exception as error:  # zipfile and numpy raise ten kinds for damaged files
        raise ValueError(f"it is no archive of arrays ({type(error).__name__})") from None
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name} is not finite")
    if IMAGE_IDS in arrays:
        ids = arrays[IMAGE_IDS]
        if ids.ndim != 1 or ids.dtype.kind != "U" or len(np.unique(ids)) != len(ids):
            raise ValueError("image_ids are not unique texts")
        if images is not None and len(ids) != images:
            raise ValueError(f"it has {len(ids)} images, and the record {images}")
    return arrays


def _check_sizes(archive: zipfile.ZipFile) -> None:
    """Compare the shape of each array with the size of its entry: a header may claim any shape."""
    entries = archive.infolist()
    if sum(entry.file_size for entry in entries) > LARGEST:
        raise ValueError("its arrays are too large")
    names = [entry.filename.removesuffix(".npy") for entry in entries]
    if len(set(names)) != len(names) or not all(map(NAME.fullmatch, names)):
        raise ValueError("its arrays have unusual names")
    for entry, name in zip(entries, names, strict=True):
        with archive.open(entry) as file:
            version = npy.read_magic(file)
            if version not in HEADERS:
                raise ValueError(f"{name} has an unknown header")
            shape, _, dtype = HEADERS[version](file)
            size = file.tell() + dtype.itemsize * int(np.prod(shape, dtype=object))
        if dtype.kind not in KINDS or size != entry.file_size:
            raise ValueError(f"{name} is not the array that its header describes")
