"""Detection with instance segmentation: Mask R-CNN, trained as mmdetection or Swin train it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stillrobust.backbones import Backbone
from stillrobust.samples import DatasetInfo, Image, Prediction, Sample
from stillrobust.tasks import transforms
from stillrobust.tasks.heads import Photometric, device_of, image_tensors
from stillrobust.tasks.mask_rcnn import MaskRCNNSettings, build_mask_rcnn, detect
from stillrobust.tasks.necks import require_maps


@dataclass(frozen=True)
class Detection(MaskRCNNSettings):
    """Settings of detection, in pixels.

    The defaults are the paper's (mmdetection's mask_rcnn_r50_fpn on COCO).
    """

    train_sizes: tuple[int, ...] = ()
    """Short sides to choose from in training; empty for that of ``image_size``."""
    crop_sizes: tuple[int, ...] = ()
    """Half of the images are first resized to one of these short sides and cropped; empty for
    none.
    """
    crop_range: tuple[int, ...] = (384, 600)
    """Shortest and longest side of the crop."""

    scale_jitter: tuple[float, float] | None = None
    """Range of the size in training, relative to ``image_size`` (Ghiasi et al. 2021); images are
    then cropped to its longest side.
    """
    window: int = 0
    """Side, in patches, of the windows to which ViTDet restricts attention in most blocks of a
    plain ViT (14); 0 for global attention in all of them.
    """

    name = "detection"

    def build_model(self, backbone: Backbone, info: DatasetInfo) -> nn.Module:
        """A Mask R-CNN on the backbone's maps, its heads not yet initialized."""
        require_maps(backbone)
        if self.window:
            backbone.set_windows(self.window)
        backbone.keep_only("maps")
        return build_mask_rcnn(backbone, len(info.classes), info.has_masks, self)  # type: ignore[no-any-return]

    def augment(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Mirror, crop if the settings ask for it, and resize to the size of the model's input."""
        long, short = max(self.image_size), min(self.image_size)
        sample = transforms.random_flip(sample, rng)
        if self.crop_sizes and rng.random() < 0.5:
            size = transforms.rescaled_size(
                sample.target.size, long, int(rng.choice(self.crop_sizes))
            )
            sample = transforms.crop(transforms.resize(sample, size), self._crop_window(size, rng))
        if self.scale_jitter is not None:
            return self._jittered(sample, rng, self.scale_jitter)
        if self.train_sizes:
            short = int(rng.choice(self.train_sizes))
        return transforms.resize(sample, transforms.rescaled_size(sample.target.size, long, short))

    def _jittered(
        self, sample: Sample, rng: np.random.Generator, scale: tuple[float, float]
    ) -> Sample:
        """detectron2's ResizeScale and FixedSizeCrop; padding is added with the batch."""
        long, short = max(self.image_size), min(self.image_size)
        factor = rng.uniform(*scale)
        size = transforms.rescaled_size(sample.target.size, long * factor, short * factor)
        height, width = (min(side, long) for side in size)
        top, left = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
        return transforms.crop(transforms.resize(sample, size), (top, left, height, width))

    def _crop_window(
        self, size: tuple[int, int], rng: np.random.Generator
    ) -> tuple[int, int, int, int]:
        """mmdetection's RandomCrop(absolute_range): draw height and width, then the position."""
        low, high = self.crop_range
        height, width = (int(rng.integers(min(side, low), min(side, high) + 1)) for side in size)
        top, left = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
        return top, left, height, width

    def loss(
        self, model: nn.Module, batch: Sequence[Sample], photometric: Photometric | None = None
    ) -> dict[str, Tensor]:
        """Losses of proposals, classes, boxes and masks, by torchvision's names.

        Crowd regions are left out.
        """
        device = device_of(model)
        targets = [self._tensors(sample, device) for sample in batch]
        return model(image_tensors([s.image for s in batch], device, photometric), targets)  # type: ignore[no-any-return]

    def _tensors(self, sample: Sample, device: torch.device) -> dict[str, Tensor]:
        target = sample.target
        assert target.boxes is not None
        assert target.labels is not None
        keep = np.ones(len(target.boxes), bool) if target.crowd is None else ~target.crowd
        # torchvision rejects boxes without area
        keep &= (target.boxes[:, 2:] > target.boxes[:, :2]).all(1)
        tensors = {
            "boxes": torch.from_numpy(target.boxes[keep]).float(),
            "labels": torch.from_numpy(target.labels[keep]).long() + 1,
        }
        if target.masks is not None:
            tensors["masks"] = torch.from_numpy(np.ascontiguousarray(target.masks[keep])).to(
                torch.uint8
            )
        return {name: value.to(device) for name, value in tensors.items()}

    def predict(self, model: nn.Module, images: Sequence[Image]) -> list[Prediction]:
        """uint8 images of any sizes -> boxes, labels, scores and masks in pixels of each image."""
        long, short = max(self.image_size), min(self.image_size)
        resized = [
            transforms.resize_image(image, *transforms.rescaled_size(image.shape[:2], long, short))
            for image in images
        ]
        found = detect(model, image_tensors(resized, device_of(model)))
        return [
            _prediction(one, image, small)
            for one, image, small in zip(found, images, resized, strict=True)
        ]


def _prediction(found: dict[str, Tensor], image: Image, resized: Image) -> Prediction:
    """Detections in the resized image as a prediction in pixels of ``image``."""
    ratio = [image.shape[axis] / resized.shape[axis] for axis in (1, 0, 1, 0)]
    boxes = found["boxes"].float().cpu() * torch.tensor(ratio)
    masks = None
    if "masks" in found:
        masks = paste_masks(
            found["masks"][:, 0].float().cpu(), boxes, (image.shape[0], image.shape[1])
        ).numpy()
    return Prediction(
        boxes=boxes.numpy(),
        labels=found["labels"].cpu().numpy() - 1,
        scores=found["scores"].float().cpu().numpy(),
        masks=masks,
    )


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Paste masks into an image, as mmdetection's _do_paste_mask.

    Masks are sampled at the centres of pixels and cut at one half. torchvision rounds boxes to
    whole pixels first.

    Args:
        masks: (N, M, M) of 0..1, relative to their boxes.
        boxes: xyxy (N, 4).
        size: (H, W) of the image.

    Returns:
        Bool (N, H, W).
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
