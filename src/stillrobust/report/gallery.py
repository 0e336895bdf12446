"""Corrupted images with each model's predictions drawn over them.

Every model sees the same pixels, so the page has each image once and refers to it.
"""

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image as Picture

from stillrobust.grid import CLEAN, COMMON, GROUPS, Cell, Place
from stillrobust.report.charts import safe_json
from stillrobust.report.labels import figure_label
from stillrobust.report.rows import Row
from stillrobust.samples import IGNORE, Array
from stillrobust.storage.store import Store

# Okabe and Ito's colours (2008, Color Universal Design), distinct with every kind of colour vision.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
LONGEST = 320  # pixels of the longer side in the page
QUALITY = 82  # of the JPEG in the page
RUNS = 6  # shown per task
COLUMNS = 5  # corrupted images beside the clean one
BOXES = 8  # shown per image, highest scores first
LEAST_SCORE = 0.5  # of the boxes that are drawn
STEPS = 3  # images of a corruption and severity, those with the largest change
SAME_BOX = 0.5  # IoU from which a box is the same, as in AP50

Examples = dict[str, Array]


@dataclass(frozen=True)
class StoredImage:
    """An image that the page has once."""

    width: int
    height: int
    data: str
    """As a ``data:`` address."""


Images = dict[str, StoredImage]
"""By id; filled while the galleries are made."""


@dataclass(frozen=True)
class GalleryShape:
    """A prediction drawn over an image: a stored overlay or a box ``(x, y, width, height)``."""

    overlay: str = ""
    box: tuple[float, float, float, float] | None = None
    colour: str = ""


@dataclass(frozen=True)
class Tile:
    """An image with the predictions over it and the text below."""

    width: int
    height: int
    image: str
    shapes: tuple[GalleryShape, ...]
    labels: tuple[tuple[str, str], ...]
    """(colour, text) of the predictions; no colour for plain text."""


@dataclass(frozen=True)
class Gallery:
    """One image as each model sees it, clean and corrupted."""

    image_id: str
    headings: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Tile | None, ...]], ...]
    """Label of a model, and its tiles."""


@dataclass(frozen=True)
class SeverityStep:
    """One image under one corruption, for every model."""

    place: str
    image_id: str
    classes: str
    """Of the image, as JSON."""
    models: tuple[tuple[str, float, Tile | None, Tile | None], ...]
    """Label of a model, how much its prediction changes, and its tiles, clean and corrupted."""


def gallery(store: Store, rows: Sequence[Row], images: Images) -> Gallery | None:
    """Make a table of pictures: runs down, the clean image and corrupted ones across.

    Args:
        store: The results store.
        rows: Runs of one task.
        images: Receives the pictures.

    Returns:
        The gallery; ``None`` if the store has no example images.
    """
    shown = _runs_with_examples(store, rows)
    if not shown:
        return None
    places = _select_places([examples for _, examples in shown])
    image_id = str(shown[0][1][CLEAN]["image_ids"][0])
    lines = tuple(
        (
            figure_label(row, rows),
            tuple(make_tile(row, examples[place], image_id, images) for place in places),
        )
        for row, examples in shown
    )
    return Gallery(image_id, tuple(map(place_name, places)), lines)


def severity_steps(store: Store, rows: Sequence[Row], images: Images) -> list[SeverityStep]:
    """Make steps of one image and corruption each, largest change of a prediction first.

    Args:
        store: The results store.
        rows: Runs of one task.
        images: Receives the pictures.

    Returns:
        The steps, which a script shows one at a time.
    """
    shown = _runs_with_examples(store, rows)
    if not shown:
        return []
    places = set.intersection(*(set(examples) for _, examples in shown)) - {CLEAN}
    ids = [str(one) for one in shown[0][1][CLEAN]["image_ids"]]
    worst = []
    for place in sorted(places):
        found = []
        for image_id in ids:
            changes = [
                prediction_change(examples[CLEAN], examples[place], image_id)
                for _, examples in shown
            ]
            known = [one for one in changes if one is not None]
            if len(known) == len(changes):
                found.append((max(known), place, image_id, known))
        worst += sorted(found, key=lambda one: -one[0])[:STEPS]
    worst.sort(key=lambda one: (-one[0], one[1:3]))
    steps = []
    for _, place, image_id, here in worst:
        classes = set.union(*(_classes(row, examples[CLEAN], image_id) for row, examples in shown))
        models = tuple(
            (
                figure_label(row, rows),
                change,
                make_tile(row, examples[CLEAN], image_id, images),
                make_tile(row, examples[place], image_id, images),
            )
            for (row, examples), change in zip(shown, here, strict=True)
        )
        names = safe_json(sorted(classes))
        steps.append(SeverityStep(place_name(place), image_id, names, models))
    return steps


def _runs_with_examples(
    store: Store, rows: Sequence[Row]
) -> list[tuple[Row, dict[Place, Examples]]]:
    found = ((row, _examples(store, row)) for row in rows)
    return [(row, examples) for row, examples in found if CLEAN in examples][:RUNS]


def _examples(store: Store, row: Row) -> dict[Place, Examples]:
    found = {}
    for place in (CLEAN, *row.robustness.places):
        examples = store.examples(Cell(row.run.name, *place))
        if examples is not None and len(examples["images"]):
            found[place] = examples
    return found


def _select_places(shown: Sequence[dict[Place, Examples]]) -> list[Place]:
    """The clean image, then one corruption of each group in turn, each at its middle severity."""
    common = set.intersection(*(set(examples) for examples in shown))
    middle: dict[str, Place] = {}
    for name in COMMON:
        levels = sorted(level for corruption, level in common if corruption == name)
        if levels:
            middle[name] = (name, levels[len(levels) // 2])
    queues = [[middle[name] for name in members if name in middle] for members in GROUPS.values()]
    turns = [
        queue[turn]
        for turn in range(max(map(len, queues)))
        for queue in queues
        if turn < len(queue)
    ]
    return [CLEAN, *turns[:COLUMNS]]


def place_name(place: Place) -> str:
    """``frost 3``, or ``clean``."""
    name, level = place
    return f"{name.replace('_', ' ')} {level}" if level else "clean"


_Drawn = tuple[list[GalleryShape], list[tuple[str, str]]]


def make_tile(row: Row, examples: Examples, image_id: str, images: Images) -> Tile | None:
    """Draw a model's prediction over an image.

    Args:
        row: The run.
        examples: Images and predictions of the run at one place.
        image_id: The image.
        images: Receives the pictures.

    Returns:
        The tile; ``None`` if the run has not stored the image.
    """
    ids = [str(one) for one in examples["image_ids"]]
    if image_id not in ids:
        return None
    index = ids.index(image_id)
    image = examples["images"][index]
    height, width = image.shape[:2]
    classes = row.run.classes
    drawn: _Drawn
    if "predicted" in examples:
        drawn = [], [("", _class_text(examples, index, classes))]
    elif "label_map" in examples:
        drawn = _draw_label_map(examples["label_map"][index], classes, images)
    else:
        drawn = _draw_boxes(examples, index, classes, images)
    shapes, labels = drawn
    stored = _store_image(image, images)
    return Tile(width, height, stored, tuple(shapes), tuple(labels) or (("", "nothing"),))


def _class_text(examples: Examples, index: int, classes: Sequence[str]) -> str:
    predicted, truth = int(examples["predicted"][index]), int(examples["label"][index])
    mark = "✓" if predicted == truth else "✗"
    text = f"{mark} {_name(classes, predicted)} {100 * float(examples['score'][index]):.0f} %"
    return text if predicted == truth else f"{text}, is {_name(classes, truth)}"


def _draw_label_map(labels: Array, classes: Sequence[str], images: Images) -> _Drawn:
    """A label map over the image, and its largest classes."""
    palette = np.array([_rgb(colour) for colour in COLOURS], np.uint8)
    painted = np.zeros((*labels.shape, 4), np.uint8)
    painted[..., :3] = palette[labels % len(palette)]
    painted[..., 3] = np.where(labels == IGNORE, 0, 150)
    present, counts = np.unique(labels[labels != IGNORE], return_counts=True)
    largest = present[np.argsort(-counts, kind="stable")][:BOXES]
    named = [(COLOURS[int(one) % len(COLOURS)], _name(classes, int(one))) for one in largest]
    return [GalleryShape(overlay=_store_image(painted, images))], named


def _draw_boxes(examples: Examples, index: int, classes: Sequence[str], images: Images) -> _Drawn:
    """Boxes and masks over the image, and a text for each."""
    scores = examples["scores"]
    own = np.flatnonzero((examples["box_image"] == index) & (scores >= LEAST_SCORE))
    own = own[np.argsort(-scores[own], kind="stable")]
    shapes, labels = [], []
    for position in own[:BOXES]:
        found = int(examples["labels"][position])
        colour = COLOURS[found % len(COLOURS)]
        if "masks" in examples:
            mask = np.asarray(examples["masks"][position]) > 0
            painted = np.zeros((*mask.shape, 4), np.uint8)
            painted[mask] = (*_rgb(colour), 130)
            shapes.append(GalleryShape(overlay=_store_image(painted, images)))
        x1, y1, x2, y2 = (float(value) for value in examples["boxes"][position])
        shapes.append(GalleryShape(box=(x1, y1, max(x2 - x1, 0), max(y2 - y1, 0)), colour=colour))
        score = f"{100 * float(scores[position]):.0f} %"
        labels.append((colour, f"{_name(classes, found)} {score}"))
    if len(own) > BOXES:
        labels.append(("", f"and {len(own) - BOXES} more"))
    return shapes, labels


def _name(classes: Sequence[str], index: int) -> str:
    return classes[index] if 0 <= index < len(classes) else f"class {index}"


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def _store_image(pixels: Array, images: Images) -> str:
    """Encode an image (H, W, 3) or an overlay (H, W, 4) once, and return its id."""
    pixels = np.ascontiguousarray(pixels)
    height, width, channels = pixels.shape
    kind = "image" if channels == 3 else "over"
    key = f"{kind}-{hashlib.sha256(pixels.tobytes()).hexdigest()[:12]}"
    if key not in images:
        picture, buffer = Picture.fromarray(pixels), io.BytesIO()
        if channels == 3:
            media = "jpeg"
            _smaller(picture, Picture.Resampling.LANCZOS).save(buffer, "JPEG", quality=QUALITY)
        else:
            media = "png"
            picture = _smaller(picture, Picture.Resampling.NEAREST)
            picture = picture.quantize(16, method=Picture.Quantize.FASTOCTREE)
            picture.save(buffer, "PNG", optimize=True)
        encoded = base64.b64encode(buffer.getvalue()).decode()
        images[key] = StoredImage(width, height, f"data:image/{media};base64,{encoded}")
    return key


def _smaller(picture: Picture.Image, resampling: Picture.Resampling) -> Picture.Image:
    factor = LONGEST / max(picture.size)
    if factor >= 1:
        return picture
    width, height = picture.size
    return picture.resize(
        (max(1, round(width * factor)), max(1, round(height * factor))), resampling
    )


def prediction_change(clean: Examples, corrupted: Examples, image_id: str) -> float | None:
    """Measure how much a model's prediction changes under corruption.

    Classes: 1 for another class, otherwise the decrease of its score. Label maps: the share of
    pixels with another label. Boxes: the share without a box of the same class with an IoU of at
    least 0.5.

    Args:
        clean: Examples of the clean images.
        corrupted: Examples of the corrupted images.
        image_id: The image.

    Returns:
        0 to 1; ``None`` if one of the two lacks the image.
    """
    places = [[str(one) for one in examples["image_ids"]] for examples in (clean, corrupted)]
    if any(image_id not in ids for ids in places):
        return None
    before, after = (ids.index(image_id) for ids in places)
    if "predicted" in clean:
        same = clean["predicted"][before] == corrupted["predicted"][after]
        return float(max(0.0, clean["score"][before] - corrupted["score"][after])) if same else 1.0
    if "label_map" in clean:
        return float(np.mean(clean["label_map"][before] != corrupted["label_map"][after]))
    first, second = clean["box_image"] == before, corrupted["box_image"] == after
    if not first.any():
        return 0.0
    overlap = _iou(clean["boxes"][first], corrupted["boxes"][second])
    alike = clean["labels"][first][:, None] == corrupted["labels"][second]
    return float(1 - ((overlap >= SAME_BOX) & alike).any(1).mean())


def _classes(row: Row, clean: Examples, image_id: str) -> set[str]:
    """The true class of an image if it is stored, otherwise the predicted classes."""
    ids = [str(one) for one in clean["image_ids"]]
    if image_id not in ids:
        return set()
    index = ids.index(image_id)
    if "label" in clean:
        found = {int(clean["label"][index])}
    elif "label_map" in clean:
        found = {int(one) for one in np.unique(clean["label_map"][index])} - {IGNORE}
    else:
        found = {
            int(one)
            for one in clean["labels"][
                (clean["box_image"] == index) & (clean["scores"] >= LEAST_SCORE)
            ]
        }
    return {row.run.classes[one] for one in found if 0 <= one < len(row.run.classes)}


def _iou(first: Array, second: Array) -> Array:
    """Of boxes xyxy (N, 4) and (M, 4): (N, M)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    overlap: Array = shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-12)
    return overlap
