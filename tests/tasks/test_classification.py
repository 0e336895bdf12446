"""Classification as Salman et al. transfer to CIFAR-10, and ImageNet with the backbone's own
classifier.
"""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as reference

from stillrobust.backbones import build_backbone
from stillrobust.errors import UserError
from stillrobust.evaluation import Protocol, evaluate
from stillrobust.storage.store import Store
from stillrobust.tasks import make_task, transforms
from stillrobust.tasks.recipes import recipe_of
from stillrobust.training import Plan, load_model, train
from tests.toys import Toys


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(32, 32), (375, 500), (500, 333), (257, 256), (301, 1003)])
def test_test_transform_is_torchvisions(size, how):
    """Resize(256) and CenterCrop(224) on a Pillow image, pixel by pixel."""
    image = noise(*size)
    expected = reference.resize(Image.fromarray(image), 256, reference.InterpolationMode(how))
    expected = np.asarray(reference.center_crop(expected, 224))
    assert np.array_equal(transforms.center_crop(image, 256, 224, how), expected)


def test_random_resized_crop():
    """Crops resized by Pillow; where no crop fits, torchvision's fallback: the middle at the
    nearest allowed shape.
    """
    image = noise(32, 32)
    crops = [
        transforms.random_resized_crop(image, 224, (0.08, 1.0), np.random.default_rng(seed))
        for seed in range(20)
    ]
    assert all(crop.shape == (224, 224, 3) for crop in crops)
    assert len({crop.tobytes() for crop in crops}) == 20
    strip = noise(8, 100)
    middle = strip[:, 44:55]  # 4/3 x 8 = 11 of 100 columns
    expected = np.asarray(Image.fromarray(middle).resize((16, 16), Image.Resampling.BILINEAR))
    found = transforms.random_resized_crop(strip, 16, (1.0, 1.0), np.random.default_rng(0))
    assert abs(found.astype(int) - expected).max() == 0


def test_cifar_normalizes_inside_the_model():
    """(x - mean) / std of CIFAR, after Salman et al.; the settings come with the recipe and are
    kept with the run.
    """
    recipe = recipe_of("cifar10")
    task = Plan("classification", "resnet50", "full_network", recipe).make_task()
    model = task.build_model(
        build_backbone("resnet_mini(weights='random')")[0], Toys("classification").info
    )
    white = model.backbone.normalize(torch.ones(1, 3, 1, 1)).flatten().tolist()
    assert white == pytest.approx(
        [(1 - 0.4914) / 0.2023, (1 - 0.4822) / 0.1994, (1 - 0.4465) / 0.2010]
    )
    assert model.classifier.in_features == model.backbone.embed_dim
    own = make_task("classification", {}).build_model(
        build_backbone("resnet_mini(weights='random')")[0], Toys("classification").info
    )
    assert own.backbone.normalize(torch.ones(1, 3, 1, 1)).flatten().tolist() != pytest.approx(white)


class Thousand(Toys):
    """Toys with the number of ImageNet's classes."""

    def __init__(self, size=6):
        super().__init__("classification", size)
        self.info = dataclasses.replace(
            self.info, classes=tuple(f"n{number:08}" for number in range(1000))
        )


def test_upstream_is_published_as_a_run_and_measured(tmp_path):
    """No training: the probabilities are those of the backbone's own classifier, under the recipe's
    test transform.
    """
    settings = {"resize": 64, "crop": 64}
    plan = Plan(
        "classification",
        "resnet_mini(weights='random')",
        None,
        recipe_of("imagenet"),
        settings,
        kind="upstream",
    )
    folder = train(plan, Thousand(), tmp_path / "mini", lambda *_: pytest.fail("trained"))
    task, model, description = load_model(folder)
    assert description["plan"]["kind"] == "upstream"
    assert description["identity"]["training_data"] == "none"
    torch.manual_seed(0)  # what a recipe's seed of 0 draws
    backbone = build_backbone("resnet_mini(weights='random')")[0].eval()
    image = Thousand()[0].image
    with torch.inference_mode():
        (found,) = task.predict(model, [image])
        expected = backbone.classify(
            torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        ).softmax(1)[0]
    assert np.allclose(found.probabilities, expected.numpy(), atol=1e-6)
    evaluate(folder, Thousand(), tmp_path / "results", Protocol(("fog",), (1,)))
    assert {m.corruption for m in Store(tmp_path / "results").measurements()} == {"clean", "fog"}


def test_upstream_needs_its_classes_and_its_task(tmp_path):
    plan = Plan("classification", "resnet_mini(weights='random')", None, kind="upstream")
    with pytest.raises(UserError, match="1000 classes of resnet_mini's classifier, but got 2"):
        train(plan, Toys("classification"), tmp_path)
    with pytest.raises(UserError, match="use classification"):
        train(dataclasses.replace(plan, task="segmentation"), Toys("segmentation"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_wrong_settings():
    with pytest.raises(UserError, match="Did you mean: bicubic"):
        make_task("classification", {"interpolation": "bicubik"})
    with pytest.raises(UserError, match="crop of 1 to resize=64"):
        make_task("classification", {"resize": 64, "crop": 65})
    with pytest.raises(UserError, match="three values each"):
        make_task("classification", {"mean": [0.5]})
