"""The reader of untrusted weight files, which runs no code of theirs.

It reads safetensors, PyTorch's zip archives (since 1.6), TorchScript's included, PyTorch's older
streams, and archives of NumPy arrays. ``stillrobust.backbones.pickles`` interprets their pickles,
dill's included, and ``stillrobust.backbones.containers`` finds the weights among the entries. The
result holds tensors only. Sizes are checked against the file before memory is allocated, so that
reading takes no more memory than twice the size of the file, plus the pickle.
"""

import hashlib
import io
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import IO, Any

import torch

from stillrobust.backbones.containers import AmbiguousFileError, Found, find_state
from stillrobust.backbones.file_kinds import refuse_foreign_archive, refuse_foreign_file
from stillrobust.backbones.numpy_archives import is_numpy_archive, read_arrays
from stillrobust.backbones.pickles import (
    DTYPES,
    RefusedFileError,
    ScriptModule,
    StorageRef,
    TensorRef,
    Unknown,
    interpret,
)
from stillrobust.errors import UserError
from stillrobust.storage.files import bytes_sha256
from stillrobust.untrusted import printable

State = dict[str, torch.Tensor]
MAX_FILE = 32 << 30  # bytes: beyond the weights of any vision model
MAX_HEADER = 16 << 20  # of a safetensors file; a ResNet-50's has 30 kB
MAX_DIMENSIONS = 16
MAX_REASON = 300  # characters; names in the file may be of any length
MAX_ENTRIES = 100_000  # files in a zip archive; a ResNet-50 with its optimizer has 700
MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py MAGIC_NUMBER: how the older stream begins
PROTOCOL = 1001  # torch/serialization.py PROTOCOL_VERSION
ZIP_SIGNATURE = b"PK\x03\x04"
# of a zip entry (APPNOTE 4.3.7); the last two are the lengths of name and extra
LOCAL_HEADER = struct.Struct("<4s5H3L2H")


@dataclass(frozen=True)
class WeightFile:
    """The weights in a file, and the hash of the bytes that they were read from."""

    tensors: State
    """By the names that they have in the file, below ``place``."""
    place: str
    """Path of the weights in the file; see ``stillrobust.backbones.containers``."""
    sha256: str
    """SHA-256 (hex) of the whole file."""


def read_weights(path: Path, key: str = "") -> WeightFile:
    """Read the tensors of a weight file. The file is read once, so that the hash is theirs.

    Args:
        path: A safetensors or PyTorch file.
        key: Path of the weights in the file, such as ``model_ema``; empty to find them.

    Returns:
        The tensors, and the SHA-256 of the file.

    Raises:
        UserError: If there is no such file, or it holds anything but tensors, or several sets of
            them.
    """
    require_file(path)
    try:
        return _read_file(path, key)
    # a broken or hostile file may raise anything
    except Exception as error:
        raise unreadable_error(path, error) from None


def unreadable_error(path: Path, error: Exception) -> UserError:
    """The error for a file whose weights cannot be read, in one sentence.

    Args:
        path: The file.
        error: What happened; a ``RefusedFileError`` has the reason and what to do.
    """
    general = "check its permissions" if isinstance(error, OSError) else "get the file again"
    advice = getattr(error, "advice", "") or general
    return UserError(
        f"Expected weights in {path} (a state dict, as safetensors or a PyTorch file), but"
        f" {_reason(error)}; {printable(advice)[:MAX_REASON]}"
    )


def kind_of_path(path: Path) -> str:
    """What is at a path: ``a file``, ``a folder``, ``something else``, or ``nothing``."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # also a name that is too long, or no name at all
        return "nothing"
    return "a file" if S_ISREG(mode) else "a folder" if S_ISDIR(mode) else "something else"


def require_file(path: Path) -> None:
    """Raise ``UserError`` for a path of weights that is no file."""
    kind = kind_of_path(path)
    if kind != "a file":
        raise UserError(f"Expected a weight file at {path}, but there is {kind}; check the path")


def unreadable_reason(path: Path) -> str:
    """Why a file is no weight file, in a few words; empty if it is one."""
    try:
        _read_file(path)
    except AmbiguousFileError:
        return ""
    except Exception as error:
        return _reason(error)
    return ""


def _read_file(path: Path, key: str = "") -> WeightFile:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_FILE:
            raise RefusedFileError(f"it is larger than {MAX_FILE >> 30} GiB")
        content = file.read(size)
    found = _read(content, path.name, key)
    for name, value in found.tensors.items():
        if value.dtype not in DTYPES.values():
            raise RefusedFileError(
                f"its {name[:60]!r} is stored as {value.dtype}, which is not read",
                "save the state_dict() as float32",
            )
    return WeightFile(dict(found.tensors), found.path, bytes_sha256(content))


def _reason(error: Exception) -> str:
    """One printable line, whatever text the file holds."""
    if isinstance(error, RefusedFileError):
        return printable(str(error))[:MAX_REASON]
    if isinstance(error, OSError):
        return f"it cannot be read ({error.strerror or type(error).__name__})"
    return f"it is cut off or damaged ({type(error).__name__})"


def _read(content: bytes, name: str, key: str) -> Found:
    if not content:
        raise RefusedFileError("it is empty")
    # the length of a safetensors header, at most MAX_HEADER, ends with zeros
    if content[8:9] == b"{" and content[5:8] == b"\0\0\0":
        return find_state(_read_safetensors(content), key)
    refuse_foreign_file(content, name)
    file = io.BytesIO(content)
    if content.startswith(ZIP_SIGNATURE):
        return _read_zip(file, len(content), key)
    if content.startswith(b"\x80"):  # a pickle of protocol 2 or above
        return _read_stream(file, len(content), key)
    raise RefusedFileError("it begins like no weight file")


def _read_safetensors(content: bytes) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load

    (length,) = struct.unpack("<Q", content[:8])
    if length > min(len(content) - 8, MAX_HEADER):
        raise RefusedFileError(
            f"its header claims {length} bytes of the file's {len(content)}; it may be cut off"
        )
    try:
        return load(content)
    except SafetensorError as error:
        raise RefusedFileError(f"it is cut off, or its header is wrong ({error})") from None


def _read_zip(file: IO[bytes], size: int, key: str) -> Found:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile:
        raise RefusedFileError("it is cut off: it begins like a PyTorch file") from None
    if len(entries) <= MAX_ENTRIES:
        if is_numpy_archive(entry.filename for entry in entries):
            return find_state(read_arrays(file), key)
        refuse_foreign_archive(entry.filename for entry in entries)
        # TorchScript compresses its code, which is not read
        entries = [entry for entry in entries if "/code/" not in entry.filename]
    # PyTorch never compresses weights, and no two entries share bytes: more is a zip bomb
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
    if isinstance(content, ScriptModule):
        content = content.tensors()

    def fetch(storage: StorageRef) -> bytearray:
        entry = names.get(f"{folder}data/{storage.key}")
        if entry is None:
            raise RefusedFileError("the numbers of a tensor are not in it")
        return _entry(file, entry, size)

    return _tensors(content, key, fetch)


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


def _read_stream(file: IO[bytes], size: int, key: str) -> Found:
    """PyTorch before 1.6: magic number, version, machine, content, storage keys, then storages."""
    first, _ = interpret(file)
    if first != MAGIC or interpret(file)[0] != PROTOCOL:
        model = isinstance(first, Unknown) and first.holds_model
        raise RefusedFileError(
            f"it is a plain pickle {'of a whole model ' if model else ''}instead of a PyTorch file",
            "load it where you trust it, and save its tensors by name with torch.save",
        )
    machine, _ = interpret(file)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise RefusedFileError("its numbers are not little-endian")
    content, storages = interpret(file)
    keys, _ = interpret(file)
    if not isinstance(keys, list):
        raise RefusedFileError("it does not say where its tensors are")
    places: dict[str, int] = {}
    for name in keys:
        storage = storages.get(name) if isinstance(name, str) else None
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

    return _tensors(content, key, fetch)


def _tensors(content: Any, key: str, fetch: Callable[[StorageRef], bytearray]) -> Found:
    """The weights that ``content`` describes, as views of storages that are read once each."""
    found = find_state(content, key)
    read: dict[str, torch.Tensor] = {}
    state: State = {}
    for name, described in found.tensors.items():
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
        state[name] = _view(read[storage.key], described)
    return Found(state, found.path)


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
