"""Make DeepAugment's folders: every training image through a perturbed image-to-image network.

    OUT/<class>/<stem>.jpg    the changed version of SOURCE/<class>/<stem>.<suffix>

As published, the network's weights are perturbed again before one image in twenty, in a random
order. The order depends on the seed; all other draws depend on the seed and the image's path. See
:mod:`stillrobust.tools.folder_job` for how the work is shared and resumed.
"""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow

from stillrobust import __version__
from stillrobust.data.decoding import ImageReading
from stillrobust.data.image_headers import IMAGE_KINDS
from stillrobust.data.reading import image_files
from stillrobust.errors import UserError
from stillrobust.execution import JobProgressCallback
from stillrobust.robustify.deepaugment import REDRAW_PROBABILITY, Pretrained, load_pretrained
from stillrobust.robustify.deepaugment.roots import image_stem
from stillrobust.runtime import capacity
from stillrobust.samples import Image
from stillrobust.tools.folder_job import (
    FolderPlan,
    FolderSources,
    FolderSummary,
    require_outside,
    run_folder_job,
    sha256_of_name,
)

QUALITY = 75  # of JPEG: Pillow's default, which the published folders were saved with


@dataclass
class DeepAugmentPlan(FolderPlan):
    """One changed JPEG for every image."""

    network: str
    """A name of ``NETWORKS``."""
    weights: Path | None
    weights_sha256: str
    seed: int
    sources_sha256: str
    """Of all sources' names, which decide the order."""
    scale: tuple[float, float] | None = None
    """Values of images with more than 8 bits that become 0 and 255."""
    _pretrained: Pretrained | None = field(default=None, init=False, repr=False)

    @property
    def reading(self) -> ImageReading:
        """Return how images are read."""
        return ImageReading(self.scale)

    def protocol(self) -> dict[str, Any]:
        """Return the network, the hashes of its weights and of the sources' names, and the seed."""
        return {
            "network": self.network,
            "weights": self.weights_sha256,
            "seed": self.seed,
            "quality": QUALITY,
            "reading": self.reading.protocol,
            "sources": self.sources_sha256,
            "stillrobust": __version__,
        }

    def outputs(self, target: str) -> dict[str, None]:
        """Name the one JPEG made from an image."""
        return {f"{target}.jpg": None}

    def start_group(self, number: int) -> None:
        """Load the network, on a GPU if there is one, and perturb its weights."""
        if self._pretrained is None:
            self._pretrained = load_pretrained(self.network, self.weights)
            if torch.cuda.is_available():
                self._pretrained.module.to(torch.device("cuda"))
        self._pretrained.perturb(np.random.default_rng([self.seed, 1, number]))

    def encode(self, image: Image, name: str, output: None) -> bytes:
        """Send the image through the perturbed network and encode the result as JPEG."""
        assert self._pretrained is not None  # start_group comes first
        key = int.from_bytes(sha256_of_name(name)[:8], "big")
        rng = np.random.default_rng([self.seed, 2, key])
        encoded = io.BytesIO()
        distorted = self._pretrained.distort(Pillow.fromarray(image), rng)
        Pillow.fromarray(distorted).save(encoded, "JPEG", quality=QUALITY)
        return encoded.getvalue()


def make_deepaugment_folder(
    source: Path,
    out: Path,
    network: str,
    weights: Path | None,
    seed: int = 0,
    workers: int | None = None,
    listen: JobProgressCallback = lambda name, done, total, text: None,
    scale: tuple[float, float] | None = None,
) -> FolderSummary:
    """Make a folder of changed images for ``deepaugment(roots=...)``. A second call resumes.

    Args:
        source: Training images, one folder for each class.
        out: Output folder, not inside ``source``.
        network: A name of ``NETWORKS``.
        weights: The network's published weights.
        seed: Seed of all draws.
        workers: Worker processes; default: one for each GPU, otherwise one for each core.
        listen: Called as ``listen(job, done, total, text)`` while images are processed.
        scale: Values of images with more than 8 bits that become 0 and 255.

    Raises:
        UserError: If the weights do not fit or are not trained, if there is no image, if two images
            differ only in their suffix, or if ``out`` cannot be used.
        LeaseHeldError: If another process works on ``out``.
    """
    pretrained = load_pretrained(network, weights)
    names = _find_images(source, out)
    names_sha256 = sha256_of_name("\0".join(names)).hex()
    plan = DeepAugmentPlan(network, weights, pretrained.sha256, seed, names_sha256, scale)
    sources = FolderSources(
        source, {name: image_stem(name) for name in names}, weight_groups(names, seed), {}
    )
    return run_folder_job(sources, out, plan, workers, listen, gpus=capacity.gpus())


def _find_images(source: Path, out: Path) -> list[str]:
    """Paths of the images inside ``source``, with ``/``, sorted."""
    if not source.is_dir():
        raise UserError(
            f"Expected a folder of class folders at {source}, but there is none; check the path"
        )
    require_outside(source, out)
    names = [path.relative_to(source).as_posix() for path in image_files(source)]
    if not names:
        raise UserError(
            f"Expected {IMAGE_KINDS} images below {source}, but found none; check the path"
        )
    stems = Counter(image_stem(name) for name in names)
    repeated = [name for name, count in stems.items() if count > 1]
    if repeated:
        raise UserError(
            "Expected names that differ in more than their suffix, but found more than one"
            f" {repeated[0]}; rename one"
        )
    return names


def weight_groups(names: Sequence[str], seed: int) -> list[tuple[str, ...]]:
    """Shuffle the images and split them where the weights are perturbed again.

    Returns:
        Groups of images made with the same weights. A group's index keys its perturbation.
    """
    rng = np.random.default_rng([seed, 0])
    order = rng.permutation(len(names))
    cuts = np.nonzero(rng.random(len(names)) < REDRAW_PROBABILITY)[0]
    parts = [part for part in np.split(order, cuts) if part.size]
    return [tuple(names[place] for place in part) for part in parts]
