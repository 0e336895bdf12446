"""Detection with instance segmentation: torchvision's Mask R-CNN on our FPN over the backbone's four maps."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from stillrobust.backbones import Backbone, require_pyramid
from stillrobust.samples import DatasetInfo, Image, Prediction, Sample
from stillrobust.tasks import augment
from stillrobust.tasks.heads import Photometric, device_of, image_tensors

ROI_LEVELS = ["0", "1", "2", "3"]  # RoIs come from strides 4 to 32; the pooled fifth map serves proposals only


class Pyramid(nn.Module):
    """Backbone and FPN: float (B, 3, H, W) -> named maps of ``out_channels`` channels, the last one pooled."""

    def __init__(self, backbone: Backbone, channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.fpn = FeaturePyramidNetwork(list(backbone.channels), channels, extra_blocks=LastLevelMaxPool())
        self.out_channels = channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Named maps, finest first."""
        images = images.contiguous(memory_format=torch.channels_last)
        maps = OrderedDict((str(level), x) for level, x in enumerate(self.backbone(images)))
        return self.fpn(maps)  # type: ignore[no-any-return]


class PadWithMean(GeneralizedRCNNTransform):  # type: ignore[misc]
    """Resize and pad, but leave normalisation to the backbone: the padding is its mean, zero once normalised."""

    def __init__(self, backbone: Backbone, short: int, long: int) -> None:
        super().__init__(min_size=short, max_size=long, image_mean=[0.0] * 3, image_std=[1.0] * 3)
        self.padding = backbone.pixel_mean.view(3, 1, 1)

    def normalize(self, image: Tensor) -> Tensor:
        """Nothing: images enter the backbone as images."""
        return image

    def batch_images(self, images: list[Tensor], size_divisible: int = 32) -> Tensor:
        """Images of several sizes -> one (B, 3, H, W), each at the top left."""
        height, width = (-(-max(int(image.shape[axis]) for image in images) // size_divisible) * size_divisible for axis in (1, 2))
        batch = self.padding.to(images[0]).expand(3, height, width).repeat(len(images), 1, 1, 1)
        for slot, image in zip(batch, images, strict=True):
            slot[:, : image.shape[1], : image.shape[2]].copy_(image)
        return batch


@dataclass(frozen=True)
class Detection:
    """Sizes in pixels. The defaults are the paper's scale (mmdetection's mask_rcnn_r50_fpn, COCO)."""

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

    name = "detection"

    def build_model(self, backbone: Backbone, info: DatasetInfo) -> nn.Module:
        """The model, its heads not yet initialised."""
        require_pyramid(backbone)
        strides = (*backbone.strides, 2 * backbone.strides[-1])
        width = self.channels
        anchors = AnchorGenerator(tuple((self.anchor_scale * stride,) for stride in strides), ((0.5, 1.0, 2.0),) * len(strides))
        classes = len(info.classes) + 1  # torchvision's class 0 is background
        masks: dict[str, Any] = {
            "mask_roi_pool": MultiScaleRoIAlign(ROI_LEVELS, 14, 2),
            "mask_head": MaskRCNNHeads(width, (width,) * self.mask_layers, 1),
            "mask_predictor": MaskRCNNPredictor(width, width, classes),
        }
        model = MaskRCNN(
            Pyramid(backbone, width),
            rpn_anchor_generator=anchors,
            rpn_head=RPNHead(width, 3),
            box_roi_pool=MultiScaleRoIAlign(ROI_LEVELS, 7, 2),
            box_head=TwoMLPHead(width * 7 * 7, self.box_channels),
            box_predictor=FastRCNNPredictor(self.box_channels, classes),
            **masks,
            rpn_pre_nms_top_n_train=self.proposals_before[0],
            rpn_pre_nms_top_n_test=self.proposals_before[1],
            rpn_post_nms_top_n_train=self.proposals[0],
            rpn_post_nms_top_n_test=self.proposals[1],
            rpn_batch_size_per_image=self.anchors_per_image,
            box_batch_size_per_image=self.rois_per_image,
            box_detections_per_img=self.detections,
            box_score_thresh=self.score_threshold,
        )
        model.transform = PadWithMean(backbone, min(self.image_size), max(self.image_size))
        if not info.has_masks:
            model.roi_heads.mask_roi_pool = model.roi_heads.mask_head = model.roi_heads.mask_predictor = None
        return model  # type: ignore[no-any-return]

    def augment(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Mirror."""
        return augment.flip(sample, rng)

    def loss(self, model: nn.Module, batch: Sequence[Sample], photometric: Photometric | None = None) -> dict[str, Tensor]:
        """The losses of proposals, classes, boxes and masks, by torchvision's names. Crowd regions are left out."""
        device = device_of(model)
        targets = [self._tensors(sample, device) for sample in batch]
        return model(image_tensors([s.image for s in batch], device, photometric), targets)  # type: ignore[no-any-return]

    def _tensors(self, sample: Sample, device: torch.device) -> dict[str, Tensor]:
        target = sample.target
        assert target.boxes is not None
        assert target.labels is not None
        keep = np.ones(len(target.boxes), bool) if target.crowd is None else ~target.crowd
        keep &= (target.boxes[:, 2:] > target.boxes[:, :2]).all(1)  # torchvision refuses boxes without extent
        tensors = {
            "boxes": torch.from_numpy(target.boxes[keep]).float(),
            "labels": torch.from_numpy(target.labels[keep]).long() + 1,
        }
        if target.masks is not None:
            tensors["masks"] = torch.from_numpy(np.ascontiguousarray(target.masks[keep])).to(torch.uint8)
        return {name: value.to(device) for name, value in tensors.items()}

    def predict(self, model: nn.Module, images: Sequence[Image]) -> list[Prediction]:
        """uint8 images of any sizes -> boxes, labels, scores and masks in the images' own pixels."""
        device = device_of(model)
        outputs = model(image_tensors(images, device))
        return [self._prediction({name: value.cpu() for name, value in output.items()}) for output in outputs]

    @staticmethod
    def _prediction(output: dict[str, Tensor]) -> Prediction:
        masks = (output["masks"][:, 0] > 0.5).numpy() if "masks" in output else None
        return Prediction(
            boxes=output["boxes"].float().numpy(),
            labels=output["labels"].numpy() - 1,
            scores=output["scores"].float().numpy(),
            masks=masks,
        )
