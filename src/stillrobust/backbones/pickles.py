"""An interpreter of untrusted pickles, which imports and calls nothing that a file names.

A pickle is a program for a small stack machine. Python's own machine imports and calls the names in
the program. This one has dicts, lists, tuples, numbers, text and the few names that make up a
tensor. Everything else, such as an optimizer or an argparse namespace, becomes a placeholder, which
keeps the name of its class for messages. Tensors become descriptions, which
``stillrobust.backbones.reader`` checks against the file before it reads their numbers.

Opcodes: CPython's Lib/pickletools.py, whose ``genops`` splits the stream. Containers: PyTorch's
torch/serialization.py.
"""

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

import torch

# of one pickle; that of a ResNet-50 with its optimizer has 0.2 MB, without the numbers themselves
MAX_BYTES = 64 << 20
MAX_STEPS = 500_000  # opcodes of one pickle; a ResNet-50 with its optimizer has 20,000
MAX_NUMEL = 1 << 40  # of a run of numbers: beyond any weight file
MAX_SCRIPT_DEPTH = 64  # of modules within modules of TorchScript
SCRIPT = "__torch__"  # how TorchScript names the classes of its modules
MAX_ATTRIBUTES = 64  # of an object that are searched for a model

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


class Buildable:
    """A value made by a known global, which the pickle completes with a state."""

    def build(self, state: Any) -> None:
        """Complete the value with its state."""
        raise NotImplementedError


class RefusedFileError(ValueError):
    """A file holds no weights that can be read safely.

    Args:
        reason: What was found, as a clause about "it".
        advice: What to do, as an imperative; empty for the general advice.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.advice = advice


class Unknown(Buildable):
    """The placeholder for everything but plain data and tensors.

    Args:
        name: What made the value, such as ``torchvision.models.resnet.ResNet``; empty if the pickle
            does not say.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name.replace(" ", ".")
        self.holds_model = False
        """Whether it is a torch module, or an object with one, such as an average of weights."""

    def build(self, state: Any) -> None:
        """Drop the state; only note whether it is a module's."""
        if isinstance(state, tuple) and state:
            state = state[0]  # (attributes, slots)
        if isinstance(state, dict):
            self.holds_model = {"_parameters", "_modules"} <= state.keys() or any(
                isinstance(value, Unknown) and value.holds_model
                for value in islice(state.values(), MAX_ATTRIBUTES)
            )


class ScriptModule(Buildable):
    """A module of TorchScript: its attributes by name. Its code is elsewhere and is not read."""

    def __init__(self) -> None:
        self.attributes: dict[Any, Any] = {}

    def build(self, state: Any) -> None:
        """Keep the attributes."""
        if isinstance(state, dict):
            self.attributes = state

    def tensors(self) -> dict[str, Any]:
        """The tensors of the module and of those inside it, named as in a state dict.

        Raises:
            RefusedFileError: If modules are nested too deeply, or in each other.
        """
        found: dict[str, Any] = {}
        waiting: list[tuple[str, int, ScriptModule]] = [("", 0, self)]
        for count in range(MAX_STEPS):
            if not waiting:
                return found
            prefix, depth, module = waiting.pop()
            for name, value in module.attributes.items():
                if isinstance(value, TensorRef):
                    found[f"{prefix}{name}"] = value
                elif isinstance(value, ScriptModule):
                    waiting.append((f"{prefix}{name}.", depth + 1, value))
            if depth > MAX_SCRIPT_DEPTH or count + len(waiting) > MAX_STEPS:
                break
        raise RefusedFileError("its modules are nested too deeply")


@dataclass(frozen=True)
class _Name:
    """A global that the pickle names; it is only compared, never imported."""

    text: str


@dataclass(frozen=True)
class StorageRef:
    """A storage, as the file claims it: ``numel`` numbers under ``key``."""

    dtype: torch.dtype
    key: str
    numel: int


@dataclass(frozen=True)
class TensorRef:
    """A tensor, as the file claims it: a view of a storage. Nothing is checked yet."""

    storage: StorageRef
    offset: Any
    size: Any
    stride: Any


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
    if isinstance(storage, StorageRef):
        return TensorRef(storage, offset, size, stride)
    return Unknown(storage.name if isinstance(storage, Unknown) else "")


def _tensor_of_dtype(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> Any:
    """A tensor of a type without a storage class, such as float8; none of them is read."""
    return Unknown(dtype.text if isinstance(dtype, _Name) else "")


def _mapping(pairs: Any = ()) -> Any:
    return (
        {_key(key): value for key, value in pairs} if isinstance(pairs, list | tuple) else Unknown()
    )


Globals = Mapping[str, Callable[..., Any]]
# the only globals with a meaning; the functions are ours and make plain data
KNOWN_GLOBALS: Globals = {
    "collections OrderedDict": _mapping,
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils _rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils _rebuild_parameter_with_state": lambda tensor, *_: tensor,
    "torch Size": lambda size: size,
}


def _key(value: Any) -> Any:
    """A key of a dict. Nested values become unknown, since hashing them could recurse deeply."""
    return value if isinstance(value, str | int | float | bool | None) else Unknown()


def _storage(described: Any) -> Any:
    """A reference from ("storage", class, key, location, numel); views of storages are unknown.

    PyTorch's older streams refer to modules too: ("module", class, file, source).
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
        return Unknown(kind.text if isinstance(kind, _Name) else "")
    if isinstance(described, tuple) and len(described) > 1 and described[0] == "module":
        return described[1]
    return Unknown()


class _Machine:
    """The state of the stack machine for one pickle: stack, marks and memo."""

    def __init__(self, known: Globals) -> None:
        self.known = known
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, StorageRef] = {}

    def pop(self, count: int) -> list[Any]:
        """Remove and return the last ``count`` values, in order."""
        floor = self.marks[-1] if self.marks else 0
        if len(self.stack) - count < floor:
            raise RefusedFileError("its pickle takes more from the stack than there is")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def since_mark(self) -> list[Any]:
        """Remove and return the values since the last mark."""
        mark = self.marks.pop()
        taken = self.stack[mark:]
        del self.stack[mark:]
        return taken

    def extend(self, values: list[Any]) -> None:
        """Add values to the list on top of the stack."""
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)

    def update(self, values: list[Any]) -> None:
        """Add alternating keys and values to the dict on top of the stack."""
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(
                (_key(key), value) for key, value in zip(values[::2], values[1::2], strict=True)
            )

    def unknown(self, _: list[Any]) -> None:
        """Push a placeholder."""
        self.stack.append(Unknown())

    def new_dict(self, values: list[Any]) -> None:
        """Push a dict of alternating keys and values."""
        self.stack.append({})
        self.update(values)

    def call(self, function: Any, arguments: Any) -> None:
        """Push the value of a known global for its arguments, or a placeholder."""
        name = function.text if isinstance(function, _Name) else ""
        known = self.known.get(name)
        if known is None and name.split(" ")[0].split(".")[0] == SCRIPT:
            self.stack.append(ScriptModule())
            return
        self.stack.append(
            known(*arguments)
            if known is not None and isinstance(arguments, tuple)
            else Unknown(name)
        )

    def build(self, state: Any) -> None:
        """Complete the value on top of the stack; a dict or a list drops the state."""
        if self.stack and isinstance(self.stack[-1], Buildable):
            self.stack[-1].build(state)

    def persistent(self, described: Any) -> None:
        """Push a reference to a storage."""
        storage = _storage(described)
        if (
            isinstance(storage, StorageRef)
            and self.storages.setdefault(storage.key, storage) != storage
        ):
            raise RefusedFileError("it describes one run of numbers in two ways")
        self.stack.append(storage)


_LITERALS = (
    "INT",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG",
    "LONG1",
    "LONG4",
    "FLOAT",
    "BINFLOAT",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
    "BYTEARRAY8",
    "UNICODE",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
)
_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    **dict.fromkeys(_LITERALS, lambda m, value: m.stack.append(value)),
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_SET": lambda m, _: m.stack.append(Unknown()),
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
        ("EXT1", "EXT2", "EXT4", "PERSID", "NEXT_BUFFER"), lambda m, _: m.stack.append(Unknown())
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
        _Name(f"{module} {name}")
        if isinstance(module, str) and isinstance(name, str)
        else Unknown()
    )


class _Bounded:
    """A file of which at most ``MAX_BYTES`` can be read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.left = file, MAX_BYTES

    def _spend(self, data: bytes) -> bytes:
        self.left -= len(data)
        if self.left < 0:
            raise RefusedFileError(f"its pickle is larger than {MAX_BYTES >> 20} MB")
        return data

    def read(self, count: int) -> bytes:
        """Read at most one byte more than is left, which is enough to detect an excess."""
        return self._spend(self.file.read(min(count, self.left + 1)))

    def readline(self) -> bytes:
        """Read a line, and at most one byte more than is left."""
        return self._spend(self.file.readline(self.left + 1))


def interpret(file: IO[bytes], known: Globals = KNOWN_GLOBALS) -> tuple[Any, dict[str, StorageRef]]:
    """Interpret the pickle at the position of a file, and leave the position after it.

    Args:
        file: A file opened for reading bytes.
        known: Globals with a meaning, and the function that stands for each.

    Returns:
        The data, and the storages that it refers to, by key.

    Raises:
        RefusedFileError: If the pickle exceeds ``MAX_BYTES`` or ``MAX_STEPS``, or is not safe.
            Whatever is no pickle or cut off may raise Python's own errors too.
    """
    machine = _Machine(known)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(_Bounded(file))):  # type: ignore[arg-type]
        if count >= MAX_STEPS:
            raise RefusedFileError(f"its pickle takes more than {MAX_STEPS} steps")
        if opcode.name == "STOP":
            return machine.pop(1)[0], machine.storages
        _STEPS[opcode.name](machine, argument)
    raise RefusedFileError("its pickle has no end")
