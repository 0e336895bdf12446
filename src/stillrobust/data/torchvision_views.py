"""Corruptions where people have their data already: as a torchvision transform, or over any
indexable dataset.

Both are seeded per image, so that workers, order and epochs do not matter. This module alone of
``data/`` loads torch.
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


def _checked(corruption: str, severity: int) -> None:
    get_corruption(corruption)
    if severity not in (0, *SEVERITIES):
        raise UserError(
            f"Expected a severity among 0 (clean), 1, 2, 3, 4, 5, but got {severity!r}; give one of"
            " these"
        )


def _corrupted(
    image: Any,
    corruption: str,
    severity: int,
    seed: int,
    image_id: str | None,
    how: Mapping[str, Any],
) -> Any:
    """The same kind of image: PIL, uint8 numpy (H, W, 3), or uint8 tensor (3, H, W).

    Without an id, the pixels are the key.
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
    """A transform of images (PIL, uint8 tensors); boxes, masks and everything else pass unchanged.

    The same picture gets the same draws: they are keyed by ``seed`` and the pixels. ``how``: draws,
    regime, channel_order.
    """

    def __init__(self, corruption: str, severity: int, seed: int = 0, **how: Any) -> None:
        super().__init__()
        _checked(corruption, severity)
        self.corruption, self.severity, self.seed, self.how = corruption, severity, seed, how

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """What torchvision calls for each leaf of a sample."""
        if isinstance(inpt, tv_tensors.TVTensor) and not isinstance(inpt, tv_tensors.Image):
            return inpt
        return _corrupted(inpt, self.corruption, self.severity, self.seed, None, self.how)


class CorruptedItems:
    """Any dataset with ``len`` and ``[i]`` whose items are an image, ``(image, ...)`` or ``{key:
    image, ...}``.

    For torchvision's, Hugging Face's (``key="image"``) and your own. Draws are keyed by ``seed``
    and the index.
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
        _checked(corruption, severity)
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
                self.key: _corrupted(item[self.key], *self.arguments, str(index), self.how),
            }
        if isinstance(item, tuple):
            return (_corrupted(item[0], *self.arguments, str(index), self.how), *item[1:])
        return _corrupted(item, *self.arguments, str(index), self.how)
