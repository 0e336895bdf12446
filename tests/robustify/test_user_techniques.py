"""A technique of one's own as a Python file: what it may be, what is refused, and who knows which
file it was.
"""

import json
import pickle

import numpy as np
import pytest
import torch

from stillrobust.errors import UserError
from stillrobust.robustify import batch_views, build_technique, cards_of, image_views
from stillrobust.robustify.technique import require_photometric
from stillrobust.training import Plan, Recipe, load_model, train
from stillrobust.training.upstream_training import robustify, robustify_plan
from stillrobust.user_files import display_name, with_content_hash
from tests.own_toys import DIM, IMAGE, written
from tests.toys import SETTINGS, Toys


@pytest.fixture
def dim(tmp_path):
    return written(tmp_path, "dim.py", DIM)


def test_a_technique_acts_per_image_and_composes(dim):
    technique = build_technique(f"{dim}+gaussian(std=0.1)")
    assert display_name(technique.spec) == "dim+gaussian(std=0.1)"
    assert [card.name for card in cards_of(dim)] == ["dim"]
    assert "Dim light" in cards_of(dim)[0].text()
    (view,) = image_views(pickle.loads(pickle.dumps(technique)), IMAGE, np.random.default_rng(0))
    assert view.dtype == np.float32
    assert view.mean() < IMAGE.mean() / 255
    require_photometric(technique, "detection")


@pytest.mark.parametrize(
    "text", [DIM.replace("GEOMETRIC = False", ""), DIM.replace("False", "True")]
)
def test_what_may_move_pixels_is_refused_on_boxes(text, tmp_path):
    technique = build_technique(written(tmp_path, "shift.py", text))
    require_photometric(technique, "classification")
    with pytest.raises(UserError, match=r"shift moves pixels.*GEOMETRIC = False in shift\.py"):
        require_photometric(technique, "detection")
    beside = build_technique(f"{tmp_path / 'shift.py'}+augmix")
    with pytest.raises(
        UserError,
        match=(
            r"use shift\.py\+augmix\(geometry=False, jsd=False\) and write GEOMETRIC = False in"
            r" shift"
        ),
    ):
        require_photometric(beside, "detection")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "there is none; add one"),
        (
            "GEOMETRIC = 'no'\ndef augment_image(image, rng): return image",
            "GEOMETRIC as True or False",
        ),
        ("VIEWS = 2\ndef augment_image(image, rng): return image", "2 views"),
        (
            "OVERLAPS_TEST = ('mist',)\ndef augment_image(image, rng): return image",
            "names of the 15",
        ),
    ],
)
def test_what_is_wrong_in_a_technique_is_told_when_it_is_built(text, said, tmp_path):
    with pytest.raises(UserError, match=said) as told:
        build_technique(written(tmp_path, "wrong.py", text))
    assert "wrong.py" in str(told.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("augment_image(image, rng): return image[:4]", "keep the size"),
        ("augment_image(image, rng): return image.astype(float)", "divide by 255"),
        ("augment_image(image, rng): return image / 0.", "values from"),
        ("augment_image(image, rng): return image.tolist()", "list"),
        ("augment_image(image, rng): return gone", "NameError"),
        ("augment_batch(images, generator): return images[:1]", "keep the shape"),
        ("augment_batch(images, generator): return images * 255", "clamp"),
        ("augment_batch(images, generator): return images.gone", "AttributeError"),
    ],
)
def test_what_a_technique_returns_is_checked(body, said, tmp_path):
    technique = build_technique(written(tmp_path, "wrong.py", f"GEOMETRIC = False\ndef {body}"))

    def act():
        views = [image_views(technique, IMAGE, np.random.default_rng(0))[0] for _ in range(2)]
        batch_views(
            technique,
            [torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)],
            torch.Generator().manual_seed(0),
        )

    with pytest.raises(UserError, match=said) as told:
        act()
    assert "wrong.py" in str(told.value)


def test_arguments_are_written_in_the_file(dim):
    with pytest.raises(UserError, match=r"no arguments for dim\.py"):
        build_technique(f"{dim}(strength=2)")


def test_a_loss_of_two_views_makes_a_backbone(tmp_path):
    text = """
VIEWS = 2
from torch.nn import functional
def augment_batch(images, generator):
    return images.flip(3)
def loss(model, views, labels, generator):
    clean, flipped = (model(view) for view in views)
    return functional.cross_entropy(clean, labels) + functional.mse_loss(clean, flipped)
"""
    path = written(tmp_path, "alike.py", text)
    recipe = Recipe(
        steps=3,
        batch_size=4,
        norm_eval=False,
        workers=1,
        settings={"resize": 64, "crop": 64, "crop_scale": (0.9, 1.0)},
    )
    folder = robustify(
        robustify_plan("resnet_mini(weights='random')", path, recipe),
        Toys("classification", 8),
        tmp_path / "made",
    )
    _, _, description = load_model(folder)
    assert description["identity"]["technique"] == "alike"
    assert description["plan"]["display_name"] == "resnet_mini (alike)"
    assert json.loads((folder / "checkpoint.json").read_text())["technique"] == "alike"
    with pytest.raises(UserError, match="alike changes more than the images"):
        require_photometric(build_technique(path), "classification")


def test_a_changed_file_is_another_training(dim, tmp_path):
    def run(folder):
        plan = Plan(
            "classification",
            "resnet18(weights='random')",
            "full_network",
            Recipe(steps=2, batch_size=4),
            settings,
            dim,
        )
        return json.loads(
            (train(plan, Toys("classification", 8), tmp_path / folder) / "model.json").read_text()
        )

    settings = SETTINGS["classification"]
    first, again = run("a"), run("b")
    assert first["sha256"] == again["sha256"]
    assert first["identity"]["technique"] == "dim"
    assert first["identity"]["technique_files"] == with_content_hash(dim)
    written(tmp_path, "dim.py", DIM.replace("0.3", "0.6"))
    changed = run("a")
    assert changed["identity"] != first["identity"]
    assert changed["sha256"] != first["sha256"]


def test_a_worker_says_one_sentence(tmp_path):
    path = written(tmp_path, "wrong.py", "def augment_image(image, rng): return gone")
    recipe = Recipe(steps=2, batch_size=4, workers=1, settings={"resize": 64, "crop": 64})
    with pytest.raises(
        UserError, match=r"^Expected augment_image[^\n]*wrong\.py[^\n]*NameError[^\n]*$"
    ):
        robustify(
            robustify_plan("resnet_mini(weights='random')", path, recipe),
            Toys("classification", 8),
            tmp_path / "made",
        )
