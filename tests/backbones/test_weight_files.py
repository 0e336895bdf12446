"""Every way to save weights, for backbones and for predictors: loaded right, or one sentence."""

import gzip
import io
import itertools
import json
import pickle
import struct
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save, save_file
from torch import nn

from stillrobust.backbones import build_backbone, reader, resolve_backbone
from stillrobust.backbones.containers import CONTAINERS, PREFIXES
from stillrobust.backbones.reader import read_weights
from stillrobust.backbones.resnet import MiniResNet, ResNetBackbone
from stillrobust.backbones.strict_loading import load_strictly, load_weight_file
from stillrobust.backbones.weight_loading import load_weights
from stillrobust.errors import UserError
from stillrobust.predictors import open_predictor
from stillrobust.samples import DatasetInfo

CLASSES = ("a", "b", "c")
INFO = DatasetInfo("toys", "classification", CLASSES, size=3, fingerprint="0" * 64)
MODEL = MiniResNet((2, 2, 4, 4), len(CLASSES))
TARGET = ResNetBackbone("tiny", MiniResNet((2, 2, 4, 4), len(CLASSES)))
STATE = {name: value.clone() for name, value in MODEL.state_dict().items()}
SCRIPTED = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4))
OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}


def saved(content, form):
    if form == "safetensors":
        return save({name: value.contiguous() for name, value in content.items()})
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=form == "zip")
    return buffer.getvalue()


def prefixed(prefix, state=None):
    return {prefix + name: value for name, value in (STATE if state is None else state).items()}


def load_both(path, key=""):
    """The tensors that a backbone and a predictor of the tiny model load."""
    for model in (TARGET.model, MODEL):
        nn.init.constant_(model.conv1.weight, 99)  # neither has its values from before
    load_weights(TARGET, read_weights(path, key), path)
    load_weight_file(MODEL, path, key)
    return TARGET.model.state_dict(), MODEL.state_dict()


def sentences(path, key="", model=None):
    """The errors of a backbone and of a predictor; each is one sentence."""
    backbone = ResNetBackbone("tiny", MiniResNet((2, 2, 4, 4), len(CLASSES)))
    found = []
    for load in (
        lambda: load_weights(backbone, read_weights(path, key), path),
        lambda: load_weight_file(MiniResNet((2, 2, 4, 4), len(CLASSES)), path, key),
    ):
        with pytest.raises(UserError) as caught:
            load()
        text = str(caught.value)
        assert text.startswith("Expected ")
        assert text.isprintable()
        assert len(text) < 700
        found.append(text)
    return found


def expect_loaded(path, key="", state=STATE):
    for loaded in load_both(path, key):
        assert loaded.keys() == state.keys()
        assert all(torch.equal(loaded[name], state[name]) for name in state)


# ---- containers and prefixes

CHAINS = [
    "",
    *PREFIXES,
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.backbone.",
    "model.model.",
    "module.module.module.",
]


@pytest.mark.parametrize("container", ["", *CONTAINERS, "state_dict/model", "my_own_name"])
def test_container_and_prefix(tmp_path, container):
    """Each container with each prefix; the formats, of which safetensors has no containers, in
    turn.
    """
    path = tmp_path / "weights"
    forms = ("zip", "stream") if container else ("zip", "stream", "safetensors")
    pairs = (
        zip(CHAINS, itertools.cycle(forms), strict=False)
        if container not in ("", "state_dict")
        else itertools.product(CHAINS, forms)
    )
    for prefix, form in pairs:
        content = prefixed(prefix)
        for name in reversed(container.split("/")):
            extra = {"epoch": 3, "optimizer": OPTIMIZER, "args": SimpleNamespace(lr=0.1)}
            content = {name: content, "best": torch.tensor(0.7), **extra} if name else content
        if container == "my_own_name":
            del content["best"]  # a tensor beside a name that nobody knows is a state dict's
        path.write_bytes(saved(content, form))
        expect_loaded(path)


QUESTIONS = {
    "timm": ({"state_dict": STATE, "state_dict_ema": prefixed("module.")}, "state_dict_ema"),
    "swin": ({"model": STATE, "model_ema": STATE | {}, "epoch": 1}, "model_ema"),
    "dino": (
        {"teacher": prefixed("backbone."), "student": prefixed("module.backbone.")},
        "teacher",
    ),
    "inside": ({"state_dict": {"model": STATE, "ema": STATE | {}}}, "state_dict.ema"),
    "unknown_names": ({"first": STATE, "second": STATE | {}}, "second"),
    "moco": (
        {"state_dict": prefixed("module.encoder_q.") | prefixed("module.encoder_k.")},
        "state_dict.module.encoder_k",
    ),
    "mean_teacher": (prefixed("student.") | prefixed("teacher.backbone."), "teacher.backbone"),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_several_sets_of_weights_are_a_question(tmp_path, name):
    content, key = QUESTIONS[name]
    path = tmp_path / "weights.pth"
    path.write_bytes(saved(content, "zip"))
    for text in sentences(path):
        assert "it holds several sets of weights (" in text
        assert repr(key) in text
        assert "choose one in the spec, such as weights='FILE', key='" in text
    expect_loaded(path, key)


def test_the_key_chooses(tmp_path):
    """Other values under the other key; an error lists the keys of the file."""
    path = tmp_path / "weights.pth"
    average = {name: value + 1 for name, value in STATE.items()}
    path.write_bytes(saved({"model": STATE, "model_ema": prefixed("module.", average)}, "zip"))
    expect_loaded(path, "model", STATE)
    expect_loaded(path, "model_ema", average)
    expect_loaded(path, "model_ema.module", average)
    for text in sentences(path, "ema"):
        assert "nothing under the key 'ema' (it has 'model', 'model_ema')" in text


def test_one_state_under_two_names_is_no_question(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(saved({"state_dict": STATE, "model": STATE}, "zip"))
    expect_loaded(path)


def test_averaged_model_of_torch(tmp_path):
    path = tmp_path / "weights.pth"
    averaged = torch.optim.swa_utils.AveragedModel(MODEL)
    path.write_bytes(saved(averaged.state_dict(), "zip"))
    expect_loaded(path)


def test_heads_beside_a_prefix(tmp_path):
    """A backbone may have known heads beside it; for a predictor the error names the key."""
    path = tmp_path / "weights.pth"
    trunk = {name: value for name, value in STATE.items() if not name.startswith("fc.")}
    path.write_bytes(
        saved({"state_dict": prefixed("backbone.", trunk) | {"neck.w": torch.ones(1)}}, "zip")
    )
    backbone = ResNetBackbone("tiny", MiniResNet((2, 2, 4, 4), len(CLASSES)))
    assert "key 'state_dict.backbone'" in load_weights(backbone, read_weights(path), path)
    with pytest.raises(UserError, match=r"beside the weights \('state_dict.backbone'\);"):
        load_weight_file(MODEL, path)


# ---- what is no state dict


class Average:
    """An average of weights as an object, as timm's and YOLO's."""

    def __init__(self, module):
        self.decay, self.module = 0.999, module


class Settings:
    pass


def msgpack(name):
    return b"\x81" + bytes([0xA0 + len(name)]) + name + b"\x81\xa6kernel\xc7\x10\x01" + bytes(16)


def compressed_tar(content=b"hello"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("a.txt")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def script(model):
    buffer = io.BytesIO()
    torch.jit.save(model, buffer)
    return buffer.getvalue()


def frozen_script():
    """TorchScript whose weights are constants of its code."""
    return script(torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Linear(2, 2)).eval())))


def numpy_bytes(write):
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def foreign_files():
    """name -> (content, what the sentence says)."""
    net = nn.Sequential(nn.Linear(2, 2))
    whole = r"whole pickled model.*\(torch\.nn\.modules\.container\.Sequential\).*state_dict\(\)"
    whole_zip, whole_stream = saved(STATE, "zip"), saved(STATE, "stream")
    index = {"metadata": {}, "weight_map": {"a": "model-1-of-2.bin", "b": "model-2-of-2.bin"}}
    arrays = {name: value.numpy() for name, value in STATE.items()}
    fp8 = {**STATE, "conv1.weight": STATE["conv1.weight"].to(torch.float8_e4m3fn)}
    complex_ = {**STATE, "conv1.weight": STATE["conv1.weight"].to(torch.complex64)}
    convert = ".*convert it to PyTorch"
    try:
        complex_file = {"complex.safetensors": (save(complex_), r"stored as torch\.complex64")}
    except KeyError:  # before safetensors 0.7
        complex_file = {}
    return {
        "whole.zip": (saved(net, "zip"), whole),
        "whole.stream": (saved(net, "stream"), whole),
        "whole_in_dict.zip": (saved({"model": net, "epoch": 1}, "zip"), whole),
        "whole_in_dict.stream": (saved({"net": net, "epoch": 1}, "stream"), whole),
        "whole_twice.zip": (
            saved({"model": net, "ema": nn.Sequential(nn.Linear(1, 1))}, "zip"),
            r"several sets of weights \('model', 'ema'\)",
        ),
        "whole.pkl": (pickle.dumps(net, 2), "plain pickle of a whole model.*torch.save"),
        "ema.zip": (
            saved({"ema": Average(net)}, "zip"),
            r"whole pickled model under 'ema'.*Average",
        ),
        "ema_beside.zip": (saved({"model": STATE, "ema": Average(net)}, "zip"), "'model', 'ema'"),
        "ema_in_state.zip": (saved({**STATE, "x": Average(net)}, "zip"), "'x' is a pickled model"),
        "script.pt": (frozen_script(), "holds no tensors by name"),
        "settings.zip": (saved(Settings(), "zip"), "Settings"),
        "optimizer.zip": (saved(OPTIMIZER, "zip"), "an optimizer and no weights"),
        "optimizer_in_dict.zip": (
            saved({"optimizer": OPTIMIZER, "epoch": 1}, "zip"),
            "an optimizer and no weights",
        ),
        "shadow.zip": (saved({"shadow_params": [torch.ones(1)]}, "zip"), "list without names"),
        "a_list.zip": (saved([torch.ones(1)], "zip"), "it holds a list and no tensors by name"),
        "a_number.zip": (saved({"epoch": 3}, "zip"), "no tensors by name"),
        "a_tensor.zip": (saved(torch.ones(1), "zip"), "one tensor without a name"),
        "lfs.pth": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        "page.pth": (b"\n<!DOCTYPE html><title>x</title>", "a web page.*login"),
        "error.pth": (b'{"error": "not found"}', "JSON text"),
        "index.json": (json.dumps(index).encode(), "index of a checkpoint in 2 files"),
        "empty.pth": (b"", "it is empty; get the file again"),
        "cut.zip": (whole_zip[: len(whole_zip) // 2], "cut off"),
        "cut.stream": (whole_stream[: len(whole_stream) // 2], "cut off"),
        "cut.safetensors": (save(STATE)[:-8], "cut off"),
        "cut_header.safetensors": (save(STATE)[:100], "cut off"),
        "keras.h5": (b"\x89HDF\r\n\x1a\n" + bytes(100), f"HDF5{convert}"),
        "saved_model.pb": (b"\x08\x01\x12\xb0\xce\x01" + bytes(99), f"TensorFlow{convert}"),
        "frozen.pb": (b"\n\x1f\n\x05input" + bytes(99), f"TensorFlow{convert}"),
        "model.ckpt.index": (bytes(99) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb", "TensorFlow"),
        "model.ckpt.data-00000-of-00001": (bytes(999), f"TensorFlow{convert}"),
        "checkpoint": (b'model_checkpoint_path: "model.ckpt-9"', "TensorFlow checkpoint"),
        "model.tflite": (b"\x1c\0\0\0TFL3" + bytes(99), f"TensorFlow Lite{convert}"),
        "flax.msgpack": (msgpack(b"params"), f"msgpack file, as Flax writes{convert}"),
        "model.onnx": (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0", "ONNX model; evaluate it as onnx:"),
        "renamed_onnx.pth": (b"\x08\x09\x12\x07pytorch\x1a\x052.1.0", "ONNX model"),
        "packed.gz": (gzip.compress(whole_zip), "compressed with gzip; unpack it"),
        "packed.tar": (compressed_tar(), "a tar archive; unpack it"),
        "objects.npz": (
            numpy_bytes(lambda file: np.savez(file, w=np.array([{}, 1]))),
            "'w' is an array of object",
        ),
        "big_endian.npz": (
            numpy_bytes(lambda file: np.savez(file, w=np.ones(2, ">f4"))),
            "'w' is an array of >f4",
        ),
        "array.npy": (numpy_bytes(lambda file: np.save(file, np.ones(2))), "a NumPy array"),
        "arrays.pkl": (pickle.dumps(arrays, 2), "a plain pickle instead of a PyTorch file"),
        "arrays.zip": (saved(arrays, "zip"), "an array of NumPy and no tensor"),
        "fp8.zip": (saved(fp8, "zip"), r"'conv1\.weight' is stored as torch\.float8_e4m3fn"),
        "fp8.safetensors": (save(fp8), r"'conv1\.weight' is stored as torch\.float8_e4m3fn"),
        "complex.zip": (saved(complex_, "zip"), r"stored as torch\.ComplexFloatStorage"),
        **complex_file,
        "text.pth": (b"Dear user, this is no weight file", "begins like no weight file"),
        "numbers.pth": (struct.pack("<9f", *range(9)), "begins like no weight file"),
    }


FOREIGN = foreign_files()


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_wrong_is_named(tmp_path, name):
    content, expected = FOREIGN[name]
    path = tmp_path / name
    path.write_bytes(content)
    for text in sentences(path):
        assert text.count("; ") >= 1, text
        with pytest.raises(AssertionError, match=expected):
            raise AssertionError(text)


def test_arrays_and_torchscript_are_read(tmp_path):
    """Arrays of NumPy, compressed or not, and the attributes of a scripted module."""
    arrays = {name: value.numpy() for name, value in STATE.items()}
    for save_arrays in (np.savez, np.savez_compressed):
        save_arrays(tmp_path / "a.npz", **arrays)
        expect_loaded(tmp_path / "a.npz")
    # a Fortran order, which NumPy keeps
    arrays["conv1.weight"] = np.asfortranarray(arrays["conv1.weight"])
    np.savez(tmp_path / "a.npz", **arrays)
    expect_loaded(tmp_path / "a.npz")
    (tmp_path / "script.pt").write_bytes(script(torch.jit.script(nn.Sequential(SCRIPTED))))
    found = read_weights(tmp_path / "script.pt").tensors
    assert all(torch.equal(found[f"0.{k}"], v) for k, v in SCRIPTED.state_dict().items())
    assert len(found) == len(SCRIPTED.state_dict())


def test_what_is_no_file(tmp_path):
    paths = {"a folder": tmp_path, "nothing": tmp_path / ("x" * 400), "something else": "/dev/null"}
    for found, path in paths.items():
        for text in sentences(tmp_path / path):
            assert text.endswith(f"but there is {found}; check the path")
        with pytest.raises(UserError):
            resolve_backbone(f"resnet_mini(weights={str(path)!r})")


# ---- what fits, and what values are possible


def changed(**tensors):
    return {**STATE, **{name.replace("__", "."): value for name, value in tensors.items()}}


def without(*beginnings):
    return {name: value for name, value in STATE.items() if not name.startswith(beginnings)}


WRONG = {
    "nan": (changed(bn1__bias=torch.full((2,), torch.nan)), r"NaN or infinity is in .*bn1\.bias"),
    "infinite": (changed(bn1__bias=torch.tensor([0, -torch.inf])), "NaN or infinity is in"),
    "beyond_float32": (
        changed(bn1__bias=torch.tensor([0.0, 1e300], dtype=torch.float64)),
        r"a value beyond float32 is in .*bn1\.bias",
    ),
    "nan_counter": (
        changed(bn1__num_batches_tracked=torch.tensor(torch.nan)),
        r"NaN or infinity is in .*num_batches_tracked",
    ),
    "negative_variance": (
        changed(bn1__running_var=torch.tensor([1.0, -1e-3])),
        r"variances of at least 0 .*negative ones are in .*bn1\.running_var",
    ),
    "quantised": (
        changed(bn1__weight=torch.ones(2, dtype=torch.int8)),
        r"1 tensors hold torch\.int8 \(.*bn1\.weight\), as quantised models do",
    ),
    "missing": (without("bn1.bias"), r"1 missing \(.*bn1\.bias\).*holds a part of the model"),
    "left_over": (
        changed(layer9=torch.ones(1)),
        r"1 left over \(.*layer9\).*holds more than this model.*key=",
    ),
    "another_width": (
        MiniResNet((3, 3, 5, 5), 3).state_dict(),
        r"of another shape \(.* is \(3,\) instead of \(2,\)\).*another architecture",
    ),
    "other_trailing_shape": (
        changed(conv1__weight=torch.ones(2, 1, 3, 3)),
        r"conv1\.weight is \(2, 1, 3, 3\) instead of \(2, 3, 3, 3\).*variant of the architecture",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_tensors_are_named_with_their_cause(tmp_path, name):
    state, expected = WRONG[name]
    path = tmp_path / "weights.pth"
    path.write_bytes(saved(state, "zip"))
    for text in sentences(path):
        with pytest.raises(AssertionError, match=expected):
            raise AssertionError(text)


def test_another_number_of_classes(tmp_path):
    """The error of a predictor has both numbers; a backbone takes the file's."""
    path = tmp_path / "weights.pth"
    path.write_bytes(saved(MiniResNet((2, 2, 4, 4), 7).state_dict(), "zip"))
    message = r"2 of another shape .*number of classes \(7 outputs instead of 3\)"
    with pytest.raises(UserError, match=message):
        load_weight_file(MODEL, path)
    backbone = ResNetBackbone("tiny", MiniResNet((2, 2, 4, 4), 3))
    load_weights(backbone, read_weights(path), path)
    assert backbone.classify(torch.rand(1, 3, 32, 32)).shape == (1, 7)


def test_an_error_leaves_the_model_as_it_was():
    model = MiniResNet((2, 2, 4, 4), 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError):
        load_strictly(model, WRONG["negative_variance"][0], "a file")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_float_types_are_converted(tmp_path, dtype):
    state = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in STATE.items()
    }
    (tmp_path / "a").write_bytes(saved(state, "zip"))
    expect_loaded(tmp_path / "a", state={name: state[name].to(STATE[name].dtype) for name in STATE})


# ---- the bytes that are hashed are the bytes that are loaded


@pytest.mark.parametrize("form", ["zip", "stream", "safetensors"])
def test_a_file_replaced_while_it_is_read(tmp_path, monkeypatch, form):
    """Overwritten in place between hash and load: the old bytes are hashed and loaded."""
    path = tmp_path / "weights"
    old, new = (saved(changed(bn1__bias=torch.full((2,), value)), form) for value in (1.0, 2.0))
    read = reader._read
    path.write_bytes(old)
    expected = read_weights(path).sha256
    path.write_bytes(new)
    assert read_weights(path).sha256 != expected
    path.write_bytes(old)

    def read_after_change(content, *arguments):
        path.write_bytes(new)
        return read(content, *arguments)

    monkeypatch.setattr(reader, "_read", read_after_change)
    found = read_weights(path)
    assert found.sha256 == expected
    assert found.tensors["bn1.bias"].tolist() == [1.0, 1.0]


def test_a_file_replaced_after_its_hash_is_refused(tmp_path):
    state = build_backbone("resnet_mini(weights='random')")[0].model.state_dict()
    save_file(state, tmp_path / "w.safetensors")
    resolved = resolve_backbone(f"resnet_mini(weights='{tmp_path}/w.safetensors')")
    assert len(resolved.digest) == 64
    save_file({**state, "bn1.bias": state["bn1.bias"] + 1}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="changed while a training began"):
        resolved.build()


# ---- through specs


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory):
    """A file of a tiny timm model with two sets of weights, and the two."""
    path = tmp_path_factory.mktemp("two") / "two.pth"
    states = {}
    for name in ("state_dict", "state_dict_ema"):
        states[name] = timm.create_model("test_resnet", num_classes=3).state_dict()
    torch.save({**states, "epoch": 3}, path)
    return path, states


def test_key_of_a_backbone(two_sets):
    path, states = two_sets
    spec = f"test_resnet(weights='{path}', key='{{}}')"
    with pytest.raises(UserError, match="several sets of weights"):
        build_backbone(f"test_resnet(weights='{path}')")
    digests = set()
    for key, state in states.items():
        resolved = resolve_backbone(spec.format(key))
        backbone, loaded = resolved.build()
        assert f"key '{key}'" in loaded
        assert torch.equal(backbone.model.state_dict()["conv1.0.weight"], state["conv1.0.weight"])
        assert resolved.display_name == f"test_resnet(key='{key}', weights='two.pth')"
        digests.add(resolved.digest)
    digests.add(resolve_backbone(f"test_resnet(weights='{path}')").digest)
    assert len(digests) == 3
    for weights, key in (("random", "'a'"), (path.parent, "'a'"), (path, "3"), (path, "''")):
        with pytest.raises(UserError, match=r"key="):
            resolve_backbone(f"test_resnet(weights='{weights}', key={key})")


def test_key_of_a_predictor(two_sets):
    path, states = two_sets
    spec = f"timm:test_resnet(weights='{path}', classes=3, key={{!r}})"
    with pytest.raises(UserError, match="several sets of weights"):
        open_predictor(f"timm:test_resnet(weights='{path}', classes=3)", INFO)
    predictors = [open_predictor(spec.format(key), INFO) for key in states]
    assert len({predictor.weights for predictor in predictors}) == 2
    assert all("key='state_dict" in predictor.model for predictor in predictors)
    for kind, name in (("timm", "test_resnet"), ("torchvision", "squeezenet1_1")):
        with pytest.raises(UserError, match=r"key='a' chooses an entry of a weight file"):
            open_predictor(f"{kind}:{name}(weights='random', classes=3, key='a')", INFO)


def test_torchvision_predictor(tmp_path):
    import torchvision

    model = torchvision.models.squeezenet1_1(num_classes=3)
    torch.save({"model_ema": prefixed("module.", model.state_dict())}, tmp_path / "ema.pth")
    spec = f"torchvision:squeezenet1_1(weights='{tmp_path}/{{}}.pth', classes={{}})"
    torch.save(model.state_dict(), tmp_path / "plain.pth")
    weights = open_predictor(spec.format("plain", 3), INFO).weights
    assert open_predictor(spec.format("ema", 3), INFO).weights == weights
    with pytest.raises(
        UserError, match=r"number of classes \(3 outputs instead of 4\); give classes=3"
    ):
        open_predictor(spec.format("ema", 4), INFO)
    (tmp_path / "whole.pth").write_bytes(FOREIGN["whole.zip"][0])
    with pytest.raises(UserError, match="whole pickled model"):
        open_predictor(spec.format("whole", 3), INFO)
