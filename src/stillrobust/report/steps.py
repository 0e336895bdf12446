"""The gallery's second half: one image and one corruption at a time, two models beside each other,
the worst changes first.
"""

import json
from collections.abc import Sequence
from html import escape

import numpy as np

from stillrobust.grid import CLEAN
from stillrobust.report.figures import label
from stillrobust.report.gallery import SURE, Examples, place_name, shown_examples, tile
from stillrobust.report.rows import Row
from stillrobust.samples import IGNORE, Array
from stillrobust.storage.store import Store

OF_EACH = 3  # images shown of a corruption and severity, those that change most
SAME = 0.5  # IoU from which a box is the same, as in AP50


def steps(store: Store, rows: Sequence[Row], images: dict[str, str]) -> str:
    """Figures that a script shows one at a time; empty without examples of a corrupted image.

    ``images`` as in ``gallery``.
    """
    shown = shown_examples(store, rows)
    if not shown:
        return ""
    places = set.intersection(*(set(examples) for _, examples in shown)) - {CLEAN}
    ids = [str(one) for one in shown[0][1][CLEAN]["image_ids"]]
    worst = []
    for place in sorted(places):
        found = []
        for image_id in ids:
            changes = [change(examples[CLEAN], examples[place], image_id) for _, examples in shown]
            if all(one is not None for one in changes):
                known = [one for one in changes if one is not None]
                found.append((max(known), place, image_id, known))
        worst += sorted(found, key=lambda one: -one[0])[:OF_EACH]
    worst.sort(key=lambda one: (-one[0], one[1:3]))
    figures = []
    for _, place, image_id, changes_here in worst:
        models = "".join(
            f'<div class="model" data-model="{escape(label(row, rows))}" data-change="{most:.4f}">'
            f"<b>{escape(label(row, rows))}</b>, {100 * most:.0f} % of what it says changes"
            f'<div class="pair"><div>clean{tile(row, examples[CLEAN], image_id, images)}</div>'
            f"<div>{place_name(place)}{tile(row, examples[place], image_id, images)}</div></div></div>"
            for (row, examples), most in zip(shown, changes_here, strict=True)
        )
        told = f"{place_name(place)}, <code>{escape(image_id)}</code>"
        classes = sorted(
            set.union(*(_classes(row, examples[CLEAN], image_id) for row, examples in shown))
        )
        marks = (
            f'data-corruption="{escape(place_name(place))}"'
            f' data-classes="{escape(json.dumps(classes, ensure_ascii=False))}"'
        )
        figures.append(
            f'<figure class="step" {marks}><figcaption>{told}</figcaption><div'
            f' class="models">{models}</div></figure>'
        )
    return f'<div class="steps">{"".join(figures)}</div>' if figures else ""


def change(clean: Examples, corrupted: Examples, image_id: str) -> float | None:
    """How much of what a model said of the clean image it no longer says, 0..1; ``None`` where it
    was not asked.

    Classes: 1 for another class, else what its score fell by. Label maps: the share of pixels with
    another label. Boxes: the share of those shown that no box of the class covers with an IoU of at
    least 0.5.
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
    return float(1 - ((overlap >= SAME) & alike).any(1).mean())


def _classes(row: Row, clean: Examples, image_id: str) -> set[str]:
    """What the clean image shows: its true class where that is kept, else what the model says of
    it.
    """
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
            for one in clean["labels"][(clean["box_image"] == index) & (clean["scores"] >= SURE)]
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
