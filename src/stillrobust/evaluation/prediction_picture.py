"""A picture of predictions beside or over the ground truth, to see a mistake at a glance."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from stillrobust.data.reading import encode_png
from stillrobust.names import format_count
from stillrobust.samples import IGNORE, Array, DatasetInfo, Image, Prediction, Sample

WIDTH = 480  # of an image in the picture, in pixels
LINE, GAP, TEXT = 22, 8, 14
TRUTH, FOUND = (20, 160, 60), (230, 90, 0)  # green and orange, as the captions say
DETECTIONS = 10  # of an image that are drawn, the best first
OUTLINE: dict[str, Any] = {"stroke_width": 2, "stroke_fill": "white"}  # of names over an image
NAME_LENGTH = 60  # characters of a caption
COLOURS = 64  # distinct colours of classes


def draw_predictions(
    info: DatasetInfo, pairs: Sequence[tuple[Sample, Prediction]], n: int
) -> bytes:
    """Draw the first images with their ground truth and predictions, below each other.

    Args:
        info: Facts about the dataset.
        pairs: Samples and predictions of one task. Images with ground truth come first.
        n: Images to draw at most.

    Returns:
        A PNG file.
    """
    pairs = sorted(pairs, key=lambda pair: not _has_truth(pair[0]))[:n]
    panels = [_panel(info, *pair) for pair in pairs]
    size = max(panel.width for panel in panels), sum(panel.height + GAP for panel in panels)
    sheet, top = Pillow.new("RGB", size, "white"), 0
    for panel in panels:
        sheet.paste(panel, (0, top))
        top += panel.height + GAP
    return encode_png(np.array(sheet))


def _has_truth(sample: Sample) -> bool:
    boxes = sample.target.boxes
    return boxes is None or len(boxes) > 0


def _panel(info: DatasetInfo, sample: Sample, prediction: Prediction) -> Pillow.Image:
    """One image with captions; label maps side by side."""
    classes = info.classes
    if info.task == "classification":
        assert prediction.probabilities is not None
        assert sample.target.label is not None
        best = int(np.argmax(prediction.probabilities))
        truth = f"ground truth: {classes[sample.target.label]}"
        found = f"prediction: {classes[best]}, {prediction.probabilities[best]:.2f}"
        images = [_resize(sample.image)]
    elif info.task == "segmentation":
        assert sample.target.label_map is not None
        assert prediction.label_map is not None
        truth, found = "left: ground truth", "right: prediction"
        images = [
            _resize(_coloured(sample.image, labels))
            for labels in (sample.target.label_map, prediction.label_map)
        ]
    else:
        image, truth, found = _draw_boxes(info, sample, prediction)
        images = [image]
    captions = ((truth, TRUTH), (found, FOUND), (sample.target.image_id, (90, 90, 90)))
    return _with_captions(images, captions)


def _with_captions(
    images: Sequence[Image], captions: Sequence[tuple[str, tuple[int, int, int]]]
) -> Pillow.Image:
    height, head = max(image.shape[0] for image in images), LINE * len(captions)
    panel = Pillow.new("RGB", (len(images) * (WIDTH + GAP), head + height), "white")
    for column, image in enumerate(images):
        panel.paste(Pillow.fromarray(image), (column * (WIDTH + GAP), head))
    draw, font = ImageDraw.Draw(panel), ImageFont.load_default(TEXT)
    for line, (text, colour) in enumerate(captions):
        draw.text((2, line * LINE + 2), text[:NAME_LENGTH], colour, font)
    return panel


def _resize(image: Image) -> Image:
    height = max(1, round(image.shape[0] * WIDTH / image.shape[1]))
    how = cv2.INTER_AREA if image.shape[1] > WIDTH else cv2.INTER_NEAREST
    return np.asarray(
        cv2.resize(image, (WIDTH, min(height, 4 * WIDTH)), interpolation=how), np.uint8
    )


def _coloured(image: Image, labels: Array) -> Image:
    """Blend an image with a colour for each class; ignored pixels become white."""
    hues = np.arange(COLOURS) * 47 % 180
    table = np.stack([hues, np.full(COLOURS, 200), np.full(COLOURS, 255)], 1).astype(np.uint8)
    colours = cv2.cvtColor(table[None], cv2.COLOR_HSV2RGB)[0]
    painted = np.where((labels == IGNORE)[..., None], 255, colours[labels % COLOURS])
    return (0.4 * image + 0.6 * painted).astype(np.uint8)


def _draw_boxes(
    info: DatasetInfo, sample: Sample, prediction: Prediction
) -> tuple[Image, str, str]:
    """Draw objects and the best detections; return the image and both captions."""
    image, target = _resize(sample.image), sample.target
    assert target.boxes is not None
    assert target.labels is not None
    assert prediction.boxes is not None
    assert prediction.labels is not None
    assert prediction.scores is not None
    scale = np.array([image.shape[1], image.shape[0]] * 2) / np.array([*target.size[::-1]] * 2)
    canvas = Pillow.fromarray(image)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(TEXT)
    best = np.argsort(-prediction.scores, kind="stable")[:DETECTIONS]
    for boxes, labels, colour, width in (
        (target.boxes, target.labels, TRUTH, 4),
        (prediction.boxes[best], prediction.labels[best], FOUND, 2),
    ):
        boxes = np.asarray(boxes) * scale
        corners = np.concatenate([boxes[:, :2], np.maximum(boxes[:, :2], boxes[:, 2:])], 1)
        for box, label in zip(corners, labels, strict=True):
            draw.rectangle([float(value) for value in box], outline=colour, width=width)
            top = float(box[1]) if colour == TRUTH else float(box[3]) - LINE
            draw.text((float(box[0]) + 4, top), info.classes[int(label)], colour, font, **OUTLINE)
    scores = ", ".join(f"{score:.2f}" for score in prediction.scores[best][:3])
    truth = f"green: ground truth, {format_count(len(target.boxes), 'box')}"
    found = f"orange: prediction, {len(best)} of {format_count(len(prediction.boxes), 'box')}"
    return np.array(canvas), truth, found + (f", scores {scores}" if scores else "")
