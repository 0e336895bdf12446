"""Everything that decides a prediction is part of a predictor's identity: for all kinds of models
and all their arguments, another value is another key.
"""

import importlib
import inspect
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from stillrobust.errors import UserError
from stillrobust.predictors import PREDICTORS, open_predictor
from stillrobust.predictors.spec_kinds import kind_of
from stillrobust.samples import DatasetInfo
from tests.onnx_files import write_constants
from tests.predictors.test_transformers import transformers_folder

CLASSES = ("wide", "tall")
FILE = "def create():\n    return lambda images: []\n"
# of each kind: the task, the name, arguments in common, and another value of every argument
SWAP = {"wide": "tall", "tall": "wide"}
CASES = {
    "file": ("detection", "mine.py", {}, {}),
    "torchvision": (
        "classification",
        "shufflenet_v2_x0_5",
        {"weights": "random", "classes": 2},
        {"weights": "w.pth", "key": None, "classes": 2, "labels": SWAP},
    ),
    "timm": (
        "classification",
        "resnet10t",
        {"weights": "random", "classes": 2},
        {"weights": "t.pth", "key": None, "classes": 2, "labels": SWAP},
    ),
    "transformers": ("classification", "hf", {}, {"labels": SWAP}),
    "ultralytics": (
        "detection",
        "yolo11n.yaml",
        {},
        {"size": 320, "labels": {"1": "0", "0": "1"}},
    ),
    "onnx": (
        "detection",
        "m.onnx",
        {
            "mean": 0,
            "std": 1,
            "boxes": "xyxy",
            "first_label": 0,
            "classes": "data",
            "layout": "nchw",
        },
        {
            "size": (64, 64),
            "layout": "nhwc",
            "channels": "bgr",
            "letterbox": True,
            "mean": (0.5, 0.4, 0.3),
            "std": 0.5,
            "scale": 255,
            "classes": ("tall", "wide"),
            "labels": SWAP,
            "first_label": 1,
            "boxes": "yxyx",
            "normalized": True,
            "scores": "percent",
            "nms": 0.5,
        },
    ),
}


def write_models(folder):
    import timm
    import torchvision

    (folder / "mine.py").write_text(FILE)
    torch.manual_seed(1)
    model = torchvision.models.shufflenet_v2_x0_5(num_classes=2)
    torch.save(model.state_dict(), folder / "w.pth")
    torch.save(timm.create_model("resnet10t", num_classes=2).state_dict(), folder / "t.pth")
    empty = np.zeros((0, 4), np.float32)
    outputs = {"boxes": empty, "labels": empty[:, 0].astype(int), "scores": empty[:, 0]}
    write_constants(folder / "m.onnx", outputs, ("b", "c", "h", "w"))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    transformers_folder(folder / "hf", "classification")
    return folder


def arguments_of(kind):
    module = importlib.import_module(f"stillrobust.predictors.{PREDICTORS[kind]}")
    return list(inspect.signature(module.create_predictor).parameters)[2:]


def identity(folder, kind, name, arguments, info):
    path = folder / name
    given = {
        key: str(folder / value) if key == "weights" and value != "random" else value
        for key, value in arguments.items()
    }
    torch.manual_seed(0)
    listed = ", ".join(f"{key}={value!r}" for key, value in given.items())
    return open_predictor(f"{kind}:{path if path.exists() else name}({listed})", info).weights


@pytest.mark.parametrize("kind", PREDICTORS)
def test_another_value_of_an_argument_is_another_key(kind, models):
    task, name, base, others = CASES[kind]
    assert list(others) == arguments_of(kind)
    names = [f"{number}" for number in range(80)] if kind == "ultralytics" else CLASSES
    info = DatasetInfo("data", task, tuple(names), 2, "f")
    plain = identity(models, kind, name, base, info) if others else ""
    found = {plain: "nothing"}
    for argument, value in others.items():
        if base.get(argument) == value:  # refused with another number: see below
            continue
        key = identity(models, kind, name, {**base, argument: value}, info)
        assert key not in found, f"{argument} and {found[key]}"
        found[key] = argument
    if others:
        assert identity(models, kind, name, base, info) == plain


@pytest.mark.parametrize("kind", ["torchvision", "timm"])
def test_another_key_in_a_weight_file_is_another_key(kind, models, tmp_path):
    """It needs a file with several sets of weights, here with the same tensors."""
    task, name, base, others = CASES[kind]
    state = torch.load(models / others["weights"])
    torch.save({"model": state, "model_ema": state}, tmp_path / "two.pth")
    info = DatasetInfo("data", task, CLASSES, 2, "f")
    given = [
        identity(tmp_path, kind, name, {**base, "weights": "two.pth", "key": key}, info)
        for key in ("model", "model_ema", "model")
    ]
    assert given[0] == given[2] != given[1]


@pytest.mark.parametrize("kind", ["torchvision", "timm"])
def test_another_number_of_classes_is_refused(kind, models):
    """Their only other value: the number has to be that of the data."""
    task, name, base, _ = CASES[kind]
    info = DatasetInfo("data", task, CLASSES, 2, "f")
    with pytest.raises(UserError, match="3 classes without names"):
        identity(models, kind, name, {**base, "classes": 3}, info)


def test_content_counts_and_paths_do_not(models, tmp_path):
    """Of files moved elsewhere, and of a processor whose settings changed."""
    info = DatasetInfo("data", "classification", CLASSES, 2, "f")
    given = {"weights": "w.pth", "classes": 2}
    kept = identity(models, "torchvision", "shufflenet_v2_x0_5", given, info)
    write_models(tmp_path)
    moved = identity(tmp_path, "torchvision", "shufflenet_v2_x0_5", given, info)
    assert kept == moved
    plain = identity(models, "transformers", "hf", {}, info)
    settings = models / "hf" / "preprocessor_config.json"
    text = settings.read_text()
    changed = text.replace('"resample": 2', '"resample": 3')
    assert changed != text
    settings.write_text(changed)
    other = identity(models, "transformers", "hf", {}, info)
    settings.write_text(text)
    assert other != plain == identity(models, "transformers", "hf", {}, info)
    detection = DatasetInfo("data", "detection", CLASSES, 2, "f")
    first = identity(models, "file", "mine.py", {}, detection)
    (tmp_path / "mine.py").write_text(f"{FILE}\n")
    assert identity(tmp_path, "file", "mine.py", {}, detection) != first


# ---- models without a prefix


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mine.py", "file"),
        ("m.onnx", "onnx"),
        ("hf", "transformers"),
        ("yolo.pt", "ultralytics"),
        ("shufflenet_v2_x0_5", "torchvision"),
    ],
)
def test_models_without_a_prefix(name, kind, models):
    with zipfile.ZipFile(models / "yolo.pt", "w") as archive:
        archive.writestr("yolo/data.pkl", b"cultralytics.nn.tasks\nDetectionModel\n")
    path = models / name
    assert kind_of(str(path) if path.exists() else name) == kind


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("w.pth", r"torchvision:resnet50\(weights="),
        ("script.pt", "is TorchScript"),
        ("m.engine", "a TensorRT engine; export it to ONNX"),
        ("gone.pt", "there is none"),
        ("fog_3.json", "score it with `stillrobust predictions score`"),
        ("empty", "config.json"),
        ("saved", "SavedModel of TensorFlow"),
        ("run", "without --model"),
        ("resnet1888", "a name of torchvision"),
    ],
)
def test_what_a_model_without_a_prefix_is(name, message, models):
    with zipfile.ZipFile(models / "script.pt", "w") as archive:  # as torch.jit.save writes it
        archive.writestr("script/constants.pkl", b"")
    for folder, file in (("empty", "a"), ("saved", "saved_model.pb"), ("run", "model.safetensors")):
        (models / folder).mkdir(exist_ok=True)
        (models / folder / file).touch()
    (models / "m.engine").touch()
    info = DatasetInfo("data", "classification", CLASSES, 2, "f")
    path = models / name
    spec = str(path) if path.exists() or Path(name).suffix else name
    with pytest.raises(UserError, match=message) as caught:
        open_predictor(spec, info)
    assert "\n" not in str(caught.value)
