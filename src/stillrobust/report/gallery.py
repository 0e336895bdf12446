"""Corrupted images with what each model said of them, drawn as SVG over the image.

Every model sees the same pixels, so each image is in the page once and is shown again by reference.
"""

import base64
import hashlib
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image as Picture

from stillrobust.grid import CLEAN, COMMON, GROUPS, Cell, Place
from stillrobust.report.figures import COLOURS, FRAME, label
from stillrobust.report.rows import Row
from stillrobust.samples import IGNORE, Array
from stillrobust.storage.store import Store

LONGEST = 320  # pixels of the longer side in the page
QUALITY = 82  # of the JPEG in the page
ROWS = 6  # runs shown per task
COLUMNS = 5  # corrupted images beside the clean one
BOXES = 8  # shown per image, the surest first
SURE = 0.5  # boxes below this score are not drawn

Examples = dict[str, Array]


def gallery(store: Store, rows: Sequence[Row], images: dict[str, str]) -> str:
    """A table of pictures: runs down, the clean image and corrupted ones across; empty without
    examples.

    ``images`` collects the pictures by their digest; the page holds them once, see
    :func:`definitions`.
    """
    shown = shown_examples(store, rows)
    if not shown:
        return ""
    places = _chosen([examples for _, examples in shown])
    image_id = str(shown[0][1][CLEAN]["image_ids"][0])
    heads = "".join(f'<th scope="col">{place_name(place)}</th>' for place in places)
    lines = []
    for row, examples in shown:
        tiles = "".join(
            f'<td data-head="{place_name(place)}">{tile(row, examples[place], image_id, images)}</td>'
            for place in places
        )
        lines.append(f'<tr><th scope="row">{escape(label(row, rows))}</th>{tiles}</tr>')
    return (
        f'<div {FRAME} aria-label="Pictures"><table class="gallery cards">'
        f"<caption>One image, <code>{escape(image_id)}</code>, and what each model says of"
        " it.</caption>"
        f"<thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def definitions(images: dict[str, str]) -> str:
    """The pictures themselves, to be put once before the galleries."""
    return (
        '<svg class="store" width="0" height="0"'
        f' aria-hidden="true"><defs>{"".join(images.values())}</defs></svg>'
    )


def shown_examples(store: Store, rows: Sequence[Row]) -> list[tuple[Row, dict[Place, Examples]]]:
    """The runs of a gallery with what they keep."""
    found = ((row, _examples(store, row)) for row in rows)
    return [(row, examples) for row, examples in found if CLEAN in examples][:ROWS]


def _examples(store: Store, row: Row) -> dict[Place, Examples]:
    found = {}
    for place in (
        CLEAN,
        *((name, level) for name in COMMON for level in row.robustness.severities),
    ):
        examples = store.examples(Cell(row.run.name, *place))
        if examples is not None and len(examples["images"]):
            found[place] = examples
    return found


def _chosen(shown: Sequence[dict[Place, Examples]]) -> list[Place]:
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


def tile(row: Row, examples: Examples, image_id: str, images: dict[str, str]) -> str:
    """The image with what the model says drawn in and written below; empty if it was not kept."""
    ids = [str(one) for one in examples["image_ids"]]
    if image_id not in ids:
        return ""
    index = ids.index(image_id)
    height, width = examples["images"][index].shape[:2]
    digest = _keep(examples["images"][index], images)
    classes = row.run.classes
    if "predicted" in examples:
        over, below = "", _said(examples, index, classes)
    elif "label_map" in examples:
        over, below = _painted(examples["label_map"][index], classes, images)
    else:
        over, below = _boxed(examples, index, classes, images)
    picture = (
        f'<svg class="tile" viewBox="0 0 {width} {height}" aria-hidden="true"><use'
        f' href="#{digest}"/>{over}</svg>'
    )
    return f'{picture}<div class="said">{below}</div>'


def _said(examples: Examples, index: int, classes: Sequence[str]) -> str:
    predicted, truth = int(examples["predicted"][index]), int(examples["label"][index])
    mark = "✓" if predicted == truth else "✗"
    text = f"{mark} {_name(classes, predicted)} {100 * float(examples['score'][index]):.0f} %"
    return escape(text if predicted == truth else f"{text}, is {_name(classes, truth)}")


def _painted(labels: Array, classes: Sequence[str], images: dict[str, str]) -> tuple[str, str]:
    """A label map laid over the image, and its largest classes."""
    palette = np.array(
        [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in COLOURS], np.uint8
    )
    painted = np.zeros((*labels.shape, 4), np.uint8)
    painted[..., :3] = palette[labels % len(palette)]
    painted[..., 3] = np.where(labels == IGNORE, 0, 150)
    present, counts = np.unique(labels[labels != IGNORE], return_counts=True)
    largest = present[np.argsort(-counts, kind="stable")][:BOXES]
    chips = "".join(
        _chip(COLOURS[int(one) % len(COLOURS)], _name(classes, int(one))) for one in largest
    )
    return _overlay(painted, images), chips or "nothing"


def _boxed(
    examples: Examples, index: int, classes: Sequence[str], images: dict[str, str]
) -> tuple[str, str]:
    """Boxes and masks over the image, and a line for each."""
    scores = examples["scores"]
    mine = np.flatnonzero((examples["box_image"] == index) & (scores >= SURE))
    mine = mine[np.argsort(-scores[mine], kind="stable")]
    hidden = len(mine) - len(mine[:BOXES])
    shapes, chips = [], []
    for position in mine[:BOXES]:
        found = int(examples["labels"][position])
        colour = COLOURS[found % len(COLOURS)]
        if "masks" in examples:
            mask = np.asarray(examples["masks"][position]) > 0
            painted = np.zeros((*mask.shape, 4), np.uint8)
            painted[mask] = (*(int(colour[i : i + 2], 16) for i in (1, 3, 5)), 130)
            shapes.append(_overlay(painted, images))
        x1, y1, x2, y2 = (float(value) for value in examples["boxes"][position])
        area = (
            f'x="{x1:.1f}" y="{y1:.1f}" width="{max(x2 - x1, 0):.1f}"'
            f' height="{max(y2 - y1, 0):.1f}"'
        )
        shapes.append(f'<rect {area} class="halo"/><rect {area} class="box" stroke="{colour}"/>')
        chips.append(
            _chip(colour, f"{_name(classes, found)} {100 * float(scores[position]):.0f} %")
        )
    if hidden:
        chips.append(f"and {hidden} more")
    return "".join(shapes), "".join(chips) or "nothing"


def _chip(colour: str, text: str) -> str:
    return f'<span class="chip"><i style="background:{colour}"></i>{escape(text)}</span>'


def _name(classes: Sequence[str], index: int) -> str:
    return classes[index] if 0 <= index < len(classes) else f"class {index}"


def _keep(image: Array, images: dict[str, str]) -> str:
    """The id of an image in the page; it is encoded when it comes for the first time."""
    digest = "image-" + hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()[:12]
    if digest not in images:
        height, width = image.shape[:2]
        picture = _smaller(
            Picture.fromarray(np.ascontiguousarray(image)), Picture.Resampling.LANCZOS
        )
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=QUALITY)
        images[digest] = (
            f'<image id="{digest}" width="{width}" height="{height}" preserveAspectRatio="none" '
            f'href="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"/>'
        )
    return digest


def _overlay(painted: Array, images: dict[str, str]) -> str:
    """What is painted over an image, kept once as the images are: the clean one is shown beside
    every corruption.
    """
    digest = "over-" + hashlib.sha256(np.ascontiguousarray(painted).tobytes()).hexdigest()[:12]
    if digest not in images:
        height, width = painted.shape[:2]
        picture = _smaller(Picture.fromarray(painted), Picture.Resampling.NEAREST)
        buffer = io.BytesIO()
        picture.quantize(16, method=Picture.Quantize.FASTOCTREE).save(buffer, "PNG", optimize=True)
        images[digest] = (
            f'<image id="{digest}" width="{width}" height="{height}" preserveAspectRatio="none" '
            f'href="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"/>'
        )
    return f'<use href="#{digest}"/>'


def _smaller(picture: Picture.Image, resampling: Picture.Resampling) -> Picture.Image:
    factor = LONGEST / max(picture.size)
    if factor >= 1:
        return picture
    width, height = picture.size
    return picture.resize(
        (max(1, round(width * factor)), max(1, round(height * factor))), resampling
    )
