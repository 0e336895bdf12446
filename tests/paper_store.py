"""Stores of invented numbers with per-image statistics, so that intervals and claims can be
planted.
"""

import numpy as np

from stillrobust.grid import COMMON, Cell
from stillrobust.storage.files import content_key
from stillrobust.storage.store import Run, Store

METRIC = {"classification": "top1", "detection": "box_ap", "segmentation": "miou"}


def fill(
    root,
    name,
    clean,
    corrupted,
    task="classification",
    images=300,
    severities=(1,),
    backbone="b",
    transfer="full_network",
    kind="transfer",
):
    """A run whose images are right with these chances.

    The same images are hard for every run, and the chance is each run's own.
    """
    store = Store(root)
    store.write_run(
        Run(name, task, backbone, transfer, "toy", {"training": {"lr": 1}}, ("a", "b"), kind)
    )
    hard = np.random.default_rng(0).random(images)
    for index, place in enumerate([("clean", 0), *((c, s) for c in COMMON for s in severities)]):
        own = np.random.default_rng([*map(ord, name), index]).random(images)
        right = (0.7 * hard + 0.3 * own < (corrupted if place[1] else clean)).astype(float)
        ids = np.array([f"{number}.png" for number in range(images)])
        statistics = {"image_ids": ids, "correct": right}
        if task == "segmentation":
            statistics = {
                "image_ids": ids,
                "intersections": right[:, None] * 10,
                "unions": np.full((images, 1), 10.0),
            }
        metrics = {METRIC[task]: right.mean()}
        if task == "detection":  # without statistics, and so without intervals
            statistics, metrics = {}, {"box_ap": right.mean(), "mask_ap": 0.9 * right.mean()}
        protocol = {"seed": 0, "weights": name}
        store.write_cell(
            Cell(name, *place),
            content_key({"run": name, "place": index}),
            metrics,
            protocol,
            images,
            1.0,
            statistics,
        )
