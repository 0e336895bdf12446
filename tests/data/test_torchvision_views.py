import multiprocessing

import datasets
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image as Pillow
from torchvision import tv_tensors
from torchvision.transforms import v2

from stillrobust import corrupt
from stillrobust.data.torchvision_views import Corrupt, CorruptedItems
from stillrobust.errors import UserError


def photo(index=0):
    return np.random.RandomState(index).randint(0, 256, (24, 30, 3)).astype(np.uint8)


def test_a_transform_changes_images_alone():
    image = tv_tensors.Image(torch.from_numpy(photo()).permute(2, 0, 1))
    boxes = tv_tensors.BoundingBoxes(
        torch.tensor([[1, 2, 10, 12]]), format="XYXY", canvas_size=(24, 30)
    )
    mask = tv_tensors.Mask(torch.ones(1, 24, 30, dtype=torch.uint8))
    pipeline = v2.Compose([Corrupt("gaussian_noise", 3), v2.ToDtype(torch.float32, scale=True)])
    made, sample = pipeline(image, {"boxes": boxes, "masks": mask, "label": 3})
    assert isinstance(made, tv_tensors.Image)
    assert made.dtype == torch.float32
    assert not torch.equal((made * 255).round().to(torch.uint8), image)
    assert torch.equal(sample["boxes"], boxes)
    assert torch.equal(sample["masks"], mask)
    assert sample["label"] == 3


def test_all_kinds_of_images_have_the_same_pixels():
    pixels = photo()
    one = Corrupt("snow", 2, seed=5)
    as_tensor = (
        one(tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))).permute(1, 2, 0).numpy()
    )
    assert np.array_equal(as_tensor, np.asarray(one(Pillow.fromarray(pixels))))
    assert not np.array_equal(
        as_tensor, np.asarray(Corrupt("snow", 2, seed=6)(Pillow.fromarray(pixels)))
    )
    with pytest.raises(UserError, match="before conversion to float"):
        one(tv_tensors.Image(torch.zeros(3, 4, 4)))
    with pytest.raises(UserError, match="Did you mean"):
        Corrupt("snw", 1)


def test_any_dataset_by_index():
    tuples = CorruptedItems([(Pillow.fromarray(photo(i)), i) for i in range(3)], "fog", 3)
    dicts = CorruptedItems([{"img": photo(i), "label": i} for i in range(3)], "fog", 3, key="img")
    expected = corrupt(photo(2), "fog", 3, seed=0, image_id="2")
    assert np.array_equal(np.asarray(tuples[2][0]), expected)
    assert np.array_equal(dicts[2]["img"], expected)
    assert (tuples[2][1], dicts[2]["label"], len(dicts)) == (2, 2, 3)
    assert np.array_equal(CorruptedItems([photo(i) for i in range(3)], "fog", 3)[2], expected)
    assert len(list(tuples)) == 3
    with pytest.raises(UserError, match="under the key 'image'"):
        CorruptedItems([{"img": photo()}], "fog", 3)[0]


@pytest.mark.parametrize("workers", [0, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_workers_and_order_do_not_matter(workers):
    items = CorruptedItems([photo(i) for i in range(6)], "glass_blur", 2)
    context = multiprocessing.get_context("spawn") if workers else None
    loader = torch.utils.data.DataLoader(
        items, batch_size=2, num_workers=workers, multiprocessing_context=context
    )
    batches = torch.cat(list(loader)).numpy()
    assert np.array_equal(batches, np.stack([items[i] for i in range(6)]))


@pytest.mark.parametrize("kind", [None, "torch", "numpy"])
def test_a_hugging_face_dataset(kind):
    """The real package, an image column, in the three formats that it hands images out in."""
    images = [photo(index) for index in range(3)]
    rows = {"image": [Pillow.fromarray(image) for image in images], "label": [0, 1, 2]}
    dataset = (
        datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image()).with_format(kind)
    )
    foggy = CorruptedItems(dataset, "fog", 3)
    assert len(foggy) == 3
    for index, image in enumerate(images):
        item = foggy[index]
        made = item["image"].permute(1, 2, 0) if kind == "torch" else item["image"]
        assert np.array_equal(
            np.asarray(made), corrupt(image, "fog", 3, seed=0, image_id=str(index))
        )
        assert int(item["label"]) == index


def test_a_torchvision_dataset():
    dataset = torchvision.datasets.FakeData(2, (3, 40, 48))
    image, label = CorruptedItems(dataset, "fog", 3)[1]
    clean, own = dataset[1]
    assert np.array_equal(
        np.asarray(image), corrupt(np.asarray(clean), "fog", 3, seed=0, image_id="1")
    )
    assert label == own
