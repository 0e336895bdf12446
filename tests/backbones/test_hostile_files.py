"""Files that strangers could send: none runs anything, each ends in one sentence, soon, and in
little memory.
"""

import io
import json
import os
import pickle
import pickletools
import resource
import struct
import time
import zipfile

import pytest
import torch

from stillrobust.backbones.containers import CONTAINERS
from stillrobust.backbones.pickles import MAX_STEPS
from stillrobust.backbones.reader import read_weights
from stillrobust.errors import UserError

CONTAINER_NAMES = [name.encode() for name in CONTAINERS]
SECONDS = 20  # of CPU; the largest takes about two on an idle core
MEGABYTES = 700  # beyond what is in use before: pickles of up to 64 MB, as Python objects


def magic(content, keys=b"", machine=None):
    """PyTorch's older stream around a pickle that is given as bytes."""
    head = [
        0x1950A86A20F9469CFC6C,
        1001,
        machine or {"little_endian": True, "protocol_version": 1001, "type_sizes": {}},
    ]
    return (
        b"".join(pickle.dumps(part, 2) for part in head) + content + (keys or pickle.dumps([], 2))
    )


def archive(content, compression=zipfile.ZIP_STORED, folder="a/", **entries):
    """PyTorch's zip container around a pickle that is given as bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr(f"{folder}data.pkl", content)
        for name, data in entries.items():
            file.writestr(folder + name.replace("_", "/"), data)
    return buffer.getvalue()


def numpy_archives():
    """Archives of arrays that claim more than they have, or hold pickles."""
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }"
    files = {}
    for name, text in {
        "claims": header % "(1 << 40, 8)".replace("1 << 40", str(1 << 40)),
        "negative": header % "(-1, -4)",
        "pickled": header.replace("<f4", "|O") % "(1,)",
        "calls": "__import__('os').system('touch ran')",
        "deep": "(" * 5000,
    }.items():
        line = text.encode().ljust(118) + b"\n"
        array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(line)) + line + bytes(16)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("w.npy", array)
        files[f"{name}.npz"] = buffer.getvalue()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("w.npy", b"\x93NUMPY\x01\x00" + bytes(160 << 20))
    files["bomb.npz"] = buffer.getvalue()
    return files


def tensors(size=(2, 2), stride=(2, 1), offset=0, numel=4, key="0", kind="FloatStorage"):
    """{"w": a tensor as it is described}, as PyTorch pickles it, with any numbers in the
    description.
    """
    out = (
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n"
        + kind.encode()
    )
    out += (
        b"\n"
        + pickle.dumps(key, 2)[2:-1]
        + b"X\x03\x00\x00\x00cpu"
        + pickle.dumps(numel, 2)[2:-1]
        + b"tQ"
    )
    for part in (offset, size, stride):
        out += pickle.dumps(part, 2)[2:-1]
    return out + b"\x89ccollections\nOrderedDict\n)RtRs."


class Reduces:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def calling(module, name, *arguments, protocol=2):
    """A pickle that calls MODULE.NAME, whether it exists here or not."""
    if protocol >= 4:
        head = (
            b"\x80\x04"
            + b"".join(pickle.dumps(text, 4)[11:-1] for text in (module, name))
            + b"\x93"
        )
    else:
        head = b"\x80\x02c" + f"{module}\n{name}\n".encode()
    return head + pickle.dumps(arguments, 2)[2:-1] + b"R."


def safetensors(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def corpus(ran):
    """name -> bytes. ``ran``: a file that must never appear."""
    touch = f"touch {ran}"
    code = f"open({ran!r}, 'w')"
    calls = {
        "os_system": calling("os", "system", touch),
        "posix_system": calling("posix", "system", touch),
        "eval": calling("builtins", "eval", code),
        "exec": calling("builtins", "exec", code),
        "python2_eval": calling("__builtin__", "eval", code),
        "open": calling("builtins", "open", ran, "w"),
        "io_open": calling("io", "open", ran, "w"),
        "subprocess": calling("subprocess", "check_output", ["touch", ran]),
        "importlib": calling("importlib", "import_module", "antigravity"),
        "dunder_import": calling("builtins", "__import__", "antigravity"),
        "runpy": calling("runpy", "_run_code", code, {}),
        "torch_load": calling("torch", "load", ran),
        "torch_hub": calling("torch.hub", "load", "a/b", "c"),
        "numpy_load": calling("numpy", "load", ran),
        "copyreg": calling("copyreg", "_reconstructor", 1, 2, 3),
        "pickle_loads": calling("pickle", "loads", calling("os", "system", touch)),
        "dill_create_function": calling("dill._dill", "_create_function", 1, 2),
        "dill_load_type": calling("dill._dill", "_load_type", "CodeType"),
        "operator_attrgetter": calling("operator", "attrgetter", "system"),
        "functools_partial": calling("functools", "partial", 1),
        "ctypes": calling("ctypes", "CDLL", "libc.so.6"),
        "torch_jit": calling("torch.jit", "load", ran),
        "rebuild_by_string": calling("torch._utils", "_rebuild_tensor_v2", touch, 0, (1,), (1,)),
        "known_name_wrong_arguments": calling("torch._utils", "_rebuild_tensor_v2", 1),
        "ordered_dict_of_nonsense": calling("collections", "OrderedDict", [1, 2]),
        "stack_global": calling("os", "system", touch, protocol=4),
        "dotted_name": calling("torch", "serialization.os.system", touch, protocol=4),
        "getattr_chain": pickle.dumps(Reduces(getattr, Reduces(__import__, "os"), "system"), 2),
        "nested_globals": pickle.dumps(
            {"state_dict": {"w": Reduces(eval, code), "v": [Reduces(exec, code)]}}, 2
        ),
        "build_setstate": b"\x80\x02cos\nsystem\n)\x81}X\x01\x00\x00\x00aX\x01\x00\x00\x00bsb.",
        "inst": b"\x80\x02(X\x04\x00\x00\x00" + b"lsls" + b"ios\nsystem\n.",
        "obj": b"\x80\x02(cos\nsystem\nX\x02\x00\x00\x00lso.",
        "newobj_ex": b"\x80\x04\x8c\x02os\x8c\x06system\x93)}\x92.",
        "extension_code": b"\x80\x02\x82\x01)R.",
        "persistent_id_text": b"\x80\x02Pos.system\n.",
    }
    files = {f"{name}.stream": magic(content) for name, content in calls.items()}
    files |= {f"{name}.zip": archive(content) for name, content in list(calls.items())[::4]}
    files |= {f"{name}.bare": content for name, content in list(calls.items())[1::6]}
    numbers = struct.pack("<4f", 1, 2, 3, 4)
    claims = {
        "offset_beyond": {"offset": 1},
        "stride_beyond": {"stride": (2, 4)},
        "huge_size": {"size": (1 << 40, 1 << 40), "stride": (1, 1)},
        "expanded": {"size": (1 << 20, 1 << 20), "stride": (0, 0)},
        "negative_size": {"size": (-1, 2)},
        "negative_stride": {"stride": (-2, 1)},
        "negative_offset": {"offset": -1},
        "size_of_text": {"size": "22"},
        "unequal_lengths": {"stride": (1,)},
        "hundred_dimensions": {"size": (1,) * 100, "stride": (1,) * 100},
        "numel_beyond_file": {"numel": 1 << 33},
        "numel_negative": {"numel": -4},
        "numel_absurd": {"numel": 1 << 200},
        "other_key": {"key": "../../../etc/passwd"},
        "unknown_storage": {"kind": "QUInt8Storage"},
        "float_size": {"size": (2.0, 2.0)},
    }
    files |= {
        f"{name}.zip": archive(tensors(**how), data_0=numbers) for name, how in claims.items()
    }
    listed = pickle.dumps(["0"], 2)
    files["numel_beyond.stream"] = magic(
        tensors(numel=1 << 39), listed + struct.pack("<q", 1 << 39)
    )
    files["numel_differs.stream"] = magic(tensors(), listed + struct.pack("<q", 5) + numbers)
    files["numel_negative.stream"] = magic(
        tensors(numel=4), listed + struct.pack("<q", -1) + numbers
    )
    files["no_keys.stream"] = magic(tensors(), pickle.dumps({"0": 1}, 2))
    files["big_endian.stream"] = magic(tensors(), machine={"little_endian": False})
    files["big_endian.zip"] = archive(tensors(), data_0=numbers, byteorder=b"big")
    files["storage_in_two_ways.zip"] = archive(
        tensors()[:-1] + tensors(numel=5)[2:-1] + b"0.", data_0=numbers
    )
    files["compressed.zip"] = archive(tensors(), zipfile.ZIP_DEFLATED, data_0=numbers)
    files["bomb_pickle.zip"] = archive(b"\x80\x02" + b"N" * (80 << 20) + b".", zipfile.ZIP_DEFLATED)
    files["bomb_numbers.zip"] = archive(
        tensors(numel=40 << 20), zipfile.ZIP_DEFLATED, data_0=b"\0" * (160 << 20)
    )
    files["climbing_names.zip"] = archive(tensors(), folder="../../../../tmp/", data_0=b"")
    files["two_pickles.zip"] = archive(tensors(), **{"b_data.pkl": tensors()})
    files["not_pytorchs.zip"] = archive(b"", folder="word/document.xml/")
    script = b"\x80\x02c__torch__ M\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb."
    files["script_in_itself.zip"] = archive(script, constants_pkl=b"\x80\x02).")
    code = archive(tensors(), zipfile.ZIP_DEFLATED, code_bomb=b"\0" * (160 << 20))
    files["compressed_code.zip"] = code
    files.update(numpy_archives())
    files["entry_beyond.zip"] = archive(tensors(), data_0=numbers).replace(
        struct.pack("<2L", 16, 16), struct.pack("<2L", 9999, 9999)
    )
    files["steps.stream"] = magic(b"\x80\x02" + b"N0" * MAX_STEPS + b".")
    files["memo.stream"] = magic(b"\x80\x02Nr\xff\xff\xff\x7f.")
    files["long_int.stream"] = magic(
        b"\x80\x02\x8b" + struct.pack("<i", 32 << 20) + b"\x7f" * (32 << 20) + b"."
    )
    files["long_digits.stream"] = magic(b"\x80\x02L" + b"9" * 100_000 + b"L\n.")
    files["long_text.stream"] = magic(b"\x80\x02X" + struct.pack("<I", 0xFFFFFFFF) + b"abc.")
    files["long_bytes.stream"] = magic(b"\x80\x05\x96" + struct.pack("<Q", 1 << 62) + b"abc.")
    files["long_line.stream"] = magic(b"\x80\x02c" + b"a" * (70 << 20))
    files["deep_lists.stream"] = magic(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
    files["deep_key.stream"] = magic(b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"Ns.")
    files["doubling.stream"] = magic(b"\x80\x02]" + b"2\x86" * 60_000 + b".")
    files["itself.stream"] = magic(b"\x80\x02}q\x00X\x0a\x00\x00\x00state_dicth\x00s.")
    every = b"".join(b"X" + struct.pack("<I", len(one)) + one + b"h\0s" for one in CONTAINER_NAMES)
    files["itself_everywhere.stream"] = magic(b"\x80\x02}q\x00" + every + b".")
    chain = b"".join(b"}" + b"X" + struct.pack("<I", len(one)) + one for one in CONTAINER_NAMES)
    files["chain.stream"] = magic(
        b"\x80\x02" + chain * 2000 + b"N" + b"s" * 2000 * len(CONTAINER_NAMES) + b"."
    )
    files["unbalanced.stream"] = magic(b"\x80\x02eeeu.")
    files["marks.stream"] = magic(b"\x80\x02" + b"(" * 400_000 + b".")
    files["no_stop.stream"] = magic(b"\x80\x02N")
    files["wrong_opcode.stream"] = magic(b"\x80\x02\xff.")
    files["key_with_escape.zip"] = archive(
        b"\x80\x02}" + pickle.dumps("\x1b[31m\nrm -rf\n", 2)[2:-1] + b"Ns."
    )
    files["numpy_arrays.stream"] = magic(pickle.dumps({"w": torch.zeros(2).numpy()}, 2))
    files["a_list.stream"] = magic(pickle.dumps([1, 2], 2))
    tensor = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    files["cut.safetensors"] = safetensors({"w": tensor}, numbers[:-1])
    files["beyond.safetensors"] = safetensors(
        {"w": {**tensor, "data_offsets": [0, 1 << 40]}}, numbers
    )
    files["overflow.safetensors"] = safetensors(
        {"w": {**tensor, "shape": [1 << 40, 1 << 40]}}, numbers
    )
    files["reversed.safetensors"] = safetensors({"w": {**tensor, "data_offsets": [16, 0]}}, numbers)
    files["overlap.safetensors"] = safetensors({"w": tensor, "v": tensor}, numbers)
    files["negative.safetensors"] = safetensors({"w": {**tensor, "shape": [-2, -2]}}, numbers)
    files["no_dtype.safetensors"] = safetensors({"w": {**tensor, "dtype": "os.system"}}, numbers)
    files["header_beyond.safetensors"] = safetensors({"w": tensor}, numbers, length=1 << 60)
    files["header_deep.safetensors"] = safetensors(b'{"w":' * 50_000)
    files["header_cut.safetensors"] = safetensors(b'{"w": {"dtype"')
    files["header_list.safetensors"] = safetensors(b"{}]", numbers)
    whole = io.BytesIO()
    torch.save({"state_dict": {"w": torch.rand(30, 30), "v": torch.rand(30)}}, whole)
    old = io.BytesIO()
    torch.save(
        {"state_dict": {"w": torch.rand(30, 30), "v": torch.rand(30)}},
        old,
        _use_new_zipfile_serialization=False,
    )
    for kind, content in (("zip", whole.getvalue()), ("stream", old.getvalue())):
        for tenths in range(1, 10):
            files[f"cut_{tenths}.{kind}"] = content[: len(content) * tenths // 10]
    files["empty.pth"] = b""
    files["one_byte.pth"] = b"\x80"
    files["text.pth"] = b"<!DOCTYPE html><title>Google Drive - Virus scan warning</title>"
    return files


NAMES = sorted(corpus("/nowhere/ran"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile")
    for name, content in corpus(str(root / "ran")).items():
        (root / name).write_bytes(content)
    return root


def refused(path):
    with pytest.raises(UserError) as caught:
        read_weights(path)
    text = str(caught.value)
    assert text.startswith("Expected ")
    assert text.isprintable(), text
    assert len(text) < 600


def test_the_corpus_is_large():
    assert len(NAMES) >= 120


@pytest.mark.parametrize("name", NAMES)
def test_hostile_file(folder, name):
    begun, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(folder / name)
    assert time.process_time() - begun < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEGABYTES
    assert not (folder / "ran").exists()


def test_sizes_are_refused_before_torch_sees_them(folder):
    for name in ("offset_beyond", "stride_beyond", "huge_size", "expanded"):
        with pytest.raises(UserError, match="a tensor claims more numbers than it has"):
            read_weights(folder / f"{name}.zip")


def test_the_corpus_would_run_in_pythons_own_machine(folder):
    """The calls are real: what the reader refuses does run where pickle is trusted."""
    pickle.loads(calling("os", "system", f"touch {folder / 'trusted'}"))
    assert (folder / "trusted").exists()
    assert any(
        opcode.name == "REDUCE"
        for opcode, *_ in pickletools.genops(calling("builtins", "eval", "1"))
    )


def test_what_is_no_file(tmp_path):
    refused(tmp_path / "nowhere.pth")
    refused(tmp_path)
    (tmp_path / "loop.pth").symlink_to(tmp_path / "loop.pth")
    refused(tmp_path / "loop.pth")
    os.mkfifo(tmp_path / "pipe.pth")
    refused(tmp_path / "pipe.pth")
    refused(type(tmp_path)("/dev/zero"))
