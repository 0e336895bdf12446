"""Pickles of strangers, interpreted: nothing that a file names is ever imported, and nothing is
ever called.

A pickle is a program for a small stack machine. Python's own machine imports and calls what the
program names; this one knows dicts, lists, tuples, numbers, text and the few names that make up a
tensor, and puts ``UNKNOWN`` in the place of everything else (an optimizer, an argparse namespace,
whatever dill packed). Tensors come out as descriptions, whose numbers
``stillrobust.backbones.reader`` checks against the file before a byte of them is read.

Opcodes: CPython's Lib/pickletools.py, whose ``genops`` splits the stream. Containers: PyTorch's
torch/serialization.py.
"""

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

import torch

# of one pickle; a ResNet-50 with its optimizer has 0.2 MB, the numbers themselves lie elsewhere
MAX_BYTES = 64 << 20
MAX_STEPS = 500_000  # opcodes of one pickle; a ResNet-50 with its optimizer has 20,000
MAX_NUMEL = 1 << 40  # of a run of numbers: beyond any weight file

# The storage classes that torch.save names (torch/storage.py, _storage_type_to_dtype_map), less
# complex and quantised ones.
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Unfinished:
    """What a name of a reader's own made and the pickle completes with a state."""

    def complete(self, state: Any) -> None:
        """Take the state."""
        raise NotImplementedError


class RefusedFileError(ValueError):
    """A file is not what a weight file may be; the text says how."""


class _Unknown:
    """What takes the place of everything that is no plain data and no tensor."""

    def __repr__(self) -> str:
        return "something else"


UNKNOWN = _Unknown()


@dataclass(frozen=True)
class _Name:
    """A global that the pickle names; only compared, never looked up."""

    text: str


@dataclass(frozen=True)
class StorageRef:
    """A flat run of numbers that, as the file claims, lies elsewhere in it."""

    dtype: torch.dtype
    key: str
    numel: int


@dataclass(frozen=True)
class TensorRef:
    """A view of a storage, as the file claims it. Nothing in it is checked yet."""

    storage: StorageRef
    offset: Any
    size: Any
    stride: Any


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
    return TensorRef(storage, offset, size, stride) if isinstance(storage, StorageRef) else UNKNOWN


def _mapping(pairs: Any = ()) -> Any:
    return (
        {_key(key): value for key, value in pairs} if isinstance(pairs, list | tuple) else UNKNOWN
    )


Known = Mapping[str, Callable[..., Any]]
# The only names that mean anything; their values are ours and make plain data.
KNOWN: Known = {
    "collections OrderedDict": _mapping,
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils _rebuild_parameter_with_state": lambda tensor, *_: tensor,
    "torch Size": lambda size: size,
}


def _key(value: Any) -> Any:
    """Keys are text or numbers: hashing something nested could go as deep as a hostile file likes."""
    return value if isinstance(value, str | int | float | bool | None) else UNKNOWN


def _storage(described: Any) -> Any:
    """("storage", class, key, location, numel) of both containers; the older one may add a view,
    which no weights have.
    """
    if isinstance(described, tuple) and len(described) >= 5 and described[0] == "storage":
        _, kind, key, _, numel, *view = described
        dtype = DTYPES.get(kind.text.removeprefix("torch ")) if isinstance(kind, _Name) else None
        if isinstance(numel, int) and not 0 <= numel < MAX_NUMEL:
            raise RefusedFileError("it claims a run of impossible length")
        if (
            dtype is not None
            and isinstance(key, str)
            and isinstance(numel, int)
            and not any(part is not None for part in view)
        ):
            return StorageRef(dtype, key, numel)
    return UNKNOWN


class _Machine:
    """Stack, marks and memo of one pickle."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, StorageRef] = {}

    def pop(self, count: int) -> list[Any]:
        """The last ``count`` values, in order."""
        floor = self.marks[-1] if self.marks else 0
        if len(self.stack) - count < floor:
            raise RefusedFileError("its pickle takes more from the stack than there is")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def since_mark(self) -> list[Any]:
        """What was pushed since the last mark."""
        mark = self.marks.pop()
        taken = self.stack[mark:]
        del self.stack[mark:]
        return taken

    def extend(self, values: list[Any]) -> None:
        """Add to the list that lies on top."""
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)

    def update(self, values: list[Any]) -> None:
        """Add alternating keys and values to the dict that lies on top."""
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(
                (_key(key), value) for key, value in zip(values[::2], values[1::2], strict=True)
            )

    def unknown(self, _: list[Any]) -> None:
        """Something else, in the place of what was taken."""
        self.stack.append(UNKNOWN)

    def new_dict(self, values: list[Any]) -> None:
        """A dict of alternating keys and values."""
        self.stack.append({})
        self.update(values)

    def call(self, function: Any, arguments: Any) -> None:
        """What a known name makes of its arguments."""
        known = self.known.get(function.text) if isinstance(function, _Name) else None
        self.stack.append(
            known(*arguments) if known is not None and isinstance(arguments, tuple) else UNKNOWN
        )

    def build(self, state: Any) -> None:
        """The state of an object: a dict's or a tensor's extras, or what belongs to UNKNOWN, is
        left out.
        """
        if self.stack and isinstance(self.stack[-1], Unfinished):
            self.stack[-1].complete(state)

    def persistent(self, described: Any) -> None:
        """A storage, by reference."""
        storage = _storage(described)
        if (
            isinstance(storage, StorageRef)
            and self.storages.setdefault(storage.key, storage) != storage
        ):
            raise RefusedFileError("it describes one run of numbers in two ways")
        self.stack.append(storage)


_LITERALS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
             "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "BINUNICODE",
             "SHORT_BINUNICODE", "BINUNICODE8")  # fmt: skip
_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    **dict.fromkeys(_LITERALS, lambda m, value: m.stack.append(value)),
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_SET": lambda m, _: m.stack.append(UNKNOWN),
    "LIST": lambda m, _: m.stack.append(m.since_mark()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.since_mark())),
    "DICT": lambda m, _: m.new_dict(m.since_mark()),
    "FROZENSET": lambda m, _: m.unknown(m.since_mark()),
    "TUPLE1": lambda m, _: m.stack.append(tuple(m.pop(1))),
    "TUPLE2": lambda m, _: m.stack.append(tuple(m.pop(2))),
    "TUPLE3": lambda m, _: m.stack.append(tuple(m.pop(3))),
    "APPEND": lambda m, _: m.extend(m.pop(1)),
    "APPENDS": lambda m, _: m.extend(m.since_mark()),
    "ADDITEMS": lambda m, _: m.since_mark(),
    "SETITEM": lambda m, _: m.update(m.pop(2)),
    "SETITEMS": lambda m, _: m.update(m.since_mark()),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": lambda m, _: m.marks.pop() if m.marks and m.marks[-1] == len(m.stack) else m.pop(1),
    "POP_MARK": lambda m, _: m.since_mark(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    **dict.fromkeys(
        ("PUT", "BINPUT", "LONG_BINPUT"), lambda m, place: m.memo.update({place: m.stack[-1]})
    ),
    "MEMOIZE": lambda m, _: m.memo.update({len(m.memo): m.stack[-1]}),
    **dict.fromkeys(
        ("GET", "BINGET", "LONG_BINGET"), lambda m, place: m.stack.append(m.memo[place])
    ),
    "GLOBAL": lambda m, name: m.stack.append(_Name(name)),
    "STACK_GLOBAL": lambda m, _: m.stack.append(_named(*m.pop(2))),
    **dict.fromkeys(
        ("EXT1", "EXT2", "EXT4", "PERSID", "NEXT_BUFFER"), lambda m, _: m.stack.append(UNKNOWN)
    ),
    "BINPERSID": lambda m, _: m.persistent(*m.pop(1)),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda m, _: m.call(*m.pop(2))),
    "NEWOBJ_EX": lambda m, _: m.unknown(m.pop(3)),
    **dict.fromkeys(("INST", "OBJ"), lambda m, _: m.unknown(m.since_mark())),
    "BUILD": lambda m, _: m.build(*m.pop(1)),
    **dict.fromkeys(("PROTO", "FRAME", "READONLY_BUFFER"), lambda m, _: None),
}


def _named(module: Any, name: Any) -> Any:
    return (
        _Name(f"{module} {name}") if isinstance(module, str) and isinstance(name, str) else UNKNOWN
    )


class _Bounded:
    """The part of a file that one pickle may take."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.left = file, MAX_BYTES

    def _spend(self, data: bytes) -> bytes:
        self.left -= len(data)
        if self.left < 0:
            raise RefusedFileError(f"its pickle is larger than {MAX_BYTES >> 20} MB")
        return data

    def read(self, count: int) -> bytes:
        """As a file's; one byte more than is left is enough to know."""
        return self._spend(self.file.read(min(count, self.left + 1)))

    def readline(self) -> bytes:
        """As a file's."""
        return self._spend(self.file.readline(self.left + 1))


def interpret(file: IO[bytes], known: Known = KNOWN) -> tuple[Any, dict[str, StorageRef]]:
    """The data of the pickle that begins where ``file`` stands, and the storages it refers to;
    ``file`` then stands after it.

    ``known``: the names that mean anything, and what of ours stands for each. Raises ``RefusedFileError`` or
    one of Python's own errors for what is no pickle, is cut off, or exceeds ``MAX_BYTES`` or
    ``MAX_STEPS``.
    """
    machine = _Machine(known)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(_Bounded(file))):  # type: ignore[arg-type]
        if count >= MAX_STEPS:
            raise RefusedFileError(f"its pickle takes more than {MAX_STEPS} steps")
        if opcode.name == "STOP":
            return machine.pop(1)[0], machine.storages
        _STEPS[opcode.name](machine, argument)
    raise RefusedFileError("its pickle has no end")
