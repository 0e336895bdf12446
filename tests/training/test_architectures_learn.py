"""A plain ViT, a ConvNeXt and a PVT learn each task on generated images, from random weights."""

import pytest
import torch

from stillrobust.metrics import HEADLINE_METRIC, METRICS
from stillrobust.tasks.recipes import recipe_of
from stillrobust.training import Plan, load_model, train
from tests.toys import SETTINGS, Toys

BACKBONES = ["test_vit", "test_convnext", "pvt_v2_b0"]
# Of wide and tall rectangles: top-1, mIoU and box AP to reach on images that are not trained on,
# and the steps. Chance is 0.5, 0.28 (ground everywhere) and 0.
LEAST = {"classification": (0.8, 250), "segmentation": (0.45, 100), "detection": (0.1, 300)}


def score_after(task, backbone, steps, folder):
    """The headline score on new images after a full-network training from random weights."""
    recipe = recipe_of(
        "small", steps=steps, batch_size=8, backbone_lr_factor=1.0, norm_eval=False, lr=1e-3
    )
    settings = {**SETTINGS[task], **({"channels": 32} if task == "detection" else {})}
    spec = f"{backbone}(weights='random')"
    train(Plan(task, spec, "full_network", recipe, settings), Toys(task, 64), folder)
    task, model, _ = load_model(folder)
    test = Toys(task.name, 24, seed=1)
    samples = [test[place] for place in range(len(test))]
    with torch.inference_mode():
        predictions = task.predict(model, [sample.image for sample in samples])
    metric = METRICS[task.name](test.info)
    metric.update(predictions, [sample.target for sample in samples])
    return metric.compute()[HEADLINE_METRIC[task.name]]


def test_a_small_convnext_learns(tmp_path):
    """In as few steps as the fast tests have time for."""
    assert score_after("segmentation", "test_convnext", 30, tmp_path) > 0.35


@pytest.mark.slow
@pytest.mark.parametrize("task", LEAST)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_architectures_learn(task, backbone, tmp_path):
    least, steps = LEAST[task]
    score = score_after(task, backbone, steps, tmp_path)
    print(f"{task}, {backbone}: {score:.3f}")
    assert score > least
