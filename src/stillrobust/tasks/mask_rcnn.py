"""Mask R-CNN as mmdetection 2.x trains and tests it, built from torchvision's parts.

These classes differ from torchvision's: ``ProposalNetwork`` and ``RegionHeads`` use L1 instead of
smooth L1; ``RegionHeads`` cuts mask targets at one half; ``Assignment`` gives every object its best
boxes; ``RegionPool`` aligns pixels and takes as many samples as a bin has pixels; ``Anchors`` does
not round, and uses the backbone's strides; ``PadWithMean`` pads after the normalization. Sources:
mmdetection core/bbox, models/dense_heads and models/roi_heads at v2.16, and
configs/_base_/models/mask_rcnn_r50_fpn.py. Class 0 is the background as in torchvision, whereas it
is the last class in mmdetection; no number depends on it. Boxes are xyxy in pixels of the resized
image.
"""

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
from torchvision.ops import MultiScaleRoIAlign, roi_align

from stillrobust.backbones import Backbone
from stillrobust.tasks.distributed import mean_over_processes
from stillrobust.tasks.necks import detection_neck, pyramid_strides

# RoIs come from strides 4 to 32; the pooled fifth map serves proposals only
ROI_LEVELS = ["0", "1", "2", "3"]
# a box of this side or less comes from the finest map (mmdetection SingleRoIExtractor.finest_scale)
FINEST_SIZE = 56
DIVISOR = 32  # mmdetection Pad(size_divisor=32)
Sizes = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class MaskRCNNSettings:
    """Settings of the model, in pixels.

    The defaults are the paper's (mmdetection's mask_rcnn_r50_fpn on COCO).
    """

    channels: int = 256
    box_channels: int = 1024
    mask_layers: int = 4
    image_size: tuple[int, int] = (1333, 800)
    """(longest long side, short side)."""
    anchor_scale: int = 8
    """Side of the square anchors, in strides."""
    proposals_before: tuple[int, int] = (2000, 1000)
    """Proposals of a level before NMS in (training, test)."""
    proposals: tuple[int, int] = (1000, 1000)
    """Proposals after NMS in (training, test)."""
    anchors_per_image: int = 256
    rois_per_image: int = 512
    detections: int = 100
    score_threshold: float = 0.05


class Pyramid(nn.Module):
    """Backbone and neck: (B, 3, H, W) -> five named maps (B, channels, H/s_i, W/s_i).

    Args:
        backbone: With maps at ``pyramid_strides``, or such that a neck makes them.
        channels: Channels of the maps; the fifth is pooled from the fourth.
    """

    def __init__(self, backbone: Backbone, channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.fpn = detection_neck(backbone, channels)
        self.out_channels = channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Float (B, 3, H, W) of 0..1 -> maps (B, channels, H/s_i, W/s_i), finest first."""
        images = images.contiguous(memory_format=torch.channels_last)
        return self.fpn(self.backbone(images))  # type: ignore[no-any-return]


class PadWithMean(GeneralizedRCNNTransform):  # type: ignore[misc]
    """Pads images to a batch; they are resized before, and the backbone normalizes them.

    The padding is the backbone's mean, which its normalization turns into zero.

    Args:
        backbone: Its ``pixel_mean`` is the padding.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(min_size=1, max_size=1, image_mean=[0.0] * 3, image_std=[1.0] * 3)
        self.padding = backbone.pixel_mean.view(3, 1, 1)

    def normalize(self, image: Tensor) -> Tensor:
        """(3, H, W) -> the same: the backbone normalizes."""
        return image

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """(3, H, W) and target -> the same: images are resized in 8 bits before."""
        return image, target

    def batch_images(self, images: list[Tensor], size_divisible: int = DIVISOR) -> Tensor:
        """Images (3, H_i, W_i) -> one batch (B, 3, H, W), each image at the top left."""
        height, width = (
            -(-max(int(image.shape[axis]) for image in images) // size_divisible) * size_divisible
            for axis in (1, 2)
        )
        batch = self.padding.to(images[0]).expand(3, height, width).repeat(len(images), 1, 1, 1)
        for slot, image in zip(batch, images, strict=True):
            slot[:, : image.shape[1], : image.shape[2]].copy_(image)
        return batch


class Anchors(AnchorGenerator):  # type: ignore[misc]
    """Anchors of three shapes around every pixel of a map; pixel (i, j) is at (j, i) strides.

    Args:
        strides: Stride of each map.
        scale: Side of the square anchors, in strides.
    """

    def __init__(self, strides: Sequence[float], scale: int) -> None:
        super().__init__(
            tuple((scale * stride,) for stride in strides), ((0.5, 1.0, 2.0),) * len(strides)
        )
        self.strides = tuple(strides)

    def generate_anchors(
        self,
        scales: Sequence[float],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device = torch.device("cpu"),
    ) -> Tensor:
        """Anchors (3, 4) around the origin, of area scale²; ratios are height / width."""
        ratios = torch.tensor(aspect_ratios, dtype=dtype, device=device)
        size = torch.tensor(scales, dtype=dtype, device=device)
        width, height = size / ratios.sqrt(), size * ratios.sqrt()
        return torch.stack([-width, -height, width, height], dim=1) / 2

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """All anchors (N, 4) for each image.

        torchvision computes strides from the sizes of maps, which rounds.
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
    """mmdetection's MaxIoUAssigner: IoU thresholds, then every object gets its best boxes.

    IoU (objects, boxes) -> index of the object of each box (boxes,), negative for none. If a box is
    the best of several objects, it is assigned to the last one.

    Args:
        high: Boxes from this IoU on are positive.
        low: Boxes below this IoU are negative.
        least: Least IoU of an object's best boxes (``min_pos_iou``).
    """

    def __init__(self, high: float, low: float, least: float) -> None:
        super().__init__(high, low, allow_low_quality_matches=True)
        self.least = least

    def set_low_quality_matches_(
        self, matches: Tensor, all_matches: Tensor, match_quality_matrix: Tensor
    ) -> None:
        """Change ``matches`` (boxes,) in place, from the IoU (objects, boxes)."""
        best = match_quality_matrix.amax(dim=1, keepdim=True)
        taken = (match_quality_matrix == best) & (best >= self.least)
        rank = torch.arange(1, len(taken) + 1, device=taken.device)[:, None] * taken
        last = rank.amax(dim=0)
        matches[last > 0] = last[last > 0] - 1


class RegionPool(MultiScaleRoIAlign):  # type: ignore[misc]
    """RoIAlign with aligned pixels and adaptive sampling, from the map that fits a box's size.

    Maps (B, C, H/s_i, W/s_i) and boxes (N_i, 4) of each image -> (sum N_i, C, size, size).

    Args:
        strides: Stride of each map.
        size: Side of the pooled regions.
    """

    def __init__(self, strides: Sequence[float], size: int) -> None:
        super().__init__(ROI_LEVELS, size, sampling_ratio=0)
        self.strides = tuple(strides)

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: Sizes) -> Tensor:
        """Maps by name and boxes (N_i, 4) of each image -> (sum N_i, C, size, size)."""
        maps = [x[name] for name in self.featmap_names]
        image = torch.cat(
            [boxes_.new_full((len(boxes_), 1), index) for index, boxes_ in enumerate(boxes)]
        )
        rois = torch.cat([image, torch.cat(boxes)], dim=1)
        level = pyramid_level(rois[:, 1:], len(maps))
        members = [torch.where(level == index)[0] for index in range(len(maps))]
        # in full precision: half precision does not resolve the pixels of a large image
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


def pyramid_level(boxes: Tensor, levels: int) -> Tensor:
    """The map that each box is pooled from (Lin et al. 2017, eq. 1).

    Args:
        boxes: xyxy (N, 4).
        levels: Number of maps.

    Returns:
        Indices (N,), 0 for the finest map.
    """
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
    return torch.floor(torch.log2(side / FINEST_SIZE + 1e-6)).clamp(0, levels - 1).long()


class ProposalNetwork(RegionProposalNetwork):  # type: ignore[misc]
    """A region proposal network with L1 loss.

    Images and maps (B, C, H/s_i, W/s_i) -> proposals (N_i, 4) of each image. Both losses are means
    over the sampled anchors of all images and processes.
    """

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Objectness loss and box loss of N anchors: scores (N, 1), deltas (N, 4).

        Labels are 1 (object), 0 (background) and -1 (ignored).
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
    """Box and mask heads with mmdetection's losses.

    Maps (B, C, H/s_i, W/s_i) and proposals (N_i, 4) of each image -> boxes (D_i, 4), labels (D_i,),
    scores (D_i,) and masks (D_i, 1, 28, 28) of each image, or in training the losses.
    """

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: Sizes,
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Maps and proposals -> detections of each image, and in training only the losses."""
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
        """Compute the losses: means over sampled boxes, and over pixels of positive masks.

        Args:
            features: Maps by name.
            proposals: Boxes (N_i, 4) of each image.
            image_shapes: (H, W) of each image.
            targets: ``boxes`` (M_i, 4), ``labels`` (M_i,) and ``masks`` (M_i, H, W) of each image.

        Returns:
            Scalars by torchvision's names.
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
            target_masks = torch.cat(
                [
                    mask_targets(target["masks"][one[chosen]], roi, logits.shape[-1])
                    for target, one, chosen, roi in zip(
                        targets, matched, positive, rois, strict=True
                    )
                ]
            )
            logits = logits[torch.arange(len(logits)), label[label > 0]]
            loss = functional.binary_cross_entropy_with_logits(
                logits, target_masks, reduction="sum"
            )
            # without an object the sum is zero, and still a part of the graph
            losses["loss_mask"] = loss / mean_over_processes(target_masks.numel(), loss.device)
        return losses

    def _mask_logits(
        self, features: dict[str, Tensor], boxes: list[Tensor], image_shapes: Sizes
    ) -> Tensor:
        """(sum N_i, classes, 28, 28)."""
        pooled = self.mask_roi_pool(features, boxes, image_shapes)
        return self.mask_predictor(self.mask_head(pooled))  # type: ignore[no-any-return]


def box_loss(deltas: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The sum of the L1 losses of the positive boxes, each at the class of its label.

    Args:
        deltas: (N, 4 * classes).
        labels: (N,), 0 for the background.
        targets: (N, 4).

    Returns:
        A scalar.
    """
    positive = torch.where(labels > 0)[0]
    of_label = deltas.view(len(deltas), -1, 4)[positive, labels[positive]]
    return functional.l1_loss(of_label, targets[positive], reduction="sum")


def mask_targets(masks: Tensor, boxes: Tensor, size: int) -> Tensor:
    """The targets of the mask head: masks cut to their boxes and resized.

    mmdetection's BitmapMasks.crop_and_resize: RoIAlign with aligned pixels, cut at one half.

    Args:
        masks: (N, H, W) of 0 and 1.
        boxes: xyxy (N, 4).
        size: Side of the targets.

    Returns:
        (N, size, size) of 0 and 1.
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


def build_mask_rcnn(
    backbone: Backbone, classes: int, has_masks: bool, settings: MaskRCNNSettings
) -> GeneralizedRCNN:
    """Build a Mask R-CNN, its heads not yet initialized.

    Args:
        backbone: With four maps.
        classes: Number of classes without the background.
        has_masks: Whether to predict masks.
        settings: Sizes and thresholds.

    Returns:
        Images (3, H_i, W_i) of 0..1 -> detections of each image, and in training the losses.
    """
    width, outputs = settings.channels, classes + 1
    levels = pyramid_strides(backbone)
    strides = (*levels, 2 * levels[-1])
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
    """Detect objects.

    Args:
        model: In evaluation mode.
        images: Float (3, H_i, W_i) of 0..1.

    Returns:
        For each image, in its pixels: ``boxes`` (N, 4), ``scores`` (N,), ``labels`` (N,) from 1,
        ``masks`` (N, 1, 28, 28) of 0..1.
    """
    batch, _ = model.transform(images)
    features = model.backbone(batch.tensors)
    proposals, _ = model.rpn(batch, features)
    detections, _ = model.roi_heads(features, proposals, batch.image_sizes)
    return detections  # type: ignore[no-any-return]
