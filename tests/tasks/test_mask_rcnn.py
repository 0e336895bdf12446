"""Mask R-CNN as mmdetection trains and tests it: every difference from torchvision against a
formula or a case by hand.
"""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection.image_list import ImageList

from stillrobust.backbones import build_backbone, resolve_backbone
from stillrobust.samples import DatasetInfo, Sample, Target
from stillrobust.tasks import make_task, transforms
from stillrobust.tasks.detection import paste_masks
from stillrobust.tasks.mask_rcnn import (
    Anchors,
    Assignment,
    PadWithMean,
    RegionPool,
    box_loss,
    mask_targets,
    pyramid_level,
)
from stillrobust.tasks.recipes import recipe_of
from stillrobust.training import Plan
from stillrobust.training.loop import build_model
from stillrobust.training.steps import freeze_modules
from tests.toys import SETTINGS, Toys

COCO = DatasetInfo("coco", "detection", tuple(map(str, range(80))), 1, "", has_masks=True)


def detector(backbone, **settings):
    return make_task("detection", settings).build_model(
        build_backbone(f"{backbone}(weights='random')")[0], COCO
    )


@pytest.fixture(scope="module")
def coco_r50():
    return detector("resnet50")


def test_published_parameters(coco_r50):
    """44.40 M with ResNet-50 and 47.80 M with Swin-T, 81 outputs, as measured on torchvision's
    parts (protocol.md 2.6).
    """
    assert sum(parameter.numel() for parameter in coco_r50.parameters()) == 44_400_693
    assert sum(parameter.numel() for parameter in detector("swin_t").parameters()) == 47_798_959


def test_the_table(coco_r50):
    """mmdetection's configs/_base_/models/mask_rcnn_r50_fpn.py, row by row."""
    proposals, heads = coco_r50.rpn, coco_r50.roi_heads
    assert [x.shape[1] for x in coco_r50.eval().backbone(torch.zeros(1, 3, 64, 64)).values()] == [
        256
    ] * 5
    assert proposals.box_coder.weights == (1, 1, 1, 1)
    assert heads.box_coder.weights == (10, 10, 5, 5)
    for part, high, low, least in ((proposals, 0.7, 0.3, 0.3), (heads, 0.5, 0.5, 0.5)):
        matcher = part.proposal_matcher
        assert (matcher.high_threshold, matcher.low_threshold, matcher.least) == (high, low, least)
    for part, size, positive in ((proposals, 256, 0.5), (heads, 512, 0.25)):
        assert (part.fg_bg_sampler.batch_size_per_image, part.fg_bg_sampler.positive_fraction) == (
            size,
            positive,
        )
    assert (proposals._pre_nms_top_n, proposals._post_nms_top_n) == (
        {"training": 2000, "testing": 1000},
        {"training": 1000, "testing": 1000},
    )
    assert (proposals.nms_thresh, proposals.min_size, proposals.score_thresh) == (0.7, 0, 0)
    assert (heads.box_roi_pool.output_size, heads.mask_roi_pool.output_size) == ((7, 7), (14, 14))
    assert (heads.score_thresh, heads.nms_thresh, heads.detections_per_img) == (0.05, 0.5, 100)
    assert sum(isinstance(module, nn.Conv2d) for module in heads.mask_head.modules()) == 4
    assert heads.box_predictor.bbox_pred.out_features == 4 * 81  # class-specific


def test_batchnorm_policy():
    """frozen_stages=1 and norm_eval: stem and layer1 without gradient, all statistics fixed, affine
    of layers 2-4 trained.
    """
    plan = Plan("detection", "resnet50(weights='random')", "full_network", recipe_of("coco_r50_2x"))
    model, _ = build_model(plan, resolve_backbone(plan.backbone), COCO)
    model.train()
    freeze_modules(model.backbone.backbone, plan.recipe.frozen)
    body = model.backbone.backbone.model
    norms = {
        name: module for name, module in body.named_modules() if isinstance(module, nn.BatchNorm2d)
    }
    assert len(norms) == 53
    assert not any(module.training for module in norms.values())
    trained = {name for name, parameter in body.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"layer2", "layer3", "layer4"}
    assert {f"{name}.weight" for name in norms if name.startswith("layer4")} <= trained


def test_anchors_by_hand():
    """Scale 8 on stride 4 with ratio 1/2: 32 sqrt 2 wide and 32 / sqrt 2 high, not rounded; the
    pooled map keeps stride 64.
    """
    anchors = Anchors((4, 8, 16, 32, 64), 8)
    maps = [
        torch.zeros(1, 1, *size) for size in ((200, 304), (100, 152), (50, 76), (25, 38), (13, 19))
    ]
    (found,) = anchors(ImageList(torch.zeros(1, 3, 800, 1216), [(800, 1216)]), maps)
    assert len(found) == 3 * sum(
        h * w for h, w in ((200, 304), (100, 152), (50, 76), (25, 38), (13, 19))
    )
    half = torch.tensor([32 * math.sqrt(2) / 2, 32 / math.sqrt(2) / 2])
    assert torch.allclose(found[0], torch.cat([-half, half]))
    # row 1, column 1, a square
    assert torch.allclose(found[3 * 305 + 1], torch.tensor([4.0 - 16, 4 - 16, 4 + 16, 4 + 16]))
    # row 12, column 18 of the pooled map: torchvision's stride there would be 800 // 13 = 61
    last = found[-2]
    assert last.tolist() == [18 * 64 - 256, 12 * 64 - 256, 18 * 64 + 256, 12 * 64 + 256]


def assigned(overlaps, high, low, least):
    """mmdetection's MaxIoUAssigner in words: -2 undecided, -1 background."""
    result = []
    for column in overlaps.T:
        best = int(column.argmax())
        result.append(best if column[best] >= high else -1 if column[best] < low else -2)
    for number, row in enumerate(overlaps):
        if row.max() >= least:
            for place in np.flatnonzero(row == row.max()):
                result[place] = number
    return result


def test_assignment_by_hand():
    overlaps = torch.tensor(
        [
            [0.80, 0.40, 0.10, 0.35, 0.00],  # object 0: box 0
            [0.75, 0.20, 0.10, 0.35, 0.00],  # object 1: its best is box 0 too, and it comes later
            [0.00, 0.45, 0.10, 0.00, 0.00],  # object 2: box 1, though only at 0.45
            [0.00, 0.00, 0.20, 0.00, 0.00],  # object 3: nothing overlaps it by 0.3
        ]
    )
    assert Assignment(0.7, 0.3, 0.3)(overlaps).tolist() == [1, 2, -1, -2, -1]


def test_assignment_is_mmdetections_on_random_overlaps():
    rng = np.random.default_rng(0)
    for high, low, least in ((0.7, 0.3, 0.3), (0.5, 0.5, 0.5)):
        for _ in range(50):
            # coarse, so that there are ties
            overlaps = rng.integers(0, 21, (int(rng.integers(1, 6)), 30)) / 20
            found = Assignment(high, low, least)(torch.from_numpy(overlaps)).tolist()
            assert found == assigned(overlaps, high, low, least)


def test_box_loss_by_hand():
    """L1 of the own class's deltas, summed over positive boxes.

    Smooth L1 would give 0.5 (0.05)^2 9 for the small one.
    """
    deltas = torch.zeros(3, 4 * 3)
    deltas[0, 4:8] = torch.tensor([0.05, 0.0, 2.0, 0.0])  # labelled 1
    deltas[1, 4:8] = 7.0  # background: does not count
    deltas[2, 4:8], deltas[2, 8:] = 5.0, 1.0  # labelled 2: class 1's deltas do not count
    targets = torch.tensor([[0.0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]])
    assert box_loss(deltas, torch.tensor([1, 0, 2]), targets).item() == pytest.approx(
        0.05 + 2.0 + 1.0
    )


def test_proposal_losses_by_hand(coco_r50):
    """Both divided by the number of sampled anchors; here three of four."""
    scores = torch.tensor([[0.3], [-1.0], [2.0], [9.0]])
    deltas, targets = torch.zeros(4, 4), torch.zeros(4, 4)
    deltas[0] = torch.tensor([0.05, -0.1, 0.0, 2.0])
    score, box = coco_r50.rpn.compute_loss(
        scores, deltas, [torch.tensor([1.0, 0, 0, -1])], [targets]
    )
    expected = (
        math.log(1 + math.exp(-0.3)) + math.log(1 + math.exp(-1.0)) + math.log(1 + math.exp(2.0))
    ) / 3
    assert score.item() == pytest.approx(expected, rel=1e-6)
    assert box.item() == pytest.approx(2.15 / 3, rel=1e-6)


def test_regions_are_aligned_and_finely_sampled():
    """On a map that holds each pixel's own column, a bin is the mean of its samples: its centre /
    stride - 1/2.

    Without alignment it would be the centre / stride; with two samples a bin the tent at column 40
    would be missed.
    """
    columns = torch.arange(64.0).expand(1, 1, 64, 64).contiguous()
    maps = {str(level): columns for level in range(4)}
    pool = RegionPool((4, 8, 16, 32, 64), 7)
    box = torch.tensor([[20.0, 20, 55, 55]])  # side 35: the finest map
    centres = 20 + 35 / 7 * (torch.arange(7) + 0.5)
    assert torch.allclose(pool(maps, [box], [(256, 256)])[0, 0, 3], centres / 4 - 0.5, atol=1e-4)
    one = torch.zeros(1, 1, 64, 64)
    one[..., 40] = 1.0
    # 56 x 8 map pixels on stride 8: bins of 8, sampled 8 times
    wide = torch.tensor([[0.0, 0, 8 * 56, 8 * 8]])
    wide_maps = {str(level): one for level in range(4)}
    found = pool(wide_maps, [wide], [(512, 512)])[0, 0, 3]
    assert found.sum().item() == pytest.approx(1 / 8, abs=1e-5)


def test_levels_by_hand():
    """Sides of 112, 224 and 448 begin the maps of stride 8, 16 and 32 (Lin et al. 2017, eq. 1)."""
    sides = torch.tensor([10.0, 111, 112, 223, 224, 447, 448, 1300])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], dim=1)
    assert pyramid_level(boxes, 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_pooled_regions_keep_their_order():
    """Boxes of several maps and images come back in the order they went in: each holds its image's
    and its map's number.
    """
    maps = {
        str(level): torch.arange(2.0).view(2, 1, 1, 1).expand(2, 1, 64, 64) * 10 + level
        for level in range(4)
    }
    sizes = [[300.0, 20, 900, 150], [20.0, 500]]
    boxes = [torch.tensor([[0.0, 0, side, side] for side in image]) for image in sizes]
    found = RegionPool((4, 8, 16, 32, 64), 1)(maps, boxes, [(1024, 1024)] * 2).flatten().tolist()
    assert found == [2, 0, 3, 1, 10, 13]


def test_mask_targets_by_hand():
    """A mask of the box's left 5 of 8 columns at 2 x 2: the left half is full, of the right one
    quarter: 1 and 0.
    """
    mask = torch.zeros(1, 16, 16, dtype=torch.uint8)
    mask[0, 4:12, 4:9] = 1
    found = mask_targets(mask, torch.tensor([[4.0, 4, 12, 12]]), 2)
    assert found.tolist() == [[[1, 0], [1, 0]]]
    assert mask_targets(mask[:0], torch.zeros(0, 4), 28).shape == (0, 28, 28)


def test_masks_are_pasted_where_their_boxes_are():
    masks = torch.ones(3, 28, 28)
    boxes = torch.tensor([[2.0, 3, 7, 9], [-4, -4, 4, 4], [30, 30, 40, 40]])  # inside, cut, outside
    pasted = paste_masks(masks, boxes, (12, 10))
    expected = torch.zeros(12, 10, dtype=torch.bool)
    expected[3:9, 2:7] = True
    assert torch.equal(pasted[0], expected)
    assert pasted[1].nonzero().amax(dim=0).tolist() == [3, 3]
    assert not pasted[2].any()
    left = torch.zeros(1, 28, 28)
    left[..., :14] = 1.0
    assert (
        paste_masks(left, torch.tensor([[0.0, 0, 10, 10]]), (10, 10))[0, 5].tolist()
        == [True] * 5 + [False] * 5
    )


def test_padding():
    """To multiples of 32, zero once it is normalized."""
    backbone = build_backbone("resnet18(weights='random')")[0]
    batch = PadWithMean(backbone).batch_images([torch.rand(3, 20, 33), torch.rand(3, 32, 10)])
    assert batch.shape == (2, 3, 32, 64)
    assert backbone.normalize(batch)[0, :, 20:].abs().max() < 1e-6


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1067)),
        ((640, 480), (1067, 800)),
        ((427, 640), (800, 1199)),
        ((300, 1000), (400, 1333)),
        ((1, 3000), (1, 1333)),
    ],
)
def test_sizes_in_the_test(size, expected):
    """mmcv's rescale_size for (1333, 800): int(side x factor + 0.5)."""
    assert transforms.rescaled_size(size, 1333, 800) == expected


def test_predictions_are_in_the_images_own_pixels():
    """The same scene at twice the size is resized to the same pixels, and what is found is twice as
    large.
    """
    settings = SETTINGS["detection"] | {"score_threshold": 0.0}
    task = make_task("detection", settings)
    torch.manual_seed(0)
    model = task.build_model(
        build_backbone("resnet_mini(weights='random')")[0], Toys("detection").info
    ).eval()
    small = Toys("detection")[0].image
    large = small.repeat(2, axis=0).repeat(2, axis=1)
    with torch.inference_mode():
        first, second = task.predict(model, [small, large])
    assert first.masks.shape[1:] == (64, 64)
    assert second.masks.shape[1:] == (128, 128)
    assert np.allclose(first.boxes * 2, second.boxes, atol=0.5)


# ---- augmentation


def scene(rng, size=(120, 160)):
    """Rectangles that fill their boxes; the image holds the number of the object that is on top."""
    masks, image = [], np.zeros((*size, 3), np.uint8)
    for number in range(1, 6):
        (top, left), (height, width) = (
            rng.integers(0, (size[0] - 10, size[1] - 10)),
            rng.integers(6, 60, 2),
        )
        masks.append(np.zeros(size, bool))
        masks[-1][top : top + height, left : left + width] = True
        image[masks[-1]] = 40 * number
    masks = np.stack(masks)
    boxes = np.array([extent(mask) for mask in masks], np.float32)
    target = Target(
        "x",
        size,
        boxes=boxes,
        labels=np.arange(5),
        masks=masks,
        crowd=np.zeros(5, bool),
        areas=masks.sum((1, 2)) * 1.0,
    )
    return Sample(image, target)


def extent(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


SWIN = {
    "image_size": (220, 132),
    "train_sizes": tuple(range(80, 133, 8)),
    "crop_sizes": (66, 82, 100),
    "crop_range": (60, 100),
}


def test_boxes_and_masks_agree_after_swins_augmentation():
    """The mask fills its box up to what two nearest resizes of at most 2 move it: 3 pixels."""
    task = make_task("detection", SWIN)
    heights, dropped = set(), 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        sample = scene(rng)
        found = task.augment(sample, rng)
        target = found.target
        assert found.image.shape[:2] == target.size == target.masks.shape[1:]
        assert max(target.size) <= 220
        assert min(target.size) <= 132
        heights.add(min(target.size))
        dropped += 5 - len(target.boxes)
        lengths = {
            len(values)
            for values in (target.boxes, target.masks, target.labels, target.crowd, target.areas)
        }
        assert len(lengths) == 1
        height, width = target.size
        for box, mask, label in zip(target.boxes, target.masks, target.labels, strict=True):
            assert mask.any()
            assert (box[2:] > box[:2]).all()
            assert (box >= 0).all()
            assert (box <= (width, height, width, height)).all()
            # the one on top: the image shows it where its mask is
            if label == 4 and mask.sum() > 400:
                shown = found.image[..., 0] > 180
                assert (shown & mask).sum() > 0.6 * (shown | mask).sum()
            inner = extent(mask)
            touches = (inner[0] == 0, inner[1] == 0, inner[2] == width, inner[3] == height)
            if not any(touches):
                assert np.abs(np.array(inner) - box).max() <= 3
    assert len(heights & set(SWIN["train_sizes"])) > 4
    assert dropped > 20


def test_crop_by_hand():
    """A box that is cut is clipped, one that is left out goes, and so does one whose mask has
    nothing inside.
    """
    masks = np.zeros((3, 10, 10), bool)
    masks[0, 2:6, 2:6] = masks[1, 8:, 8:] = True
    # an angle: its box spans all, its mask stays outside the window
    masks[2, 0, :] = masks[2, :, 0] = True
    boxes = np.array([[2, 2, 6, 6], [8, 8, 10, 10], [0, 0, 10, 10]], np.float32)
    target = Target(
        "x",
        (10, 10),
        boxes=boxes,
        labels=np.arange(3),
        masks=masks,
        crowd=np.zeros(3, bool),
        areas=np.ones(3),
    )
    found = transforms.crop(Sample(np.zeros((10, 10, 3), np.uint8), target), (3, 1, 5, 6)).target
    assert found.size == (5, 6)
    assert found.boxes.tolist() == [[1, 0, 5, 3]]
    assert found.labels.tolist() == [0]
    assert found.masks[0].sum() == 12
    without = dataclasses.replace(target, masks=None)
    assert (
        len(
            transforms.crop(
                Sample(np.zeros((10, 10, 3), np.uint8), without), (3, 1, 5, 6)
            ).target.boxes
        )
        == 2
    )


def test_images_without_objects_train():
    """What a crop can leave: nothing.

    All losses are finite and everything still gets a gradient.
    """
    task = make_task("detection", SETTINGS["detection"])
    data = Toys("detection")
    model = task.build_model(build_backbone("resnet_mini(weights='random')")[0], data.info).train()
    empty = transforms.crop(data[0], (0, 0, 2, 64))
    assert len(empty.target.boxes) == 0
    losses = task.loss(model, [transforms.resize(empty, (64, 64))])
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert losses["loss_mask"].item() == losses["loss_box_reg"].item() == 0
    assert all(
        parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad
    )
