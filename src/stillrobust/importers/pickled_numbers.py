"""A reader for pickles of dicts, lists, text and numbers that imports and calls nothing.

NumPy's encodings: a scalar is ``multiarray.scalar(dtype, bytes)``; an array is ``_reconstruct`` and
a state, or with protocol 5 ``_frombuffer`` (numpy/_core/multiarray.py, numeric.py). Protocols below
3 have no bytes: ``_codecs.encode(text, 'latin1')``.
"""

import struct
from pathlib import Path
from typing import IO, Any

import numpy as np

from stillrobust.backbones.pickles import (
    KNOWN_GLOBALS,
    Buildable,
    Globals,
    RefusedFileError,
    interpret,
)
from stillrobust.errors import UserError
from stillrobust.samples import Array

KINDS = "fiub"  # float, integer, unsigned, boolean


class _Type(Buildable):
    """A dtype from its text; the state has the byte order."""

    def __init__(self, text: Any, *_: Any) -> None:
        self.found = (
            np.dtype(text.decode() if isinstance(text, bytes) else text)
            if isinstance(text, str | bytes)
            else None
        )
        if self.found is None or self.found.kind not in KINDS:
            raise RefusedFileError("it holds an array of something else than numbers")

    def build(self, state: Any) -> None:
        order = state[1]
        if self.found is not None and order in ("<", ">"):
            self.found = self.found.newbyteorder(order)


class _Numbers(Buildable):
    """An array; ``values`` is ``None`` until its state is read."""

    def __init__(self, values: Array | None = None) -> None:
        self.values = values

    def build(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        self.values = _array(raw, kind, shape, "F" if fortran else "C")


def _array(raw: Any, kind: Any, shape: Any, order: Any = "C") -> Array:
    if (
        not isinstance(kind, _Type)
        or not isinstance(raw, bytes | bytearray)
        or order not in ("C", "F")
    ):
        raise RefusedFileError("it holds an array of something else than numbers")
    return np.frombuffer(raw, kind.found).reshape(shape, order=order)


def _scalar(kind: Any, raw: Any) -> Any:
    return _array(raw, kind, ()).item()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedFileError("it encodes something else than bytes")
    return text.encode("latin-1")


NUMBERS: Globals = {
    "collections OrderedDict": KNOWN_GLOBALS["collections OrderedDict"],
    "collections defaultdict": lambda *_: {},
    "numpy dtype": _Type,
    "_codecs encode": _encode,
    "builtins bytearray": lambda raw=b"": raw,
    **{f"{module}.multiarray scalar": _scalar for module in ("numpy.core", "numpy._core")},
    **{
        f"{module}.multiarray _reconstruct": lambda *_: _Numbers()
        for module in ("numpy.core", "numpy._core")
    },
    **{
        f"{module}.numeric _frombuffer": lambda *parts: _Numbers(_array(*parts))
        for module in ("numpy.core", "numpy._core")
    },
}


def read_numbers(path: Path) -> Any:
    """Read the data of a pickle. Convert arrays in it with :func:`plain_value`.

    Raises:
        UserError: If the file is damaged or holds other objects.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except RefusedFileError as refusal:
        raise UserError(
            f"Expected a pickle of numbers at {path}, but {refusal}; do not use the file"
        ) from None
    except OSError as error:
        raise UserError(
            f"Expected to read {path}, but {error.strerror or error}; check the path"
        ) from None
    except (
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        MemoryError,
        struct.error,
        EOFError,
    ):
        raise UserError(
            f"Expected a whole pickle at {path}, but it is incomplete or damaged; get the file"
            " again"
        ) from None


def _read(file: IO[bytes]) -> Any:
    found, storages = interpret(file, NUMBERS)
    if storages:
        raise RefusedFileError("it holds weights")
    return found


def plain_value(value: Any) -> Any:
    """Return an array of one number as the number, and any other value as it is."""
    if isinstance(value, _Numbers):
        return (
            None
            if value.values is None
            else value.values.item()
            if value.values.size == 1
            else value.values
        )
    return value
