"""Generated scenes: what is written is what was drawn, and the same seed draws the same."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from stillrobust.backbones import build_backbone
from stillrobust.data import open_dataset, write_scenes
from stillrobust.data.generated import scene_textures
from stillrobust.data.generated.scene_files import SceneCounts, draw_scene_at
from stillrobust.data.generated.scene_painters import build_world
from stillrobust.errors import UserError

FEW = SceneCounts(train=6, val=4, train_crops=10, val_crops=10)


def test_round_trip_of_all_formats(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    root = write_scenes(
        tmp_path / "demo", seed=3, counts=FEW, progress=lambda *done: calls.append(done)
    )
    assert calls == [(n, 30) for n in range(1, 31)]
    detection = open_dataset(f"coco:{root}/detection", "val")
    segmentation = open_dataset(f"maps:{root}/segmentation", "val")
    world = build_world()
    assert detection.info.classes == world.things
    assert segmentation.info.classes == world.classes
    assert len(segmentation.info.classes) == 16
    for index in range(FEW.val):
        scene = draw_scene_at(3, "val", index, world, 128)
        found, mapped = detection[index], segmentation[index]
        np.testing.assert_array_equal(found.image, scene.image)
        np.testing.assert_array_equal(mapped.image, scene.image)
        np.testing.assert_array_equal(found.target.masks, scene.masks)
        np.testing.assert_array_equal(found.target.boxes, scene.boxes())
        np.testing.assert_array_equal(found.target.labels, scene.labels)
        np.testing.assert_array_equal(mapped.target.label_map, scene.label_map)
        for mask, label in zip(scene.masks, scene.labels, strict=True):
            assert (scene.label_map[mask] == label).all()
    crops = open_dataset(f"folders:{root}/classification", "train")
    assert (len(crops), len(crops.info.classes), crops[0].image.shape) == (10, 10, (96, 96, 3))


def test_reuse_and_renewal(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "demo", counts=FEW)
    before = open_dataset(f"coco:{root}/detection", "val").info.fingerprint
    marker = root / "marker"
    marker.touch()
    write_scenes(root, counts=FEW)
    assert marker.exists()
    write_scenes(root, counts=FEW, seed=1)
    assert not marker.exists()
    assert open_dataset(f"coco:{root}/detection", "val").info.fingerprint != before
    write_scenes(root, counts=FEW)
    assert open_dataset(f"coco:{root}/detection", "val").info.fingerprint == before
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]  # no temporary folder stays


def test_interrupted_and_foreign_folders(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "demo", counts=FEW, progress=stop)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    with pytest.raises(UserError, match="holds something else"):
        write_scenes(tmp_path / "mine", counts=FEW)
    with pytest.raises(UserError, match="seed"):
        write_scenes(tmp_path / "demo", seed=-1)


def test_without_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    scene_textures.object_photos.cache_clear()
    scene_textures.material_photo.cache_clear()
    monkeypatch.setattr(scene_textures, "photo_folder", lambda: None)
    assert scene_textures.texture_source() == "procedural"
    for index in range(8):
        assert draw_scene_at(0, "train", index, build_world(), 64).image.std() > 2
    scene_textures.object_photos.cache_clear()
    scene_textures.material_photo.cache_clear()


def test_cutouts_and_photographs(tmp_path: Path) -> None:
    disc = np.zeros((50, 60, 4), np.uint8)
    cv2.circle(disc, (30, 25), 20, (0, 0, 255, 255), -1)  # red in BGR
    (tmp_path / "things" / "disc").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "things" / "disc" / "a.png"), disc)
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "blue.png"), np.full((80, 90, 3), (255, 0, 0), np.uint8))
    world = build_world(tmp_path / "things", tmp_path / "photos")
    assert world.classes == ("disc", "background")
    scene = draw_scene_at(0, "train", 0, world, 128)
    assert len(scene.labels)
    inside = cv2.erode(scene.masks[0].astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    red, green, blue = scene.image[inside].mean(axis=0)
    assert red > 150
    assert max(green, blue) < 20
    cv2.imwrite(str(tmp_path / "things" / "disc" / "a.png"), disc[..., :3])
    with pytest.raises(UserError, match="alpha channel"):
        draw_scene_at(0, "train", 0, world, 128)


def probe(backbone_spec: str, root: Path) -> float:
    """Top-1 on ``val`` of ridge regression on frozen, standardised features of ``train`` and its
    mirror images.
    """
    backbone, _ = build_backbone(backbone_spec)
    features, labels = {}, {}
    for split in ("train", "val"):
        data = open_dataset(f"folders:{root / 'classification'}", split)
        samples = [data[index] for index in range(len(data))]
        images = (
            torch.stack(
                [torch.from_numpy(sample.image).permute(2, 0, 1) for sample in samples]
            ).float()
            / 255
        )
        labels[split] = torch.tensor([sample.target.label for sample in samples])
        if split == "train":
            images, labels[split] = torch.cat([images, images.flip(3)]), labels[split].repeat(2)
        with torch.inference_mode():
            features[split] = torch.cat(
                [backbone.eval().embed(batch) for batch in images.split(100)]
            ).double()
    mean, spread = features["train"].mean(0), features["train"].std(0) + 1e-6
    known, asked = ((features[split] - mean) / spread for split in ("train", "val"))
    wanted = torch.nn.functional.one_hot(labels["train"]).double() - 0.1
    weights = torch.linalg.solve(
        known.T @ known + 3e3 * torch.eye(known.shape[1]).double(), known.T @ wanted
    )
    return float(((asked @ weights).argmax(1) == labels["val"]).double().mean())


@pytest.mark.slow
def test_scenes_test_transfer(tmp_path: Path) -> None:
    """ImageNet's features tell the ten classes apart and random ones do not: colour and texture
    give nothing away.
    """
    root = write_scenes(tmp_path / "scenes", counts=SceneCounts(train=1, val=1))
    assert probe("efficientnet_lite0", root) > 0.9
    assert probe("efficientnet_lite0(weights='random')", root) < 0.35
