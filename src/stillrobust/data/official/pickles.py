"""Reader of CIFAR-10's batches, which are Python 2 pickles.

They are read as data: nothing that a file names is imported or called.
"""

import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillrobust.errors import UserError
from stillrobust.samples import Array
from stillrobust.untrusted import read_regular_file

LARGEST = 1 << 26  # bytes; a batch of CIFAR-10 has 31 million
# The only names that a file may contain. They are placeholders: no numpy function is called.
ARRAY, NDARRAY, DTYPE = "numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"

CONSTANTS = frozenset(
    {
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "UNICODE",
        "BINUNICODE",
        "BINBYTES",
        "SHORT_BINBYTES",
    }
)


@dataclass(frozen=True)
class _Name:
    """A name in the file."""

    text: str


@dataclass(frozen=True)
class _Dtype:
    """The element type of an array."""

    text: str


@dataclass
class _Array:
    """An array, whose values follow later in the file."""

    values: Array | None = None


class _Mark:
    """The start of the items of the next container."""


class _RefusedError(Exception):
    """An instruction or name that is not allowed."""


def read_pickle(path: Path) -> dict[str, Any]:
    """Read a dict of text, numbers, lists, dicts, tuples and uint8 arrays from a pickle.

    Args:
        path: File to read.

    Returns:
        The dict, with text as keys.

    Raises:
        UserError: If the file contains anything else, is too large or damaged.
    """
    try:
        content = read_regular_file(path, LARGEST)
    except OSError as error:
        raise UserError(
            f"Expected a batch of CIFAR-10 at {path}, but got: {error.strerror}; download the set"
            " again"
        ) from None
    try:
        return _Machine().run(content)
    except _RefusedError as refusal:
        raise UserError(
            f"Expected plain values and uint8 arrays in {path}, but it holds {refusal}; do not use"
            " the file"
        ) from None
    except (
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        MemoryError,
    ):
        raise UserError(
            f"Expected a whole pickle at {path}, but it is cut off or damaged; download the set"
            " again"
        ) from None


class _Machine:
    """A stack machine for pickles, with the instructions for plain values only."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, content: bytes) -> dict[str, Any]:
        """Run every instruction and return the final dict."""
        for opcode, argument, _ in pickletools.genops(content):
            self.step(opcode.name, argument)
        left = self.stack.pop()
        if not isinstance(left, dict):
            raise TypeError
        values = {
            key: value.values if isinstance(value, _Array) else value for key, value in left.items()
        }
        return {
            key.decode("latin-1") if isinstance(key, bytes) else str(key): value
            for key, value in values.items()
        }

    def step(self, instruction: str, argument: Any) -> None:
        """Run one instruction, named as in ``pickletools``."""
        stack = self.stack
        match instruction:
            case "PROTO" | "STOP":
                pass
            case _ if instruction in CONSTANTS:
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[instruction])
            case "MARK":
                stack.append(_Mark())
            case "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_TUPLE":
                stack.append(
                    {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}[instruction]()
                )
            case "LIST":
                stack.append(self.items())
            case "TUPLE":
                stack.append(tuple(self.items()))
            case "DICT":
                items = self.items()
                stack.append({})
                self.update(items)
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(instruction[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                items = self.items()
                stack[-1].extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self.update([key, value])
            case "SETITEMS":
                self.update(self.items())
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL":
                stack.append(_resolve_name(argument))
            case "REDUCE":
                arguments, called = stack.pop(), stack.pop()
                stack.append(_resolve_call(called, arguments))
            case "BUILD":
                state = stack.pop()
                _set_state(stack[-1], state)
            case _:
                raise _RefusedError(f"the instruction {instruction}")

    def items(self) -> list[Any]:
        """Pop the items above the last mark, and the mark."""
        found: list[Any] = []
        while not isinstance(top := self.stack.pop(), _Mark):
            found.append(top)
        return found[::-1]

    def update(self, items: list[Any]) -> None:
        """Add alternating keys and values to the dict on top of the stack.

        Keys must be text or numbers, because hashing a nested tuple can take unlimited time.
        """
        pairs = (
            dict(zip(items[::2], items[1::2], strict=True))
            if all(type(k) in (str, bytes, int) for k in items[::2])
            else None
        )
        if pairs is None or not isinstance(self.stack[-1], dict):
            raise TypeError
        self.stack[-1].update(pairs)


def _resolve_name(text: str) -> _Name:
    """A name from the list of allowed names. numpy 2 writes that of its private module."""
    name = text.replace("numpy._core", "numpy.core")
    if name not in (ARRAY, NDARRAY, DTYPE):
        raise _RefusedError(f"the name {text!r:.80}")
    return _Name(name)


def _resolve_call(called: object, arguments: tuple[Any, ...]) -> _Array | _Dtype:
    """The placeholder for the result of calling a name."""
    if called == _Name(ARRAY) and arguments[0] == _Name(NDARRAY):
        return _Array()
    if called == _Name(DTYPE) and type(arguments[0]) in (str, bytes):
        return _Dtype(
            arguments[0] if isinstance(arguments[0], str) else arguments[0].decode("latin-1")
        )
    raise _RefusedError("a call")


def _set_state(place: object, state: tuple[Any, ...]) -> None:
    """Set the values of an array from its state (numpy's version 1).

    The state of an element type is ignored, because only bytes are allowed.
    """
    if isinstance(place, _Dtype):
        return
    if not isinstance(place, _Array):
        raise _RefusedError("a change to an object")
    version, shape, dtype, fortran, raw = state
    if dtype != _Dtype("u1") or fortran or version != 1:
        raise _RefusedError("an array of something else than uint8")
    # Python 2 had one type for both
    content = raw.encode("latin-1") if isinstance(raw, str) else raw
    place.values = np.frombuffer(content, np.uint8).reshape(shape)
