"""Corruptions for existing pipelines: a torchvision transform, and a wrapper for any dataset.

Both are seeded per image, so workers, order and epochs do not matter. No other module of ``data/``
imports torch.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow
from torchvision import tv_tensors
from torchvision.transforms import v2

from stillrobust.corruptions import SEVERITIES, corrupt, get_corruption
from stillrobust.errors import UserError


def _check_arguments(corruption: str, severity: int) -> None:
    get_corruption(corruption)
    if severity not in (0, *SEVERITIES):
        raise UserError(
            f"Expected a severity among 0 (clean), 1, 2, 3, 4, 5, but got {severity!r}; give one of"
            " these"
        )


def _corrupt_any(
    image: Any,
    corruption: str,
    severity: int,
    seed: int,
    image_id: str | None,
    how: Mapping[str, Any],
) -> Any:
    """Corrupt an image and return the same type: PIL, uint8 array (H, W, 3) or tensor (3, H, W).

    Without an id, the draws are keyed by the pixels.
    """
    if isinstance(image, Pillow.Image):
        pixels = np.asarray(image.convert("RGB"))
    elif isinstance(image, torch.Tensor):
        if image.dtype != torch.uint8 or image.ndim != 3:
            got = f"{image.dtype} {tuple(image.shape)}"
            raise UserError(
                f"Expected a uint8 tensor (C, H, W), but got {got}; corrupt before conversion to"
                " float and batching"
            )
        pixels = image.permute(1, 2, 0).cpu().numpy()
    else:
        pixels = image
    if image_id is None:
        image_id = hashlib.sha256(
            repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()
        ).hexdigest()
    made = corrupt(pixels, corruption, severity, seed=seed, image_id=image_id, **how)
    if isinstance(image, Pillow.Image):
        return Pillow.fromarray(made)
    if isinstance(image, torch.Tensor):
        tensor = torch.from_numpy(made).permute(2, 0, 1).contiguous().to(image.device)
        return (
            tv_tensors.wrap(tensor, like=image)
            if isinstance(image, tv_tensors.TVTensor)
            else tensor
        )
    return made


class Corrupt(v2.Transform):  # type: ignore[misc]
    """A torchvision transform that corrupts images (PIL or uint8 tensors) and nothing else.

    The same picture gets the same draws: they are keyed by ``seed`` and the pixels. ``how``: draws,
    regime, channel_order.
    """

    def __init__(self, corruption: str, severity: int, seed: int = 0, **how: Any) -> None:
        super().__init__()
        _check_arguments(corruption, severity)
        self.corruption, self.severity, self.seed, self.how = corruption, severity, seed, how

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Called by torchvision for each leaf of a sample."""
        if isinstance(inpt, tv_tensors.TVTensor) and not isinstance(inpt, tv_tensors.Image):
            return inpt
        return _corrupt_any(inpt, self.corruption, self.severity, self.seed, None, self.how)


class CorruptedItems:
    """A dataset with corrupted images. Draws are keyed by ``seed`` and the index.

    Args:
        dataset: Anything with ``len`` and ``[i]``, such as datasets of torchvision and Hugging
            Face. Items are an image, ``(image, ...)`` or ``{key: image, ...}``.
        corruption: Name of a corruption.
        severity: 0 (clean) to 5.
        seed: Seed of the draws.
        key: Key of the image in items that are dicts.
        **how: Further arguments of ``stillrobust.corruptions.corrupt``.
    """

    def __init__(
        self,
        dataset: Any,
        corruption: str,
        severity: int,
        seed: int = 0,
        key: str = "image",
        **how: Any,
    ) -> None:
        _check_arguments(corruption, severity)
        self.dataset, self.key = dataset, key
        self.arguments = corruption, severity, seed
        self.how = how

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        item = self.dataset[index]
        if isinstance(item, Mapping):
            if self.key not in item:
                raise UserError(
                    f"Expected an image under the key {self.key!r}, but got"
                    f" {', '.join(map(str, item))}; pass key=..."
                )
            return {
                **item,
                self.key: _corrupt_any(item[self.key], *self.arguments, str(index), self.how),
            }
        if isinstance(item, tuple):
            return (_corrupt_any(item[0], *self.arguments, str(index), self.how), *item[1:])
        return _corrupt_any(item, *self.arguments, str(index), self.how)
