"""Read the arrays of an .npz file, as JAX's vision libraries write their weights.

NumPy's own loader is not used: it allocates what a header claims. Sizes are checked against the
entry first, and arrays of objects, which are pickles, are refused.
"""

import io
import math
import zipfile
from collections.abc import Iterable
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy

from stillrobust.backbones.pickles import DTYPES, RefusedFileError

SUFFIX = ".npy"
COMPRESSION = 8  # how much smaller than its numbers an archive of weights may be
_HEADERS: dict[tuple[int, int], Any] = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}
_ADVICE = "save float arrays with numpy.savez, or tensors with torch.save"


def is_numpy_archive(names: Iterable[str]) -> bool:
    """Whether a zip archive with these entries holds arrays only."""
    listed = list(names)
    return bool(listed) and all(name.endswith(SUFFIX) for name in listed)


def read_arrays(file: IO[bytes]) -> dict[str, torch.Tensor]:
    """Read all arrays of an archive.

    Args:
        file: The archive.

    Returns:
        Tensors by name. The slashes of JAX's trees of parameters become dots.

    Raises:
        RefusedFileError: If the archive claims too much, or holds anything but numbers.
    """
    length = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > COMPRESSION * length:
            raise RefusedFileError("its entries claim more bytes than weights of its size have")
        found = {}
        for entry in entries:
            name = entry.filename.removesuffix(SUFFIX).replace("/", ".")
            if name in found:
                raise RefusedFileError("it has two arrays of one name")
            found[name] = _read_array(archive, entry, name)
    return found


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> torch.Tensor:
    with archive.open(entry) as file:
        data = io.BytesIO(file.read(entry.file_size + 1))
    version = npy.read_magic(data)
    if version not in _HEADERS:
        raise RefusedFileError(f"its {name[:60]!r} has a header of NumPy that is not read", _ADVICE)
    shape, fortran, dtype = _HEADERS[version](data)
    known = {str(one).removeprefix("torch.") for one in DTYPES.values()}
    if dtype.hasobject or dtype.byteorder == ">" or dtype.name not in known:
        raise RefusedFileError(f"its {name[:60]!r} is an array of {dtype}", _ADVICE)
    numbers = data.read()
    if len(numbers) != math.prod(shape) * dtype.itemsize or min(shape, default=0) < 0:
        raise RefusedFileError(f"its {name[:60]!r} claims another size than it has")
    array = np.frombuffer(bytearray(numbers), dtype).reshape(shape, order="F" if fortran else "C")
    return torch.from_numpy(np.ascontiguousarray(array).reshape(shape))
