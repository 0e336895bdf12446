"""Semantic segmentation: UPerNet as mmsegmentation's upernet_r50_512x512_80k_ade20k, or a linear
head.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stillrobust.backbones import Backbone
from stillrobust.errors import UserError
from stillrobust.names import lookup
from stillrobust.samples import IGNORE, Array, DatasetInfo, Image, Prediction, Sample
from stillrobust.tasks import transforms
from stillrobust.tasks.distributed import mean_over_processes
from stillrobust.tasks.heads import (
    Photometric,
    backbone_of,
    device_of,
    group_by_size,
    image_batch,
    image_tensors,
)
from stillrobust.tasks.necks import require_maps
from stillrobust.tasks.upernet import LinearSegmenter, UPerNet, resize_features


@dataclass(frozen=True)
class Segmentation:
    """Settings of segmentation, in pixels. The defaults are the paper's (ADE20K)."""

    head: str = "upernet"
    """``upernet``, or ``linear`` for BatchNorm and one convolution on the last map (DINOv2)."""
    channels: int = 512
    auxiliary_channels: int = 256
    auxiliary_weight: float = 0.4
    dropout: float = 0.1
    class_weights: tuple[float, ...] = ()
    """Weight of each class in the loss (mmsegmentation's ``class_weight``); empty for 1."""
    crop: tuple[int, int] = (512, 512)
    """(H, W) of the training crop."""
    varied: float = 0.75
    """A crop is drawn again, up to ten times, while one class fills this share of it."""
    distortion: bool = True
    """Whether brightness, contrast, saturation and hue vary in training."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the scale jitter in training, relative to the size in the test."""
    test_size: tuple[int, int] | None = (2048, 512)
    """(longest long side, short side) of test images; ``None`` keeps the size of each image."""

    name = "segmentation"

    def __post_init__(self) -> None:
        lookup("head", self.head, dict.fromkeys(("upernet", "linear")))

    def build_model(self, backbone: Backbone, info: DatasetInfo) -> nn.Module:
        """A ``UPerNet`` or a ``LinearSegmenter`` on the backbone, its heads not yet initialized."""
        require_maps(backbone)
        if len(info.classes) > IGNORE:
            raise UserError(
                f"Expected at most {IGNORE} classes in label maps of 8 bits, but {info.name} has"
                f" {len(info.classes)}; merge some of them"
            )
        if self.class_weights and len(self.class_weights) != len(info.classes):
            raise UserError(
                f"Expected one of class_weights for each of the {len(info.classes)} classes, but"
                f" got {len(self.class_weights)}; list them in the order of classes.txt, or leave"
                " class_weights out"
            )
        if self.head == "linear":
            backbone.keep_only("normed_maps")
            return LinearSegmenter(backbone, len(info.classes))
        backbone.keep_only("maps")
        return UPerNet(
            backbone, self.channels, self.auxiliary_channels, len(info.classes), self.dropout
        )

    def input_size(self, size: tuple[int, ...], factor: float = 1.0) -> tuple[int, int]:
        """The size at which the model sees an image, with its ratio kept.

        Args:
            size: (H, W) of the image.
            factor: Scale jitter of training.

        Returns:
            (H, W).
        """
        long, short = self.test_size or (max(size[:2]), min(size[:2]))
        return transforms.rescaled_size(size, int(long * factor), int(short * factor))

    def augment(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Scale jitter, crop, mirror and colours. A smaller image is padded in the loss."""
        sample = transforms.resize(
            sample, self.input_size(sample.target.size, rng.uniform(*self.scale))
        )
        sample = transforms.random_flip(
            transforms.random_varied_crop(sample, self.crop, self.varied, rng), rng
        )
        return (
            replace(sample, image=transforms.photometric_distortion(sample.image, rng))
            if self.distortion
            else sample
        )

    def loss(
        self, model: nn.Module, batch: Sequence[Sample], photometric: Photometric | None = None
    ) -> dict[str, Tensor]:
        """Cross-entropies of the heads at full resolution, without pixels of ``IGNORE``."""
        device = device_of(model)
        images = image_tensors([sample.image for sample in batch], device, photometric)
        logits, auxiliary = model(self._padded(images, model))
        labels = (
            torch.from_numpy(np.stack([self._padded_labels(sample) for sample in batch]))
            .to(device)
            .long()
        )
        weights = (
            torch.tensor(self.class_weights, dtype=torch.float32, device=device)
            if self.class_weights
            else None
        )
        # mmsegmentation's mean: over all pixels, ignored ones included, whatever the weights
        share = mean_over_processes(labels.numel(), device)

        def cross_entropy(scores: Tensor) -> Tensor:
            scores = resize_features(scores.float(), tuple(labels.shape))
            return (
                functional.cross_entropy(
                    scores, labels, weights, ignore_index=IGNORE, reduction="sum"
                )
                / share
            )

        losses = {"decode": cross_entropy(logits)}
        if auxiliary is not None:
            losses["auxiliary"] = self.auxiliary_weight * cross_entropy(auxiliary)
        return losses

    def _padded(self, images: list[Tensor], model: nn.Module) -> Tensor:
        """Crops (3, H_i, W_i) -> (B, 3, H, W), padded with the backbone's mean."""
        if any(image.shape[1:] != self.crop for image in images):
            mean = backbone_of(model).pixel_mean[0]
            batch = mean.expand(3, *self.crop).repeat(len(images), 1, 1, 1)
            for slot, image in zip(batch, images, strict=True):
                slot[:, : image.shape[1], : image.shape[2]] = image
        else:
            batch = torch.stack(images)
        return batch.contiguous(memory_format=torch.channels_last)

    def _padded_labels(self, sample: Sample) -> Array:
        labels = sample.target.label_map
        assert labels is not None
        below, right = self.crop[0] - labels.shape[0], self.crop[1] - labels.shape[1]
        return np.pad(labels, ((0, below), (0, right)), constant_values=IGNORE)

    def predict(self, model: nn.Module, images: Sequence[Image]) -> list[Prediction]:
        """uint8 images (H_i, W_i, 3) -> label maps (H_i, W_i); images of one size form a batch."""
        results: list[Prediction | None] = [None] * len(images)
        for size, members in group_by_size(images).items():
            resized = [
                transforms.resize_image(images[index], *self.input_size(size)) for index in members
            ]
            logits, _ = model(image_batch(resized, device_of(model)))
            logits = resize_features(logits.float(), size)
            best, maps = logits.max(1)
            # the softmax probability of the predicted label
            confidences = (best - logits.logsumexp(1)).exp()
            pairs = zip(maps.to(torch.uint8).cpu().numpy(), confidences.cpu().numpy(), strict=True)
            for index, (label_map, confidence) in zip(members, pairs, strict=True):
                results[index] = Prediction(label_map=label_map, confidence=confidence)
        return [result for result in results if result is not None]
