"""Semantic segmentation: UPerNet with the recipe of mmsegmentation's upernet_r50_512x512_80k_ade20k."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stillrobust.backbones import Backbone, require_pyramid
from stillrobust.errors import UserError
from stillrobust.samples import IGNORE, DatasetInfo, Image, Prediction, Sample
from stillrobust.tasks import augment
from stillrobust.tasks.heads import Photometric, device_of, image_batch, same_size
from stillrobust.tasks.upernet import UPerNet, resize


@dataclass(frozen=True)
class Segmentation:
    """Sizes in pixels. The defaults are the paper's scale (ADE20K)."""

    channels: int = 512
    auxiliary_channels: int = 256
    auxiliary_weight: float = 0.4
    dropout: float = 0.1
    class_weights: tuple[float, ...] = ()
    """Weight of each class's pixels in the loss, in the order of the classes (mmsegmentation's ``class_weight``); empty: 1."""
    crop: tuple[int, int] = (512, 512)
    """(H, W) of the training crop."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Scale jitter in training, relative to the image as the test sees it."""
    test_size: tuple[int, int] | None = (2048, 512)
    """(long side at most, short side) of the whole image in the test; ``None`` keeps the image's own size."""

    name = "segmentation"

    def build_model(self, backbone: Backbone, info: DatasetInfo) -> nn.Module:
        """The model, its heads not yet initialised."""
        require_pyramid(backbone)
        if self.class_weights and len(self.class_weights) != len(info.classes):
            raise UserError(
                f"Expected one of class_weights for each of the {len(info.classes)} classes, "
                f"but got {len(self.class_weights)}; list them in the order of classes.txt, or leave class_weights out"
            )
        return UPerNet(backbone, self.channels, self.auxiliary_channels, len(info.classes), self.dropout)

    def shown_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(H, W) at which the model sees an image of (H, W) ``size``: ratio kept."""
        if self.test_size is None:
            return size
        factor = min(max(self.test_size) / max(size), min(self.test_size) / min(size))
        return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))

    def augment(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Scale jitter, crop, mirror."""
        factor = self.shown_size(sample.target.size)[0] / sample.target.size[0]
        low, high = self.scale
        return augment.flip(augment.scale_and_crop(sample, self.crop, (low * factor, high * factor), rng), rng)

    def loss(self, model: nn.Module, batch: Sequence[Sample], photometric: Photometric | None = None) -> dict[str, Tensor]:
        """Cross-entropy of both heads at full resolution, pixels of ``IGNORE`` left out."""
        device = device_of(model)
        labels = torch.from_numpy(np.stack([s.target.label_map for s in batch])).to(device).long()  # type: ignore[misc]
        logits, auxiliary = model(image_batch([s.image for s in batch], device, photometric))
        weights = torch.tensor(self.class_weights, dtype=torch.float32, device=device) if self.class_weights else None
        seen = labels[labels != IGNORE]
        # A batch of ignored pixels alone must not divide by zero.
        total = (torch.ones_like(seen) if weights is None else weights[seen]).sum().clamp(min=1)

        def cross_entropy(scores: Tensor) -> Tensor:
            scores = resize(scores, tuple(labels.shape))
            return functional.cross_entropy(scores, labels, weights, ignore_index=IGNORE, reduction="sum") / total

        return {"decode": cross_entropy(logits), "auxiliary": self.auxiliary_weight * cross_entropy(auxiliary)}

    def predict(self, model: nn.Module, images: Sequence[Image]) -> list[Prediction]:
        """uint8 images -> label maps at the images' own sizes; images of one size go through the model together."""
        results: list[Prediction | None] = [None] * len(images)
        for size, members in same_size(images).items():
            shown = [augment.resize_image(images[index], *self.shown_size(size)) for index in members]
            logits, _ = model(image_batch(shown, device_of(model)))
            maps = resize(logits, size).argmax(1).to(torch.uint8).cpu().numpy()
            for index, label_map in zip(members, maps, strict=True):
                results[index] = Prediction(label_map=label_map)
        return [result for result in results if result is not None]
