"""UPerNet against published totals and transformers' head; its augmentation against
mmsegmentation's formulas.
"""

import colorsys

import cv2
import numpy as np
import pytest
import torch

from stillrobust.backbones import build_backbone
from stillrobust.errors import UserError
from stillrobust.samples import IGNORE, DatasetInfo, Sample, Target
from stillrobust.tasks import make_task, transforms
from stillrobust.tasks.upernet import FCNHead, UPerHead
from tests.toys import SETTINGS, Toys

ADE20K = DatasetInfo("ade20k", "segmentation", tuple(map(str, range(150))), 1, "")


@pytest.mark.parametrize(
    ("backbone", "total", "decode", "auxiliary"),
    [
        ("resnet50", 66_496_876, 40_590_486, 2_398_358),
        ("swin_t", 59_941_862, 31_497_366, 923_798),
        ("swin_s", 81_259_766, 31_497_366, 923_798),
        ("swin_b", 121_279_716, 33_315_990, 1_218_710),
    ],
)
def test_published_parameters(backbone, total, decode, auxiliary):
    """With 150 classes and the auxiliary head; the official README has 60M, 81M and 121M for the
    three Swins.
    """

    def parameters(module):
        return sum(parameter.numel() for parameter in module.parameters())

    with torch.device("meta"):
        model = make_task("segmentation").build_model(
            build_backbone(f"{backbone}(weights='random')")[0], ADE20K
        )
    assert (parameters(model), parameters(model.decode_head), parameters(model.auxiliary_head)) == (
        total,
        decode,
        auxiliary,
    )


def test_heads_are_transformers_with_copied_weights():
    """Both heads, every norm with statistics of its own, on maps of uneven sizes, to the last bits
    of a float.
    """
    from transformers import ResNetConfig, UperNetConfig
    from transformers.models.upernet.modeling_upernet import UperNetFCNHead, UperNetHead

    widths, channels, classes = (8, 16, 32, 64), 24, 7
    config = UperNetConfig(
        backbone_config=ResNetConfig(),
        hidden_size=channels,
        num_labels=classes,
        auxiliary_channels=12,
    )
    heads = {
        UPerHead(widths, channels, classes, 0.1): UperNetHead(config, widths),
        FCNHead(widths[2], 12, classes, 0.1): UperNetFCNHead(config, widths),
    }
    generator = torch.Generator().manual_seed(0)
    maps = [
        torch.randn(2, width, size, size + 3, generator=generator)
        for width, size in zip(widths, (29, 15, 8, 4), strict=True)
    ]
    for ours, theirs in heads.items():
        state = {
            name: torch.rand(value.shape, generator=generator) + 0.1
            for name, value in ours.state_dict().items()
        }
        ours.load_state_dict(state)
        named = {
            name.replace(".bn.", ".batch_norm.").replace("conv_seg", "classifier"): value
            for name, value in state.items()
        }
        theirs.load_state_dict(named)
        with torch.inference_mode():
            expected = theirs.eval()(maps)
            found = ours.eval()(maps if isinstance(ours, UPerHead) else maps[2])
        assert found.std() > 0.01
        assert torch.allclose(found, expected, rtol=1e-5)


def test_test_size():
    """(2048, 512) with the ratio kept; 683 x 512 stays, a panorama is bound by its long side."""
    task = make_task("segmentation")
    assert task.input_size((512, 683)) == (512, 683)
    assert task.input_size((256, 256)) == (512, 512)
    assert task.input_size((300, 2400)) == (256, 2048)
    assert task.input_size((1000, 1500), 0.5) == (256, 384)


def test_labels_come_at_the_original_size():
    """The argmax at the image's own size of logits that are resized, not of maps that are."""
    task = make_task("segmentation", SETTINGS["segmentation"] | {"test_size": (256, 96)})
    model = task.build_model(
        build_backbone("resnet_mini(weights='random')")[0], Toys("segmentation").info
    ).eval()
    image = Toys("segmentation")[0].image[:50, :61]
    with torch.inference_mode():
        (found,) = task.predict(model, [image])
        shown = transforms.resize_image(image, *transforms.rescaled_size((50, 61), 256, 96))
        assert min(shown.shape[:2]) == 96
        logits, _ = model(torch.from_numpy(shown).permute(2, 0, 1)[None].float() / 255)
        resized = torch.nn.functional.interpolate(
            logits, size=(50, 61), mode="bilinear", align_corners=False
        )
    assert np.array_equal(found.label_map, resized.softmax(1).argmax(1)[0].numpy())


def sample_of(label_map):
    label_map = np.asarray(label_map, np.uint8)
    image = np.repeat(label_map[..., None], 3, axis=2)
    return Sample(image, Target("x", label_map.shape, label_map=label_map))


def test_scale_jitter_is_of_the_test_size():
    """From half to twice (2048, 512); the label map stays with the image."""
    label_map = np.zeros((60, 80), np.uint8)
    label_map[:, 40:] = 200
    task = make_task(
        "segmentation",
        {"crop": [4000, 4000], "distortion": False, "varied": 2.0, "test_size": [256, 64]},
    )
    sides = []
    for seed in range(60):
        found = task.augment(sample_of(label_map), np.random.default_rng(seed))
        sides.append(found.target.size[0])
        agree = (found.image[..., 0] == found.target.label_map).mean()
        assert agree > 0.95  # they differ on the seam alone, where the image is between
    assert 32 <= min(sides) < 36
    assert 122 < max(sides) <= 128


def test_varied_crop_by_hand():
    """One class fills all but a corner: crops of that class alone are drawn anew, so that nearly
    all see the corner.
    """
    label_map = np.zeros((40, 40), np.uint8)
    label_map[:20, :20] = 1
    label_map[30:] = IGNORE
    shares, plain = [], []
    for seed in range(200):
        for highest, found in ((0.75, shares), (2.0, plain)):
            cut = transforms.random_varied_crop(
                sample_of(label_map), (16, 16), highest, np.random.default_rng(seed)
            ).target.label_map
            assert cut.shape == (16, 16)
            counts = np.bincount(cut[cut != IGNORE], minlength=2)
            found.append(counts.max() / counts.sum())
    assert np.mean(np.array(plain) >= 0.75) > 0.6
    assert np.mean(np.array(shares) >= 0.75) < 0.1
    small = transforms.random_varied_crop(
        sample_of(label_map[:10, :12]), (16, 16), 0.75, np.random.default_rng(0)
    )
    # never a class of 75 % fewer: after ten times the last one stays
    assert small.target.size == (10, 12)


class Fixed:
    """A generator that says what a test wants: ``random()`` in turn, ``uniform`` and ``integers``
    the given values.
    """

    def __init__(self, chances, uniform=(), integers=()):
        self.chances, self.uniforms, self.whole = iter(chances), iter(uniform), iter(integers)

    def random(self):
        return next(self.chances)

    def uniform(self, low, high):
        value = next(self.uniforms)
        assert low <= value <= high
        return value

    def integers(self, low, high):
        value = next(self.whole)
        assert low <= value < high
        return value


YES, NO = 0.0, 0.9


def test_distortion_by_hand():
    pixel = np.array([[[200, 100, 50]]], np.uint8)

    def distorted(*arguments):
        return transforms.photometric_distortion(pixel, Fixed(*arguments))[0, 0].tolist()

    # chances: brightness, contrast first or last, (contrast), saturation, hue, (contrast)
    # cut to whole numbers, not rounded
    assert distorted([YES, NO, NO, NO, NO], [-30.5]) == [169, 69, 19]
    assert distorted([YES, NO, NO, NO, NO], [32]) == [232, 132, 82]
    assert distorted([NO, YES, YES, NO, NO], [1.5]) == [255, 150, 75]  # first
    assert distorted([NO, NO, NO, NO, YES], [0.5]) == [100, 50, 25]  # last
    # HSV of (200, 100, 50): hue 20 degrees, saturation 3/4, value 200; half the saturation is (200,
    # 150, 125)
    assert np.allclose(distorted([NO, NO, YES, NO, NO], [0.5]), [200, 150, 125], atol=1)
    turned = [round(200 * value / 200) for value in (200, 150, 50)]  # 20 degrees further: hue 40
    assert np.allclose(distorted([NO, NO, NO, YES, NO], [], [10]), turned, atol=3)
    red, green, blue = distorted([NO, NO, NO, YES, NO], [], [-18])  # 36 degrees back, past red
    assert colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)[0] * 360 == pytest.approx(
        344, abs=2
    )


def test_distortion_changes_half_of_the_images_in_every_way():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    found = [
        transforms.photometric_distortion(image, np.random.default_rng(seed)) for seed in range(400)
    ]
    unchanged = np.mean([np.array_equal(image, one) for one in found])
    assert unchanged == pytest.approx(1 / 16, abs=0.04)  # none of four
    brighter = np.mean([one.mean() > image.mean() + 1 for one in found])
    assert 0.25 < brighter < 0.55
    assert cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 0].max() < 180


def test_what_is_smaller_than_the_crop_is_padded_in_the_loss():
    """With the backbone's mean and IGNORE; a technique sees the images before that."""
    task = make_task("segmentation", SETTINGS["segmentation"] | {"crop": (64, 80)})
    data = Toys("segmentation")
    model = task.build_model(build_backbone("resnet_mini(weights='random')")[0], data.info).train()
    seen = {}
    model.backbone.register_forward_pre_hook(
        lambda module, arguments: seen.update(images=arguments[0])
    )
    shapes = []

    def photometric(images):
        shapes.append(tuple(images.shape))
        return images * 0.5

    batch = [data[0], transforms.crop(data[1], (0, 0, 40, 64)), data[2]]
    task.loss(model, batch, photometric)
    assert sorted(shapes) == [(1, 3, 40, 64), (2, 3, 64, 64)]
    images, mean = seen["images"], model.backbone.pixel_mean[0]
    assert images.shape == (3, 3, 64, 80)
    assert torch.equal(images[1, :, 40:], mean.expand(3, 24, 80))
    assert torch.allclose(
        images[2, :, :, :64].permute(1, 2, 0) * 510,
        torch.from_numpy(data[2].image).float(),
        atol=1e-3,
    )


def test_more_classes_than_label_maps_hold():
    many = DatasetInfo("many", "segmentation", tuple(map(str, range(256))), 1, "")
    with pytest.raises(UserError, match="at most 255 classes"):
        make_task("segmentation").build_model(
            build_backbone("resnet_mini(weights='random')")[0], many
        )
