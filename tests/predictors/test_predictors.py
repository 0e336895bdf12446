"""Models of every library, randomly initialised, measured through the same evaluation; and what is
refused.
"""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from stillrobust.data.official.imagenet import wordnet_ids
from stillrobust.errors import UserError
from stillrobust.evaluation import Protocol, evaluate
from stillrobust.grid import Cell
from stillrobust.predictors import (
    Predictor,
    open_predictor,
    validated_predictor,
)
from stillrobust.predictors.labels import class_columns, dataset_labels
from stillrobust.samples import DatasetInfo, Prediction
from stillrobust.storage.store import Store
from tests.toys import Toys

FEW = Protocol(("fog",), (2,), batch_size=2, examples=1)
IMAGES = [
    np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    for size in ((48, 64, 3), (80, 56, 3))
]


def info_of(task, classes=("wide", "tall"), has_masks=True):
    return DatasetInfo("data", task, tuple(classes), 2, "f", has_masks)


def predictions(spec, info):
    """Both images together; every prediction passes the checks."""
    predictor = open_predictor(spec, info)
    with torch.inference_mode():
        return predictor, validated_predictor(
            predictor, len(info.classes), predictor.masks and info.has_masks
        )(IMAGES, [str(index) for index in range(len(IMAGES))])


# ---- adapters
# ------------------------------------------------------------------------------


def test_torchvision_classifier_equals_the_library(tmp_path):
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=2).eval()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    _, found = predictions(
        f"torchvision:resnet18(weights='{tmp_path / 'w.pth'}', classes=2)",
        info_of("classification"),
    )
    transform = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
    expected = model(
        torch.stack([transform(torch.from_numpy(i.transpose(2, 0, 1).copy())) for i in IMAGES])
    ).softmax(1)
    assert np.allclose(
        np.stack([one.probabilities for one in found]), expected.detach().numpy(), atol=1e-6
    )


def test_torchvision_imagenet_classes_are_found_by_their_ids():
    """A folder of three of the thousand classes: softmax over the three alone."""
    ids = [wordnet_ids()[number] for number in (5, 400, 999)]
    info = info_of("classification", ids)
    assert class_columns(info, ["any"] * 1000, 1000, {}, "m").tolist() == [5, 400, 999]
    _, found = predictions("torchvision:resnet18(weights='random')", info)
    assert all(one.probabilities.shape == (3,) for one in found)


def test_torchvision_detector_with_masks(monkeypatch):
    monkeypatch.setitem(globals(), "IMAGES", IMAGES[:1])  # each takes eight seconds
    spec = "torchvision:maskrcnn_resnet50_fpn(weights='random', classes=2)"
    predictor, found = predictions(spec, info_of("detection"))
    assert predictor.masks
    assert all(
        one.masks.shape == (len(one.boxes), *image.shape[:2])
        for one, image in zip(found, IMAGES, strict=True)
    )


def test_a_detector_of_boxes_alone_is_scored_on_boxes_and_says_so(tmp_path):
    data = Toys("detection", 4)
    predictor = open_predictor(
        "torchvision:ssdlite320_mobilenet_v3_large(weights='random', classes=2)", data.info
    )
    assert not predictor.masks
    run = evaluate(predictor, data, tmp_path, FEW)
    assert {m.metric for m in Store(tmp_path).measurements(run)} == {"box_ap"}


def test_torchvision_segmenter_matches_names():
    """Five of its 21 VOC classes, in another order: the label map counts in the data's."""
    info = info_of("segmentation", ("cat", "Dog", "potted plant", "background"))
    labels = {"pottedplant": "potted plant", "__background__": "background"}
    spec = f"torchvision:lraspp_mobilenet_v3_large(weights='random', labels={labels})"
    _, found = predictions(spec, info)
    assert all(
        one.label_map.shape == image.shape[:2] for one, image in zip(found, IMAGES, strict=True)
    )


def test_timm_classifier_equals_the_library(tmp_path):
    import timm
    from PIL import Image

    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=2).eval()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    _, found = predictions(
        f"timm:resnet10t(weights='{tmp_path / 'w.pth'}', classes=2)", info_of("classification")
    )
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    expected = (
        model(torch.stack([transform(Image.fromarray(image)) for image in IMAGES]))
        .softmax(1)
        .detach()
        .numpy()
    )
    assert np.allclose(np.stack([one.probabilities for one in found]), expected, atol=1e-6)


@pytest.mark.parametrize(("name", "masks"), [("yolo11n.yaml", False), ("yolo11n-seg.yaml", True)])
def test_ultralytics(name, masks):
    # a model made from YAML calls its classes by number
    names = [f"{number}" for number in range(80)]
    predictor, found = predictions(f"ultralytics:{name}(size=64)", info_of("detection", names))
    assert predictor.masks == masks
    assert len(found) == 2


class Executes:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_ultralytics_runs_no_code(tmp_path, zipped):
    torch.save(
        {"model": Executes(tmp_path / "ran")},
        tmp_path / "m.pt",
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(UserError, match="cannot load"):
        open_predictor(f"ultralytics:{tmp_path / 'm.pt'}", info_of("detection"))
    architecture = (
        f"activation: open({str(tmp_path / 'ran')!r}, 'w')\nnc: 2\n"
        "backbone: [[-1, 1, Conv, [8, 3, 2]]]\nhead: [[[0], 1, Detect, [nc]]]"
    )
    (tmp_path / "m.yaml").write_text(architecture)
    with pytest.raises(UserError, match="activation"):
        open_predictor(f"ultralytics:{tmp_path / 'm.yaml'}", info_of("detection"))
    assert not (tmp_path / "ran").exists()


def export(model, path, names):
    torch.onnx.export(
        model.eval(), (torch.zeros(1, 3, 32, 32),), str(path), output_names=names, dynamo=False
    )


def test_onnx_classifier_and_segmenter_equal_the_model(tmp_path):
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(3, 3, 3, padding=1)
    export(convolution, tmp_path / "s.onnx", ["logits"])
    export(
        torch.nn.Sequential(convolution, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()),
        tmp_path / "c.onnx",
        ["logits"],
    )
    plain = "mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)"
    _, found = predictions(f"onnx:{tmp_path / 'c.onnx'}({plain})", info_of("classification", "abc"))
    import cv2

    pixels = (
        torch.from_numpy(cv2.resize(IMAGES[0], (32, 32)).transpose(2, 0, 1)[None].copy()).float()
        / 255
    )
    with torch.no_grad():
        expected = convolution(pixels)
    assert np.allclose(
        found[0].probabilities, expected.mean((2, 3)).softmax(1)[0].numpy(), atol=1e-5
    )
    _, found = predictions(
        f"onnx:{tmp_path / 's.onnx'}({plain}, classes=('x', 'y', 'z'))",
        info_of("segmentation", "zx"),
    )
    resized = torch.nn.functional.interpolate(
        expected[:, [2, 0]], IMAGES[0].shape[:2], mode="bilinear"
    ).argmax(1)[0]
    # a tie may fall either way in the last bit
    assert (found[0].label_map == resized.numpy()).mean() > 0.999


# ---- your own
# ------------------------------------------------------------------------------

MINE = """
import numpy as np
from stillrobust.samples import Prediction
CLASSES = ("wide", "tall")
WEIGHTS = "weights.bin"
def create():
    def predict(images):
        means = [image.mean() / 255 for image in images]
        return [Prediction(probabilities=np.array([mean, 1 - mean])) for mean in means]
    return predict
"""


def test_a_python_file_is_measured_and_its_weights_are_part_of_the_key(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "weights.bin").write_bytes(b"1")
    data = Toys("classification", 4)
    run = evaluate(
        open_predictor(str(tmp_path / "mine.py"), info_of("classification")),
        data,
        tmp_path / "r",
        FEW,
    )
    assert run == "mine"
    first = Store(tmp_path / "r").measurements("mine")
    assert {(m.corruption, m.severity) for m in first} == {("clean", 0), ("fog", 2)}
    (tmp_path / "weights.bin").write_bytes(b"2")
    evaluate(
        open_predictor(str(tmp_path / "mine.py"), info_of("classification")),
        data,
        tmp_path / "r",
        FEW,
        "mine",
        replace_stale=True,
    )
    again = Store(tmp_path / "r").measurements("mine")
    assert {m.protocol["weights"] for m in first}.isdisjoint({m.protocol["weights"] for m in again})


def test_a_plain_callable_is_measured(tmp_path):
    """It answers by the truth it peeks at: top-1 is 1, clean and corrupted."""
    data = Toys("classification", 4)
    order = itertools.cycle([data[i].target.label for i in range(4)])
    predictor = Predictor(
        "classification",
        "oracle",
        lambda images: [Prediction(probabilities=np.eye(2)[next(order)]) for _ in images],
        "0",
    )
    for _ in range(3):  # one image alone is asked for before the first cell
        next(order)
    evaluate(predictor, data, tmp_path, FEW)
    assert [m.value for m in Store(tmp_path).measurements("oracle")] == [1.0, 1.0]
    assert Store(tmp_path).statistics(Cell("oracle", "fog", 2))["image_ids"].shape == (4,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "there is no create"),
        ("def create():\n    return 3", "returned int"),
        ("def create():\n    1 / 0", "ZeroDivisionError"),
        ("import nothing_of_this_name", "running it failed: ModuleNotFoundError"),
        ("WEIGHTS = 'gone.bin'\ndef create():\n    return print", r"gone\.bin"),
    ],
)
def test_bad_files(text, message, tmp_path):
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(UserError, match=message):
        open_predictor(str(tmp_path / "bad.py"), info_of("classification"))


# ---- what a model may not say
# ------------------------------------------------------------------------------

GOOD = Prediction(
    boxes=np.array([[1.0, 2.0, 30.0, 40.0]], np.float32),
    labels=np.array([1]),
    scores=np.array([0.5], np.float32),
    masks=np.zeros((1, 48, 64), bool),
)


def with_(**changes):
    return [dataclasses.replace(GOOD, **changes)]


@pytest.mark.parametrize(
    ("task", "answer", "message"),
    [
        ("detection", None, "a list of 1 prediction"),
        ("detection", [], "but got 0"),
        ("detection", [GOOD, GOOD], "but got more than 1"),
        ("detection", [{"boxes": []}], "but got dict"),
        ("detection", with_(scores=None), "scores is None"),
        ("detection", with_(scores=np.array([np.nan])), "scores in 0..1"),
        ("detection", with_(scores=np.array([3.0])), "sigmoid"),
        ("detection", with_(labels=np.array([2])), r"0\.\.1"),
        ("detection", with_(labels=np.array([0.5])), "integer"),
        ("detection", with_(boxes=np.array([[0, 0, 90, 20.0]])), "pixels of the image"),
        ("detection", with_(boxes=np.array([[0, 0, np.nan, 20.0]])), "pixels of the image"),
        ("detection", with_(boxes=np.array([[30, 0, 20, 20.0]])), "end before they start"),
        ("detection", with_(boxes=np.zeros((1, 5))), r"\(N, 4\)"),
        ("detection", with_(masks=None), "the data has masks"),
        ("detection", with_(masks=np.zeros((1, 5, 5), bool)), "the data has masks"),
        ("classification", [Prediction()], "None"),
        ("classification", [Prediction(probabilities=np.array([2.0, 3.0]))], "softmax"),
        ("classification", [Prediction(probabilities=np.array([np.nan, 1.0]))], "sum to"),
        ("classification", [Prediction(probabilities=np.ones(3) / 3)], r"shape \(2,\)"),
        ("segmentation", [Prediction(label_map=np.zeros((5, 5), np.uint8))], "resize the logits"),
        ("segmentation", [Prediction(label_map=np.full((48, 64), 7, np.uint8))], r"0\.\.1"),
        ("segmentation", [Prediction(label_map=np.full((48, 64), 0.5))], "integer labels"),
    ],
)
def test_bad_answers_are_one_sentence(task, answer, message):
    predictor = Predictor(task, "mine", lambda images: answer, "0")
    with pytest.raises(UserError, match=message) as caught:
        validated_predictor(predictor, 2, True)(IMAGES[:1], ["a.png"])
    assert "\n" not in str(caught.value)
    assert "mine" in str(caught.value)


def test_a_model_that_raises_is_one_sentence_and_nothing_is_written(tmp_path):
    def broken(images):
        raise RuntimeError("no such kernel\nmore")

    with pytest.raises(UserError, match="RuntimeError: no such kernel;"):
        evaluate(
            Predictor("classification", "broken", broken, "0"),
            Toys("classification", 2),
            tmp_path,
            FEW,
        )
    assert not Store(tmp_path).measurements()


def test_the_image_that_a_model_fails_on_is_named(tmp_path):
    """Found by predicting each image alone; so is an image whose prediction cannot be scored."""
    data = Toys("classification", 6)
    bad = data[4]

    def raises(images):
        if any(np.array_equal(image, bad.image) for image in images):
            raise ValueError("too dark")
        return [Prediction(probabilities=np.array([0.5, 0.5]))] * len(images)

    def strange(images):
        nan = np.array([np.nan, 1.0])
        return [
            Prediction(
                probabilities=nan if np.array_equal(one, bad.image) else np.array([0.5, 0.5])
            )
            for one in images
        ]

    for predict, words in ((raises, "ValueError: too dark"), (strange, "sum to")):
        with pytest.raises(UserError, match=words) as caught:
            evaluate(Predictor("classification", "mine", predict, "0"), data, tmp_path, FEW)
        assert f"{bad.target.image_id} at severity 0 (" in str(caught.value)
        assert not Store(tmp_path).measurements()


# ---- names and numbers
# ------------------------------------------------------------------------------


def test_labels_both_ways():
    info = info_of("detection", ("traffic light", "person"))
    columns = class_columns(info, ["person", "N/A", "traffic_light"], 3, {}, "m")
    assert columns.tolist() == [2, 0]
    assert dataset_labels(columns, 3).tolist() == [1, -1, 0]


@pytest.mark.parametrize(
    ("spec", "task", "message"),
    [
        ("nothing", "classification", "FILE.py, FILE.onnx"),
        ("torchvison:resnet18", "classification", "Did you mean: torchvision"),
        ("torchvision:resnet181", "classification", "Did you mean"),
        ("torchvision:resnet18(wheights='x')", "classification", "wheights"),
        ("torchvision:resnet18(weights='IMAGENET1K_V9')", "classification", "IMAGENET1K_V1"),
        ("torchvision:resnet18(weights='random')", "classification", "has no class for 2 of 2"),
        (
            "torchvision:resnet18(weights='random', classes=5)",
            "classification",
            "5 classes without names",
        ),
        ("timm:resnet18", "detection", "transfer one as a backbone"),
        ("timm:resnet1888", "classification", "Unknown timm model"),
        ("transformers:/no/such/folder", "classification", "check the path"),
        ("ultralytics:gone.pt", "detection", "check the path"),
        ("onnx:gone.onnx", "detection", "there is none"),
        ("gone.py", "detection", "check the path"),
    ],
)
def test_bad_specs(spec, task, message):
    with pytest.raises(UserError, match=message) as caught:
        open_predictor(spec, info_of(task))
    assert "\n" not in str(caught.value)


def test_data_of_other_classes_is_refused(tmp_path):
    predictor = Predictor("classification", "m", print, "0", classes=("cat", "dog"))
    with pytest.raises(UserError, match="has 2 classes \\(cat, dog\\)"):
        evaluate(predictor, Toys("classification", 2), tmp_path)
    with pytest.raises(UserError, match="is for detection"):
        evaluate(Predictor("detection", "m", print, "0"), Toys("classification", 2), tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "CLASSES = len",
        "import itertools; CLASSES = itertools.count()",
        "MASKS = 'no'",
        "WEIGHTS = '/dev/zero'",
    ],
)
def test_wrong_values_in_a_file(tmp_path, line):
    (tmp_path / "m.py").write_text(f"{line}\ndef create():\n    return print\n")
    with pytest.raises(UserError):
        open_predictor(f"{tmp_path / 'm.py'}", info_of("classification"))
