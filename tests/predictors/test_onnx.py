"""ONNX files as tools export them: the right box, label and score, or one sentence that names the
option.
"""

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto

from stillrobust.errors import UserError
from stillrobust.evaluation import Protocol, evaluate
from stillrobust.predictors import open_predictor, validated_predictor
from stillrobust.predictors.onnx_input import read_input
from stillrobust.predictors.onnx_options import check_options
from stillrobust.predictors.onnx_session import open_onnx
from stillrobust.samples import DatasetInfo
from stillrobust.storage.store import Store
from tests.onnx_files import write_constants, write_identity
from tests.toys import Toys

SIZE = (120, 160)
IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
BOX = np.array([[40, 30, 100, 70]], np.float32)
CENTRE = np.array([[70, 50, 60, 40]], np.float32)
WHOLE = np.array([160, 120, 160, 120], np.float32)
INFO = DatasetInfo("data", "detection", ("car", "bus"), 1, "f")
RANGE = "mean=0, std=1"
PLAIN = f"{RANGE}, boxes='xyxy', first_label=0, classes='data'"


def rows(boxes=BOX, labels=(0,), scores=(0.9,), dtype=np.int64):
    return {
        "boxes": np.asarray(boxes, np.float32),
        "labels": np.asarray(labels, dtype),
        "scores": np.asarray(scores, np.float32),
    }


def yolo(columns, *values):
    """Columns of zeros, of which the first have values."""
    table = np.zeros((1, len(values[0]), columns), np.float32)
    for column, value in enumerate(values):
        table[0, :, column] = value
    return table


# two overlapping boxes of the same object; the second is suppressed
V8 = {"output0": yolo(50, [*CENTRE[0], 0.9, 0], [*CENTRE[0] + 1, 0.6, 0])}
V5 = {
    "output": np.concatenate([V8["output0"][:, :4], np.ones((1, 1, 50)), V8["output0"][:, 4:]], 1)
    .transpose(0, 2, 1)
    .astype(np.float32)
}
END2END = {"output0": yolo(300, [*BOX[0], 0.9, 0]).transpose(0, 2, 1)}
ULTRALYTICS = {
    "author": "Ultralytics",
    "task": "detect",
    "imgsz": "[120, 160]",
    "names": "{0: 'bus', 1: 'car'}",
}
LOGITS = np.full((1, 5, 3), -9, np.float32)
LOGITS[0, :, 2] = 9
LOGITS[0, 0] = [np.log(0.9), np.log(0.05), np.log(0.05)]
QUERIES = np.repeat(CENTRE / WHOLE, 5, 0)[None]
TENSORFLOW = {
    "detection_boxes": (np.repeat(BOX, 2, 0)[:, [1, 0, 3, 2]] / WHOLE[[1, 0, 3, 2]])[None],
    "detection_classes": np.ones((1, 2), np.float32),
    "detection_scores": np.array([[0.9, 0.8]], np.float32),
    "num_detections": np.ones(1, np.float32),
}
PLUGIN = {
    "num_dets": np.array([[1]], np.int32),
    "det_boxes": np.repeat(BOX, 3, 0)[None],
    "det_scores": np.full((1, 3), 0.9, np.float32),
    "det_classes": np.zeros((1, 3), np.int32),
}
DETS = np.array([[[*BOX[0], 0.9], [0, 0, 0, 0, 0]]], np.float32)
SIZED = {"inputs": [("orig_target_sizes", TensorProto.INT64, (1, 2))]}

EXPORTS = {
    "plain": (rows(), {}, PLAIN),
    "labels from 1": (rows(labels=[1]), {}, PLAIN.replace("label=0", "label=1")),
    "background in the names": (
        rows(labels=[1]),
        {},
        PLAIN.replace("'data'", "['none', 'car', 'bus']"),
    ),
    "normalised": (rows(BOX / WHOLE), {}, f"{PLAIN}, normalized=True"),
    "cxcywh": (rows(CENTRE), {}, PLAIN.replace("xyxy", "cxcywh")),
    "xywh": (rows([[40, 30, 60, 40]]), {}, PLAIN.replace("xyxy", "xywh")),
    "yxyx": (rows([[30, 40, 70, 100]]), {}, PLAIN.replace("xyxy", "yxyx")),
    "batch axis": (rows(BOX[None], [[0]], [[0.9]]), {}, PLAIN),
    "logits": (rows(scores=[np.log(9)]), {}, f"{PLAIN}, scores='logits'"),
    "percent": (rows(scores=[90]), {}, f"{PLAIN}, scores='percent'"),
    "labels of float": (rows(dtype=np.float32), {}, PLAIN),
    "padding": (rows(np.r_[BOX, BOX * 0 - 1], [0, -1], [0.9, -1]), {}, PLAIN),
    "NHWC": (rows(), {"shape": (1, "h", "w", 3)}, PLAIN),
    "uint8": (rows(), {"dtype": "uint8"}, PLAIN.replace(f"{RANGE}, ", "")),
    "fp16": (rows(), {"dtype": "float16"}, PLAIN),
    "grey": (rows(), {"shape": (1, 1, "h", "w")}, PLAIN),
    "all axes dynamic": (rows(), {"shape": ("b", "c", "h", "w")}, f"{PLAIN}, layout='nchw'"),
    "fixed size": (rows(BOX / 2), {"shape": (1, 3, 60, 80)}, PLAIN),
    "letterbox": (rows([[20, 35, 50, 55]]), {"shape": (1, 3, 100, 80)}, f"{PLAIN}, letterbox=True"),
    "RT-DETR": (rows(), SIZED, f"{RANGE}, classes='data'"),
    "YOLOv8": (V8, {}, f"{RANGE}, letterbox=False"),
    "YOLOv8 transposed": (
        {"o": V8["output0"].transpose(0, 2, 1)},
        {},
        f"{RANGE}, letterbox=False, nms=0.7",
    ),
    "YOLOv5": (V5, {}, f"{RANGE}, letterbox=False"),
    "YOLO with NMS": (END2END, {}, f"{RANGE}, nms=False, classes='data'"),
    "YOLOv7 with NMS": ({"output": [[0, *BOX[0], 0, 0.9]]}, {}, f"{RANGE}, classes='data'"),
    "Ultralytics": (
        {"output0": V8["output0"][:, [0, 1, 2, 3, 5, 4]]},
        {"metadata": ULTRALYTICS},
        "",
    ),
    "Ultralytics with NMS": (
        {"output0": END2END["output0"] + np.array([0, 0, 0, 0, 0, 1], np.float32)},
        {"metadata": {**ULTRALYTICS, "args": "{'nms': True}"}},
        "",
    ),
    "DETR": ({"logits": LOGITS, "pred_boxes": QUERIES}, {}, RANGE),
    "DETR of sigmoids": (
        {
            "logits": yolo(2, [np.log(9)], [-9]).transpose(0, 1, 2)[:, :1] + [[[0, -20]]],
            "pred_boxes": QUERIES[:, :1],
        },
        {},
        RANGE,
    ),
    "mmdeploy": ({"dets": DETS, "labels": np.array([[0, -1]])}, {}, f"{RANGE}, classes='data'"),
    "TensorFlow": (TENSORFLOW, {"shape": (1, "h", "w", 3), "dtype": "uint8"}, "classes='data'"),
    "NMS plugin": (PLUGIN, {}, f"{RANGE}, classes='data'"),
    "SSD": (
        {
            "boxes": np.r_[BOX, BOX + 1][None] / WHOLE,
            "scores": np.array([[[0.1, 0.9, 0], [0.4, 0.6, 0]]], np.float32),
        },
        {},
        f"{RANGE}, boxes='xyxy', normalized=True, first_label=1",
    ),
}


def write(path, outputs, more):
    write_constants(
        path,
        {
            name: np.asarray(value, np.float32) if np.asarray(value).dtype == np.float64 else value
            for name, value in outputs.items()
        },
        **more,
    )


def detect(path, options, info=INFO, image=IMAGE):
    spec = f"{path}({options})" if options else str(path)
    predictor = open_predictor(spec, info)
    return validated_predictor(predictor, len(info.classes), False)([image], ["a.png"])[0]


NOT_ASKED = {("background in the names", "classes"), ("letterbox", "letterbox")}


@pytest.mark.parametrize("kind", EXPORTS)
def test_exports_give_the_right_box_or_name_the_option(kind, tmp_path):
    """Without an option that decides, the sentence names that option."""
    outputs, more, options = EXPORTS[kind]
    write(tmp_path / "m.onnx", outputs, more)
    found = detect(tmp_path / "m.onnx", options)
    best = found.scores > 0.5
    assert found.boxes[best].tolist() == [pytest.approx(BOX[0], abs=1e-3)]
    assert found.labels[best].tolist() == [0]
    assert found.scores[best].tolist() == [pytest.approx(0.9, abs=1e-3)]
    for option in filter(None, options.replace("'none', 'car', ", "'none' 'car' ").split(", ")):
        name = option.partition("=")[0]
        left = options.replace(option, "").replace(", , ", ", ").strip(", ")
        if (kind, name) in NOT_ASKED:
            continue
        with pytest.raises(UserError, match=name) as caught:
            detect(tmp_path / "m.onnx", left)
        assert "\n" not in str(caught.value)


WRONG = {
    "labels from 1 as from 0": (rows(labels=[2]), PLAIN, "first_label"),
    "labels from 0 as from 1": (rows(), PLAIN.replace("label=0", "label=1"), "first_label"),
    "percent": (rows(scores=[91]), PLAIN, "scores='percent'"),
    "logits": (rows(scores=[-3]), PLAIN, "logits"),
    "NaN": (rows(scores=[np.nan]), PLAIN, "nan"),
    "normalised": (rows(BOX / WHOLE), PLAIN, "normalized=True"),
    "not normalised": (rows(), f"{PLAIN}, normalized=True", "normalized=False"),
    "cxcywh as xyxy": (rows(CENTRE), PLAIN, "cxcywh"),
    "padding that is no padding": (rows(labels=[-1]), PLAIN, "first_label"),
    "fractions of labels": (rows(labels=[0.5], dtype=np.float32), PLAIN, "labels"),
    "more boxes than labels": (rows(np.r_[BOX, BOX]), PLAIN, r"\(2, 4\)"),
    "two images": (rows(np.stack([BOX, BOX]), [[0], [0]], [[1], [1]]), PLAIN, r"\(2, 1, 4\)"),
    "80 classes": ({"output0": np.zeros((1, 84, 99))}, f"{RANGE}, letterbox=True", "classes="),
    "DETR of 80": (
        {"logits": np.zeros((1, 5, 81)), "pred_boxes": np.zeros((1, 5, 4))},
        RANGE,
        "classes=",
    ),
    "nothing known": ({"a": BOX, "b": BOX, "c": BOX}, RANGE, r"a float \(1, 4\)"),
    "size": (rows(), f"{PLAIN}, size=(5,)", r"\(H, W\)"),
    "format": (rows(), PLAIN.replace("xyxy", "yolo"), "'cxcywh'"),
    "mean of 255": (rows(), PLAIN.replace("mean=0", "mean=123.7"), "scale=255"),
    "std of 0": (rows(), PLAIN.replace("std=1", "std=0"), "positive"),
    "overlap": (rows(), f"{PLAIN}, nms=7", "overlap"),
    "classes": (rows(), PLAIN.replace("'data'", "'voc'"), "'coco91'"),
    "unknown option": (rows(), f"{PLAIN}, sizes=3", "sizes"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_options_are_one_sentence(kind, tmp_path):
    outputs, options, message = WRONG[kind]
    write(tmp_path / "m.onnx", outputs, {})
    with pytest.raises(UserError, match=message) as caught:
        detect(tmp_path / "m.onnx", options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "options", "message"),
    [
        ({"shape": (8, 3, 64, 64)}, PLAIN, r"batch 1.*|.*\(8, 3, 64, 64\)"),
        ({"shape": (1, 4, "h", "w")}, PLAIN, r"\(1, 4, h, w\)"),
        ({"shape": (1, 3, 64)}, PLAIN, "4 axes"),
        ({"inputs": [("image_shape", TensorProto.FLOAT, (1, 2))]}, PLAIN, "image_shape"),
        ({"shape": (1, 3, 60, 80)}, f"{PLAIN}, size=(64, 64)", "leave size out"),
        ({"shape": (1, 3, 60, "w")}, PLAIN, "fixes one side"),
        ({"shape": (1, 3, "h", "w")}, f"{PLAIN}, layout='nhwc'", "layout nhwc"),
        ({"dtype": "uint8"}, PLAIN, "leave them out"),
        ({"shape": (1, 1, "h", "w")}, PLAIN.replace("std=1", "std=(1, 1, 1)"), "one channel"),
    ],
)
def test_inputs_that_are_refused(more, options, message, tmp_path):
    write(tmp_path / "m.onnx", rows(), more)
    with pytest.raises(UserError, match=message):
        detect(tmp_path / "m.onnx", options)


def test_a_model_of_80_classes_is_matched_by_names(tmp_path):
    """Data of two of COCO's classes in another order, as labels and as ids."""
    info = DatasetInfo("data", "detection", ("bus", "car"), 1, "f")
    write(tmp_path / "m.onnx", rows(labels=[2]), {})
    found = detect(tmp_path / "m.onnx", PLAIN.replace("'data'", "'coco'"), info)
    assert found.labels.tolist() == [1]
    write(tmp_path / "m.onnx", rows(np.repeat(BOX, 2, 0), [6, 90], [0.9, 0.8]), {})
    found = detect(tmp_path / "m.onnx", PLAIN.replace("'data'", "'coco91'"), info)
    assert found.labels.tolist() == [0]


def test_masks_follow_their_boxes(tmp_path):
    masks = np.zeros((3, 1, *SIZE), np.float32)
    masks[1, 0, 30:70, 40:100] = 1
    outputs = rows(np.r_[BOX * 0 - 1, BOX, BOX + 1], [-1, 0, 0], [0, 0.9, 0.8]) | {"masks": masks}
    write(tmp_path / "m.onnx", outputs, {})
    predictor = open_predictor(f"{tmp_path / 'm.onnx'}({PLAIN}, nms=0.5)", INFO)
    assert predictor.masks
    found = validated_predictor(predictor, 2, True)([IMAGE], ["a"])[0]
    assert found.masks.sum() == 40 * 60
    assert found.masks[0, 30:70, 40:100].all()


COEFFICIENTS = [0.5, 2]  # of the planes below: their sum is above 0 in the left half
PLANES = np.full((1, 2, 30, 40), -1, np.float32)
PLANES[0, 1, :, :20] = 1
SEGMENTERS = {
    "YOLOv8": (yolo(50, [*CENTRE[0], 0.9, 0, *COEFFICIENTS], [5, 5, 4, 4, 0.01, 0, 1, 1]), RANGE),
    "YOLOv5": (yolo(50, [*CENTRE[0], 1, 0.9, 0, *COEFFICIENTS]).transpose(0, 2, 1), RANGE),
    "with NMS": (
        yolo(50, [*BOX[0], 0.9, 0, *COEFFICIENTS]).transpose(0, 2, 1),
        f"{RANGE}, nms=False, classes='data'",
    ),
}


@pytest.mark.parametrize("kind", SEGMENTERS)
@pytest.mark.parametrize("letterbox", [True, False])
def test_masks_of_yolo_are_sums_of_prototypes(kind, letterbox, tmp_path):
    """In an image twice as large; with a letterbox of 20 pixels above and below."""
    table, options = SEGMENTERS[kind]
    write_constants(tmp_path / "m.onnx", {"o": table, "p": PLANES}, (1, 3, *SIZE))
    spec = f"{tmp_path / 'm.onnx'}({options}, letterbox={letterbox})"
    predictor = open_predictor(spec, INFO)
    assert predictor.masks
    assert predictor.about["read_as"]["masks"] == "prototypes"
    image = np.zeros((160 if letterbox else 240, 320, 3), np.uint8)
    found = validated_predictor(predictor, 2, True)([image], ["a"])[0]
    best = int(found.scores.argmax())
    top, bottom = (20, 100) if letterbox else (60, 140)
    assert found.boxes[best].tolist() == pytest.approx([80, top, 200, bottom], abs=1e-3)
    expected = np.zeros(image.shape[:2], bool)
    # the sum falls from 1.5 to -2.5 between the middles of two planes' pixels, 156 and 164
    expected[top:bottom, 80:159] = True
    assert (found.masks[best] == expected).all()


@pytest.mark.parametrize(
    ("shape", "dtype", "options", "expected"),
    [
        ((1, 3, "h", "w"), "float32", {"mean": 0, "std": 1}, lambda x: x / 255),
        ((1, "h", "w", 3), "float32", {"mean": 0, "std": 1, "scale": 255}, lambda x: x),
        (
            (1, 3, "h", "w"),
            "float32",
            {"mean": 0, "std": 1, "channels": "bgr"},
            lambda x: x[..., ::-1] / 255,
        ),
        (
            (1, 3, "h", "w"),
            "float16",
            {"mean": (0.5, 0.4, 0.3), "std": 0.5},
            lambda x: (x / 255 - [0.5, 0.4, 0.3]) / 0.5,
        ),
        ((1, "h", "w", 3), "uint8", {}, lambda x: x),
        (
            (1, 1, "h", "w"),
            "float32",
            {"mean": 0, "std": 1},
            lambda x: cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None] / 255,
        ),
    ],
)
def test_the_pixels_that_a_model_receives(shape, dtype, options, expected, tmp_path):
    write_identity(tmp_path / "m.onnx", shape, dtype)
    file = open_onnx(tmp_path / "m.onnx")
    names = ("size", "layout", "channels", "letterbox", "mean", "std", "classes", "first_label")
    given = dict.fromkeys([*names, "boxes", "normalized", "scores", "nms"]) | {"scale": 1}
    missing = {}
    entrance = read_input(file, check_options(given | options), missing)
    assert not missing
    feeds, _ = entrance.prepare(IMAGE)
    pixels = file.run(feeds)["pixels"][0]
    pixels = pixels if entrance.layout == "nhwc" else pixels.transpose(1, 2, 0)
    assert np.allclose(pixels, expected(IMAGE), atol=2e-3)


# ---- segmenters and classifiers

LABELS = np.zeros((12, 16), np.int64)
LABELS[:, 8:] = 1
ONE_HOT = np.eye(2, dtype=np.float32)[LABELS][None]


@pytest.mark.parametrize(
    ("output", "options"),
    [
        (ONE_HOT.transpose(0, 3, 1, 2), RANGE),
        (ONE_HOT, RANGE),
        (LABELS[None], RANGE),
        (LABELS[None, None].astype(np.uint8), RANGE),
        (ONE_HOT[..., ::-1].copy(), f"{RANGE}, classes=['bus', 'car']"),
        (1 - LABELS[None], f"{RANGE}, classes=['bus', 'car']"),
    ],
)
def test_segmenters(output, options, tmp_path):
    write_constants(tmp_path / "m.onnx", {"out": output})
    info = DatasetInfo("data", "segmentation", ("car", "bus"), 1, "f")
    found = detect(tmp_path / "m.onnx", options, info)
    assert (found.label_map[:, :70] == 0).all()
    assert (found.label_map[:, 90:] == 1).all()


@pytest.mark.parametrize(
    ("task", "output", "message"),
    [
        ("segmentation", np.zeros((1, 120, 160), np.float32), r"float32 \(1, 120, 160\)"),
        ("segmentation", np.zeros((1, 5, 12, 16), np.float32), "classes="),
        ("segmentation", np.full((1, 12, 16), 7), "from 7 to 7"),
        ("classification", np.zeros((1, 5), np.float32), r"\(1, 5\)"),
        ("classification", np.zeros((1, 2, 7, 7), np.float32), r"\(1, 2, 7, 7\)"),
        ("classification", np.zeros((1,), np.int64), "logits or probabilities"),
    ],
)
def test_outputs_that_are_refused(task, output, message, tmp_path):
    write_constants(tmp_path / "m.onnx", {"out": output})
    with pytest.raises(UserError, match=message):
        detect(tmp_path / "m.onnx", RANGE, DatasetInfo("data", task, ("car", "bus"), 1, "f"))


@pytest.mark.parametrize("output", [[[np.log(9), 0]], [[0.9, 0.1]], [[[[0.9]], [[0.1]]]]])
def test_logits_and_probabilities_of_classifiers(output, tmp_path):
    write_constants(tmp_path / "m.onnx", {"out": np.array(output, np.float32)})
    info = DatasetInfo("data", "classification", ("car", "bus"), 1, "f")
    found = detect(tmp_path / "m.onnx", RANGE, info)
    assert found.probabilities.tolist() == pytest.approx([0.9, 0.1], abs=1e-5)


def test_options_of_detectors_are_refused_for_other_tasks(tmp_path):
    write_constants(tmp_path / "m.onnx", {"out": np.zeros((1, 2), np.float32)})
    info = DatasetInfo("data", "classification", ("car", "bus"), 1, "f")
    with pytest.raises(UserError, match="no options of detectors"):
        detect(tmp_path / "m.onnx", f"{RANGE}, boxes='xyxy'", info)


def test_external_data_are_part_of_the_identity(tmp_path):
    def identity(value):
        name = "m.onnx.data"
        write_constants(tmp_path / "m.onnx", {"out": np.full((1, 2), value, np.float32)})
        model = onnx.load(tmp_path / "m.onnx")
        (tmp_path / name).unlink(missing_ok=True)
        onnx.save_model(
            model,
            tmp_path / "m.onnx",
            save_as_external_data=True,
            location=name,
            size_threshold=0,
            convert_attribute=True,
        )
        return open_onnx(tmp_path / "m.onnx").sha256, (tmp_path / "m.onnx").read_bytes()

    (first, content), (second, other) = identity(0.5), identity(0.75)
    assert content == other
    assert first != second
    (tmp_path / "m.onnx.data").unlink()
    with pytest.raises(UserError, match=r"external data 'm\.onnx\.data'"):
        open_onnx(tmp_path / "m.onnx")


def test_two_normalisations_do_not_mix_in_one_folder(tmp_path):
    data = Toys("classification", 4)
    write_constants(tmp_path / "m.onnx", {"out": np.array([[0.9, 0.1]], np.float32)})
    few = Protocol(("fog",), (2,))
    opened = [
        open_predictor(f"{tmp_path / 'm.onnx'}(mean={mean}, std=1)", data.info) for mean in (0, 0.5)
    ]
    evaluate(opened[0], data, tmp_path / "r", few)
    before = Store(tmp_path / "r").measurements()
    with pytest.raises(UserError, match="weights or options of the model differ"):
        evaluate(opened[1], data, tmp_path / "r", few)
    assert {one.protocol["weights"] for one in before} == {opened[0].weights}
    assert len(Store(tmp_path / "r").measurements()) == len(before) == 2
    assert "onnxruntime" in opened[0].about
