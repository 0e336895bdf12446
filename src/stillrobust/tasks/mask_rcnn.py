"""Mask R-CNN as mmdetection 2.x trains and tests it, out of torchvision's parts.

What differs from torchvision, each with its class here: L1 in place of smooth L1
(``ProposalNetwork``, ``RegionHeads``), masks to learn that are cut at one half (``RegionHeads``),
assignment that gives every object its best boxes (``Assignment``), RoIAlign with aligned pixels and
as many samples as a bin has pixels (``RegionPool``), base anchors that are not rounded, on the
strides of the backbone (``Anchors``), padding after normalizing (``PadWithMean``). Sources:
mmdetection core/bbox, models/dense_heads, models/roi_heads at v2.16,
configs/_base_/models/mask_rcnn_r50_fpn.py. Class 0 is the background, as torchvision has it and
where mmdetection has the last: an order of outputs, without effect on any number. Boxes are xyxy in
pixels of the resized image.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference
from torchvision.models.detection.rpn import AnchorGenerator, RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from stillrobust.backbones import Backbone
from stillrobust.tasks.distributed import mean_over_processes

# RoIs come from strides 4 to 32; the pooled fifth map serves proposals only
ROI_LEVELS = ["0", "1", "2", "3"]
# a box of this side or less comes from the finest map (mmdetection SingleRoIExtractor.finest_scale)
FINEST_SIZE = 56
DIVISOR = 32  # mmdetection Pad(size_divisor=32)
Sizes = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class MaskRCNNSettings:
    """What the model is made from.

    The defaults are the paper's scale (mmdetection's mask_rcnn_r50_fpn, COCO). Sizes in pixels.
    """

    channels: int = 256
    box_channels: int = 1024
    mask_layers: int = 4
    image_size: tuple[int, int] = (1333, 800)
    """(long side at most, short side)."""
    anchor_scale: int = 8
    """Anchors are this many strides wide."""
    proposals_before: tuple[int, int] = (2000, 1000)
    """Per level before NMS, in (training, test)."""
    proposals: tuple[int, int] = (1000, 1000)
    """After NMS, in (training, test)."""
    anchors_per_image: int = 256
    rois_per_image: int = 512
    detections: int = 100
    score_threshold: float = 0.05


class Pyramid(nn.Module):
    """Backbone and FPN: float (B, 3, H, W) -> named maps of ``out_channels`` channels, the last one
    pooled.
    """

    def __init__(self, backbone: Backbone, channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.fpn = FeaturePyramidNetwork(
            list(backbone.channels), channels, extra_blocks=LastLevelMaxPool()
        )
        self.out_channels = channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Named maps, finest first."""
        images = images.contiguous(memory_format=torch.channels_last)
        maps = OrderedDict((str(level), x) for level, x in enumerate(self.backbone(images)))
        return self.fpn(maps)  # type: ignore[no-any-return]


class PadWithMean(GeneralizedRCNNTransform):  # type: ignore[misc]
    """Pad alone: images come resized, and the backbone normalizes.

    The padding is its mean, zero once normalized.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(min_size=1, max_size=1, image_mean=[0.0] * 3, image_std=[1.0] * 3)
        self.padding = backbone.pixel_mean.view(3, 1, 1)

    def normalize(self, image: Tensor) -> Tensor:
        """Nothing: images enter the backbone as images."""
        return image

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Nothing: training and prediction resize as they read, in 8 bits as mmdetection does."""
        return image, target

    def batch_images(self, images: list[Tensor], size_divisible: int = DIVISOR) -> Tensor:
        """Images of several sizes -> one (B, 3, H, W), each at the top left."""
        height, width = (
            -(-max(int(image.shape[axis]) for image in images) // size_divisible) * size_divisible
            for axis in (1, 2)
        )
        batch = self.padding.to(images[0]).expand(3, height, width).repeat(len(images), 1, 1, 1)
        for slot, image in zip(batch, images, strict=True):
            slot[:, : image.shape[1], : image.shape[2]].copy_(image)
        return batch


class Anchors(AnchorGenerator):  # type: ignore[misc]
    """Anchors of ``scale`` strides and three shapes around every place of a map: place (i, j) is at
    (j, i) strides.
    """

    def __init__(self, strides: Sequence[int], scale: int) -> None:
        super().__init__(
            tuple((scale * stride,) for stride in strides), ((0.5, 1.0, 2.0),) * len(strides)
        )
        self.strides = tuple(strides)

    def generate_anchors(
        self,
        scales: Sequence[int],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device = torch.device("cpu"),
    ) -> Tensor:
        """(3, 4) around the origin, of area scale², not rounded; a ratio is height / width."""
        ratios = torch.tensor(aspect_ratios, dtype=dtype, device=device)
        size = torch.tensor(scales, dtype=dtype, device=device)
        width, height = size / ratios.sqrt(), size * ratios.sqrt()
        return torch.stack([-width, -height, width, height], dim=1) / 2

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """All anchors, (N, 4), once for every image.

        torchvision takes strides from sizes, which rounds where it pools.
        """
        device = feature_maps[0].device
        self.set_cell_anchors(torch.float32, device)
        grids = [list(x.shape[-2:]) for x in feature_maps]
        anchors = torch.cat(
            self.grid_anchors(
                grids, [[torch.tensor(stride, device=device)] * 2 for stride in self.strides]
            )
        )
        return [anchors] * len(image_list.image_sizes)


class Assignment(Matcher):  # type: ignore[misc]
    """mmdetection's MaxIoUAssigner: by IoU thresholds, then every object takes the boxes that
    overlap it most.

    The latter only where they overlap by ``least`` (``min_pos_iou``), to the last such object where
    there are several.
    """

    def __init__(self, high: float, low: float, least: float) -> None:
        super().__init__(high, low, allow_low_quality_matches=True)
        self.least = least

    def set_low_quality_matches_(
        self, matches: Tensor, all_matches: Tensor, match_quality_matrix: Tensor
    ) -> None:
        """IoU (objects, boxes) -> ``matches`` (boxes,), changed in place."""
        best = match_quality_matrix.amax(dim=1, keepdim=True)
        taken = (match_quality_matrix == best) & (best >= self.least)
        rank = torch.arange(1, len(taken) + 1, device=taken.device)[:, None] * taken
        last = rank.amax(dim=0)
        matches[last > 0] = last[last > 0] - 1


class RegionPool(MultiScaleRoIAlign):  # type: ignore[misc]
    """RoIAlign with aligned pixels and adaptive sampling, each box from the map that fits its size."""

    def __init__(self, strides: Sequence[int], size: int) -> None:
        super().__init__(ROI_LEVELS, size, sampling_ratio=0)
        self.strides = tuple(strides)

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: Sizes) -> Tensor:
        """Maps by name, boxes (N_i, 4) of each image -> (sum N_i, C, size, size)."""
        maps = [x[name] for name in self.featmap_names]
        image = torch.cat(
            [boxes_.new_full((len(boxes_), 1), index) for index, boxes_ in enumerate(boxes)]
        )
        rois = torch.cat([image, torch.cat(boxes)], dim=1)
        level = level_of(rois[:, 1:], len(maps))
        members = [torch.where(level == index)[0] for index in range(len(maps))]
        # In full precision: half has not the digits to tell neighbouring pixels of a large image
        # apart.
        pooled = [
            roi_align(
                x_.float(),
                rois[chosen].float(),
                self.output_size,
                1 / stride,
                sampling_ratio=0,
                aligned=True,
            )
            for x_, stride, chosen in zip(maps, self.strides, members, strict=False)
        ]
        return torch.cat(pooled)[torch.argsort(torch.cat(members))]


def level_of(boxes: Tensor, levels: int) -> Tensor:
    """(N, 4) -> (N,) index of the map that a box is pooled from (Lin et al. 2017, eq. 1)."""
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
    return torch.floor(torch.log2(side / FINEST_SIZE + 1e-6)).clamp(0, levels - 1).long()


class ProposalNetwork(RegionProposalNetwork):  # type: ignore[misc]
    """RPN with an L1 loss; both losses are means over the sampled anchors of all images and
    processes.
    """

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Scores (N, 1) and deltas (N, 4) of all anchors, labels 1, 0 and -1 (left out) ->
        (objectness, box) losses.
        """
        positive, negative = (
            torch.where(torch.cat(found))[0] for found in self.fg_bg_sampler(labels)
        )
        sampled = torch.cat([positive, negative])
        share = mean_over_processes(len(sampled), objectness.device)
        box = functional.l1_loss(
            pred_bbox_deltas[positive], torch.cat(regression_targets)[positive], reduction="sum"
        )
        score = functional.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], torch.cat(labels)[sampled], reduction="sum"
        )
        return score / share, box / share


class RegionHeads(RoIHeads):  # type: ignore[misc]
    """Box and mask heads with mmdetection's losses; ``forward`` trains or detects."""

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: Sizes,
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Maps and proposals -> detections of each image, or in training the losses."""
        if self.training:
            return [], self.losses(features, proposals, image_shapes, targets or [])
        scores, deltas = self.box_predictor(
            self.box_head(self.box_roi_pool(features, proposals, image_shapes))
        )
        found = zip(
            *self.postprocess_detections(scores.float(), deltas.float(), proposals, image_shapes),
            strict=True,
        )
        detections = [
            {"boxes": boxes, "scores": scores, "labels": labels} for boxes, scores, labels in found
        ]
        if self.has_mask():
            logits = self._mask_logits(features, [one["boxes"] for one in detections], image_shapes)
            masks = maskrcnn_inference(logits.float(), [one["labels"] for one in detections])
            for one, mask in zip(detections, masks, strict=True):
                one["masks"] = mask
        return detections, {}

    def losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: Sizes,
        targets: list[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Cross-entropy and L1, means over the sampled boxes; masks: mean over pixels of the
        positive ones.
        """
        boxes, matched, labels, regression = self.select_training_samples(proposals, targets)
        scores, deltas = self.box_predictor(
            self.box_head(self.box_roi_pool(features, boxes, image_shapes))
        )
        label = torch.cat(labels)
        share = mean_over_processes(len(label), scores.device)
        losses = {
            "loss_classifier": functional.cross_entropy(scores, label, reduction="sum") / share,
            "loss_box_reg": box_loss(deltas, label, torch.cat(regression)) / share,
        }
        if self.has_mask():
            positive = [torch.where(one > 0)[0] for one in labels]
            rois = [one[chosen] for one, chosen in zip(boxes, positive, strict=True)]
            logits = self._mask_logits(features, rois, image_shapes)
            wanted = torch.cat(
                [
                    mask_targets(target["masks"][one[chosen]], roi, logits.shape[-1])
                    for target, one, chosen, roi in zip(
                        targets, matched, positive, rois, strict=True
                    )
                ]
            )
            own = logits[torch.arange(len(logits)), label[label > 0]]
            loss = functional.binary_cross_entropy_with_logits(own, wanted, reduction="sum")
            # Without an object the sum is an empty one: zero, and still a part of the graph.
            losses["loss_mask"] = loss / mean_over_processes(wanted.numel(), loss.device)
        return losses

    def _mask_logits(
        self, features: dict[str, Tensor], boxes: list[Tensor], image_shapes: Sizes
    ) -> Tensor:
        """(sum N_i, classes, 28, 28)."""
        pooled = self.mask_roi_pool(features, boxes, image_shapes)
        return self.mask_predictor(self.mask_head(pooled))  # type: ignore[no-any-return]


def box_loss(deltas: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """L1 summed over the positive boxes, each at its own class: deltas (N, 4 classes), labels (N,),
    targets (N, 4).
    """
    positive = torch.where(labels > 0)[0]
    own = deltas.view(len(deltas), -1, 4)[positive, labels[positive]]
    return functional.l1_loss(own, targets[positive], reduction="sum")


def mask_targets(masks: Tensor, boxes: Tensor, size: int) -> Tensor:
    """What the mask head is to say: masks (N, H, W) cut to their boxes (N, 4), (N, size, size) of 0
    and 1.

    mmdetection BitmapMasks.crop_and_resize: RoIAlign with aligned pixels, then at least one half.
    """
    index = torch.arange(len(boxes), device=boxes.device)[:, None].to(boxes)
    cut = roi_align(
        masks[:, None].to(boxes),
        torch.cat([index, boxes], dim=1),
        size,
        1.0,
        sampling_ratio=0,
        aligned=True,
    )
    return (cut[:, 0] >= 0.5).to(boxes)  # type: ignore[no-any-return]


def build(
    backbone: Backbone, classes: int, has_masks: bool, settings: MaskRCNNSettings
) -> GeneralizedRCNN:
    """The detector for so many classes (without the background), its heads not yet initialized."""
    width, outputs = settings.channels, classes + 1
    strides = (*backbone.strides, 2 * backbone.strides[-1])
    proposals = ProposalNetwork(
        Anchors(strides, settings.anchor_scale),
        RPNHead(width, 3),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=settings.anchors_per_image,
        positive_fraction=0.5,
        pre_nms_top_n=dict(zip(("training", "testing"), settings.proposals_before, strict=True)),
        post_nms_top_n=dict(zip(("training", "testing"), settings.proposals, strict=True)),
        nms_thresh=0.7,
    )
    proposals.proposal_matcher = Assignment(0.7, 0.3, least=0.3)
    proposals.min_size = 0.0  # mmdetection min_bbox_size
    masks: dict[str, nn.Module] = {}
    if has_masks:
        masks = {
            "mask_roi_pool": RegionPool(strides, 14),
            "mask_head": MaskRCNNHeads(width, (width,) * settings.mask_layers, 1),
            "mask_predictor": MaskRCNNPredictor(width, width, outputs),
        }
    heads = RegionHeads(
        RegionPool(strides, 7),
        TwoMLPHead(width * 7 * 7, settings.box_channels),
        FastRCNNPredictor(settings.box_channels, outputs),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=settings.rois_per_image,
        positive_fraction=0.25,
        bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),  # standard deviations 0.1, 0.1, 0.2, 0.2
        score_thresh=settings.score_threshold,
        nms_thresh=0.5,
        detections_per_img=settings.detections,
        **masks,
    )
    heads.proposal_matcher = Assignment(0.5, 0.5, least=0.5)
    return GeneralizedRCNN(Pyramid(backbone, width), proposals, heads, PadWithMean(backbone))


def detect(model: GeneralizedRCNN, images: list[Tensor]) -> list[dict[str, Tensor]]:
    """Float (3, H_i, W_i) 0..1 -> boxes, scores, labels from 1, and masks (N, 1, 28, 28), in the
    images' pixels.
    """
    batch, _ = model.transform(images)
    features = model.backbone(batch.tensors)
    proposals, _ = model.rpn(batch, features)
    detections, _ = model.roi_heads(features, proposals, batch.image_sizes)
    return detections  # type: ignore[no-any-return]


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (N, M, M) 0..1 over their boxes (N, 4) -> bool (N, H, W): at least one half, sampled at
    the pixels' centres.

    mmdetection's _do_paste_mask; torchvision moves boxes to whole pixels first.
    """
    height, width = size
    pasted = torch.zeros((len(masks), height, width), dtype=torch.bool)
    for canvas, mask, (left, top, right, bottom) in zip(pasted, masks, boxes.tolist(), strict=True):
        first, last = max(0, int(top)), min(height, math.ceil(bottom))
        start, end = max(0, int(left)), min(width, math.ceil(right))
        if first < last and start < end:
            rows, columns = torch.arange(first, last), torch.arange(start, end)
            y = (rows + 0.5 - top) / (bottom - top) * 2 - 1
            x = (columns + 0.5 - left) / (right - left) * 2 - 1
            grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
            values = functional.grid_sample(
                mask[None, None], grid[None].to(mask), align_corners=False
            )[0, 0]
            canvas[first:last, start:end] = values >= 0.5
    return pasted
