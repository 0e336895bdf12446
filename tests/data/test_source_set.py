"""The embedded source set: twenty classes of its own, the same pixels every time, and shapes that
can be told apart.
"""

import json

import numpy as np
import pytest

from stillrobust.data import open_dataset
from stillrobust.data.generated import source_shapes
from stillrobust.data.generated.scene_painters import Place, build_world, paint_drawn_thing
from stillrobust.data.generated.scene_shapes import SCENE_SHAPES
from stillrobust.data.generated.source_set import draw_source, source_world, write_source_set
from stillrobust.data.reading import read_image
from stillrobust.errors import UserError


def test_no_class_of_the_scenes():
    world = source_world()
    assert len(world.things) == 20
    assert not set(world.classes) & set(build_world().classes)
    assert not set(world.things) & set(SCENE_SHAPES)


def test_layout_and_what_it_depends_on(tmp_path):
    heard = []
    root = write_source_set(
        tmp_path / "source",
        train=2,
        val=1,
        size=32,
        progress=lambda done, total: heard.append((done, total)),
    )
    assert heard[-1] == (60, 60)
    train, val = (open_dataset(f"folders:{root}", split) for split in ("train", "val"))
    assert (len(train), len(val)) == (40, 20)
    assert train.info.classes == tuple(sorted(source_world().things)) == source_world().things
    fewer = write_source_set(tmp_path / "fewer", train=1, val=1, size=32)
    for path in sorted(fewer.rglob("*.png")):
        assert np.array_equal(read_image(path), read_image(root / path.relative_to(fewer))), (
            "an image does not depend on the count"
        )
    assert json.loads((root / "scenes.json").read_text())["kind"] == "source"


def test_drawn_once_and_again_when_asked_for_more(tmp_path):
    root = write_source_set(tmp_path / "source", train=1, val=1, size=32)
    mark = root / "train" / "star" / "mine.txt"
    mark.touch()
    write_source_set(root, train=1, val=1, size=32)
    assert mark.exists(), "kept as it is"
    write_source_set(root, train=1, val=1, size=32, seed=1)
    assert not mark.exists()


def test_splits_and_seeds_differ():
    world = source_world()
    images = [
        draw_source(seed, split, 7, world, 32) for seed in (0, 1) for split in ("train", "val")
    ]
    assert all(not np.array_equal(a, b) for i, a in enumerate(images) for b in images[:i])
    assert np.array_equal(images[0], draw_source(0, "train", 7, source_world(), 32))


@pytest.mark.parametrize("name", source_shapes.SOURCE_SHAPES)
def test_every_thing_fills_its_place(name):
    label = list(source_shapes.SOURCE_SHAPES).index(name)
    shares = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        _, coverage = paint_drawn_thing(
            rng, label, Place(32, 32, 48), 64, things=source_shapes.SOURCE_SHAPES
        )
        shares.append(coverage.mean())
        for parts in (source_shapes.SOURCE_SHAPES[name](rng) for _ in range(3)):
            assert all(np.abs(outline).max() <= 1.2 for outline, _ in parts)
            assert all(fill in (0, 1, 2) for _, fill in parts)
    assert 0.06 < np.mean(shares) < 0.5


def test_shapes_can_be_told_apart():
    """Nearest mean silhouette, on other draws: the least that a class must say; chance is 5 %."""

    def silhouettes(seeds):
        drawn = []
        for label in range(20):
            for seed in seeds:
                rng = np.random.default_rng([label, seed])
                _, coverage = paint_drawn_thing(
                    rng, label, Place(16, 16, 24), 32, things=source_shapes.SOURCE_SHAPES
                )
                drawn.append(np.maximum(coverage, coverage[:, ::-1]).ravel())
        return np.array(drawn).reshape(20, len(seeds), -1)

    means, others = silhouettes(range(20)).mean(1), silhouettes(range(20, 30))
    distances = ((others[:, :, None] - means) ** 2).sum(-1)
    assert (distances.argmin(-1) == np.arange(20)[:, None]).mean() > 0.6


def test_refusals(tmp_path):
    for wrong in ({"seed": -1}, {"train": 0}, {"val": 0}, {"size": 16}):
        with pytest.raises(UserError, match="Expected a seed from 0"):
            write_source_set(tmp_path / "source", **wrong)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    with pytest.raises(UserError, match="something else"):
        write_source_set(tmp_path / "mine")
