"""The reader of untrusted weight files, which runs no code of theirs.

It reads three containers: safetensors, PyTorch's zip archives (since 1.6), and PyTorch's older
streams. ``stillrobust.backbones.pickles`` interprets their pickles, dill's included. The result
holds tensors only. Sizes are checked against the file before memory is allocated, so that reading
takes no more memory than the size of the file, plus the pickle.
"""

import hashlib
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch

from stillrobust.backbones.pickles import RefusedFileError, StorageRef, TensorRef, interpret
from stillrobust.errors import UserError

State = dict[str, torch.Tensor]
CONTAINERS = ("state_dict", "model_state_dict", "model")
"""Entries that hold the weights: of Lightning and DeepAugment, of ANT, of MadryLab and Swin."""
MAX_HEADER = 16 << 20  # of a safetensors file; a ResNet-50's has 30 kB
MAX_NAMES = 6  # of tensors in an error
MAX_DIMENSIONS = 16
MAX_ENTRIES = 100_000  # files in a zip archive; a ResNet-50 with its optimizer has 700
MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py MAGIC_NUMBER: how the older stream begins
PROTOCOL = 1001  # torch/serialization.py PROTOCOL_VERSION
ZIP_SIGNATURE = b"PK\x03\x04"
# of a zip entry (APPNOTE 4.3.7); the last two are the lengths of name and extra
LOCAL_HEADER = struct.Struct("<4s5H3L2H")


def read_state(path: Path) -> State:
    """Read the tensors of a weight file.

    Args:
        path: A safetensors or PyTorch file.

    Returns:
        Tensors by name.

    Raises:
        UserError: If there is no such file, or it holds anything but tensors.
    """
    if not path.is_file():
        kind = "something else than a file" if path.exists() else "nothing"
        raise UserError(f"Expected a weight file at {path}, but there is {kind}; check the path")
    state = _state_or_reason(path)
    if isinstance(state, str):
        raise UserError(
            f"Expected weights in {path} (safetensors, or a PyTorch file that holds tensors), but"
            f" it cannot be read safely: {state}; get the file again, or convert it to safetensors"
            " where you trust it"
        )
    return state


def unreadable_reason(path: Path) -> str:
    """Why a file is no weight file, in a few words; empty if it is one."""
    state = _state_or_reason(path)
    return state if isinstance(state, str) else ""


def _state_or_reason(path: Path) -> State | str:
    try:
        with path.open("rb") as file:
            return _read(file, path.stat().st_size)
    # a broken or hostile file may raise anything
    except Exception as error:
        return _reason(error)


def _reason(error: Exception) -> str:
    """One printable line, whatever text the file holds."""
    text = (
        str(error) if isinstance(error, RefusedFileError) else ""
    ) or f"it is cut off or damaged ({type(error).__name__})"
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:200]


def _read(file: IO[bytes], size: int) -> State:
    start = file.read(9)
    file.seek(0)
    if start[:4] == ZIP_SIGNATURE:
        return _read_zip(file, size)
    if start[:1] == b"\x80":  # a pickle of protocol 2 or above
        return _read_stream(file, size)
    if start[8:9] == b"{":
        return _read_safetensors(file, size)
    raise RefusedFileError("it begins like no weight file" if start else "it is empty")


def _read_safetensors(file: IO[bytes], size: int) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    (length,) = struct.unpack("<Q", file.read(8))
    if length > min(size - 8, MAX_HEADER):
        raise RefusedFileError(f"its header claims {length} bytes of the file's {size}")
    try:
        return load_file(file.name)
    except SafetensorError as error:
        raise RefusedFileError(f"its header does not fit the file ({error})") from None


def _read_zip(file: IO[bytes], size: int) -> State:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    # PyTorch never compresses, and no two entries share bytes: larger claims are a zip bomb
    if len(entries) > MAX_ENTRIES or sum(entry.file_size for entry in entries) > size:
        raise RefusedFileError("its entries claim more bytes than the file has")
    if any(
        entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size
        for entry in entries
    ):
        raise RefusedFileError("its entries are compressed, which PyTorch never does")
    names = {entry.filename: entry for entry in entries}
    pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1 or len(names) != len(entries):
        raise RefusedFileError("it is a zip archive, but not one that PyTorch wrote")
    folder = pickles[0].removesuffix("data.pkl")
    order = names.get(f"{folder}byteorder")
    if order is not None and _entry(file, order, size) != b"little":
        raise RefusedFileError("its numbers are not little-endian")
    # the pickle ends with its STOP; bytes after it are never read
    file.seek(_entry_start(file, names[pickles[0]], size))
    content, _ = interpret(file)

    def fetch(storage: StorageRef) -> bytearray:
        entry = names.get(f"{folder}data/{storage.key}")
        if entry is None:
            raise RefusedFileError("the numbers of a tensor are not in it")
        return _entry(file, entry, size)

    return _tensors(content, fetch)


def _entry_start(file: IO[bytes], entry: zipfile.ZipInfo, size: int) -> int:
    file.seek(entry.header_offset)
    signature, *_, name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
    start = entry.header_offset + LOCAL_HEADER.size + int(name_length) + int(extra_length)
    if signature != ZIP_SIGNATURE or start + entry.file_size > size:
        raise RefusedFileError("its table of contents does not fit the file")
    return start


def _entry(file: IO[bytes], entry: zipfile.ZipInfo, size: int) -> bytearray:
    """The bytes of a stored entry, without zipfile: PyTorch may omit the checksums."""
    return _bytes(file, _entry_start(file, entry, size), entry.file_size)


def _bytes(file: IO[bytes], start: int, count: int) -> bytearray:
    """``count`` bytes from ``start``; the caller has checked that they lie inside the file."""
    data = bytearray(count)
    file.seek(start)
    if file.readinto(data) != count:  # type: ignore[attr-defined]
        raise RefusedFileError("it is cut off")
    return data


def _read_stream(file: IO[bytes], size: int) -> State:
    """PyTorch before 1.6: magic number, version, machine, content, storage keys, then storages."""
    if interpret(file)[0] != MAGIC or interpret(file)[0] != PROTOCOL:
        raise RefusedFileError("it is a pickle, but not one that PyTorch wrote")
    machine, _ = interpret(file)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise RefusedFileError("its numbers are not little-endian")
    content, storages = interpret(file)
    keys, _ = interpret(file)
    if not isinstance(keys, list):
        raise RefusedFileError("it does not say where its tensors are")
    places: dict[str, int] = {}
    for key in keys:
        storage = storages.get(key) if isinstance(key, str) else None
        (numel,) = struct.unpack("<q", file.read(8))
        if (
            storage is None
            or numel != storage.numel
            or file.tell() + numel * storage.dtype.itemsize > size
        ):
            raise RefusedFileError("it is cut off, or its tensors are not where it says")
        places[storage.key] = file.tell()
        file.seek(numel * storage.dtype.itemsize, 1)

    def fetch(storage: StorageRef) -> bytearray:
        if storage.key not in places:
            raise RefusedFileError("the numbers of a tensor are not in it")
        return _bytes(file, places[storage.key], storage.numel * storage.dtype.itemsize)

    return _tensors(content, fetch)


def _tensors(content: Any, fetch: Callable[[StorageRef], bytearray]) -> State:
    """The tensors that ``content`` describes, as views of storages that are read once each."""
    read: dict[str, torch.Tensor] = {}
    state: State = {}
    for name, described in unwrap(content).items():
        if not isinstance(described, TensorRef):
            raise RefusedFileError(f"it has no tensor under {str(name)[:60]!r}")
        storage = described.storage
        if storage.key not in read:
            data = fetch(storage)
            if len(data) != storage.numel * storage.dtype.itemsize:
                raise RefusedFileError("the length of a tensor's numbers is not what it says")
            read[storage.key] = (
                torch.frombuffer(data, dtype=storage.dtype)
                if data
                else torch.empty(0, dtype=storage.dtype)
            )
        state[str(name)] = _view(read[storage.key], described)
    return state


def _view(numbers: torch.Tensor, described: TensorRef) -> torch.Tensor:
    """The tensor as a view of its storage, inside the storage and not larger than it."""
    size, stride, offset = described.size, described.stride, described.offset
    if not (
        isinstance(size, tuple)
        and isinstance(stride, tuple)
        and len(size) == len(stride) <= MAX_DIMENSIONS
    ):
        raise RefusedFileError("a tensor has no proper size")
    if not all(
        isinstance(number, int) and 0 <= number < 1 << 48 for number in (*size, *stride, offset)
    ):
        raise RefusedFileError("a tensor has no proper size")
    count, last = 1, offset
    for length, step in zip(size, stride, strict=True):
        count *= length
        last += max(length - 1, 0) * step
    if count > len(numbers) or (count and last >= len(numbers)):
        raise RefusedFileError("a tensor claims more numbers than it has")
    return numbers.as_strided(size, stride, offset) if count else numbers.new_empty(size)


def unwrap(content: Any) -> Mapping[Any, Any]:
    """Unwrap a container such as ``{"state_dict": {...}, "epoch": 90}``.

    Args:
        content: What a file holds.

    Returns:
        The tensors by name; the content itself if it is no container.

    Raises:
        RefusedFileError: If it is no mapping.
    """
    for name in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping) or not content:
        raise RefusedFileError("it holds no tensors by name")
    return content


def digest(state: Mapping[str, torch.Tensor]) -> str:
    """The identity of weights, whichever file they came from.

    Args:
        state: Tensors by name.

    Returns:
        SHA-256 (hex) of names, dtypes, shapes and values.
    """
    total = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def load_strictly(
    model: torch.nn.Module,
    state: Mapping[str, torch.Tensor],
    source: str,
    may_lack: tuple[str, ...] = (),
) -> int:
    """Load tensors into a model; every tensor must match by name and shape.

    Args:
        model: The model to load into.
        state: Tensors by name.
        source: Name of the file for messages.
        may_lack: Beginnings of names that ``state`` need not have; the model keeps its own values.

    Returns:
        The number of tensors loaded.

    Raises:
        UserError: If tensors are missing, left over, of another shape, or not finite. It names
            them.
    """
    own = model.state_dict()
    # files older than PyTorch 0.4.1 have no batch counters; position indices are computed
    optional = {
        name for name in own if name.endswith(("num_batches_tracked", "relative_position_index"))
    }
    optional |= {name for name in own if may_lack and name.startswith(may_lack)}
    missing = sorted(own.keys() - state.keys() - optional)
    extra = sorted(state.keys() - own.keys())
    shapes = sorted(
        name for name in own.keys() & state.keys() if own[name].shape != state[name].shape
    )
    if missing or extra or shapes:
        parts = [
            f"{len(names)} {what} ({tensor_names(names)})"
            for what, names in (
                ("missing", missing),
                ("left over", extra),
                ("of another shape", shapes),
            )
            if names
        ]
        raise UserError(
            f"Expected weights that fit the model exactly, but in {source} the tensors are"
            f" {'; '.join(parts)}; take a file of this architecture, or name the one that the file"
            " belongs to"
        )
    if wild := sorted(
        name
        for name, value in state.items()
        if value.is_floating_point() and not bool(value.isfinite().all())
    ):
        raise UserError(
            f"Expected finite weights in {source}, but NaN or infinity is in {tensor_names(wild)};"
            " get the file again"
        )
    model.load_state_dict(dict(state), strict=False)
    return len(state)


def tensor_names(names: Sequence[str]) -> str:
    """The first few names of tensors as printable text, for messages."""
    clean = [
        "".join(letter if letter.isprintable() else "?" for letter in name)[:80]
        for name in names[:MAX_NAMES]
    ]
    return ", ".join(clean) + (", ..." if len(names) > MAX_NAMES else "")
