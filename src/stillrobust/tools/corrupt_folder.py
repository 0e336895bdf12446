"""Corrupt a folder of photos into another folder; see :mod:`stillrobust.tools.folder_job`.

OUT/fog/3/street/0001.png    SOURCE/street/0001.jpg under fog at severity 3
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from stillrobust import __version__
from stillrobust.corruptions import (
    CHANNEL_ORDERS,
    DRAWS,
    REGIMES,
    SEVERITIES,
    corrupt,
    corruption_protocol,
    resolve_corruptions,
)
from stillrobust.corruptions.compilation import warm_up
from stillrobust.data.decoding import ImageReading
from stillrobust.data.reading import encode_png
from stillrobust.errors import UserError
from stillrobust.execution import JobProgressCallback
from stillrobust.names import lookup
from stillrobust.samples import Image
from stillrobust.tools.folder_job import (
    FolderPlan,
    FolderSources,
    FolderSummary,
    require_outside,
    run_folder_job,
    sha256_of_name,
)
from stillrobust.tools.photos import find_photos
from stillrobust.user_files import display_name, is_user_file, with_content_hash

SUFFIX_OF_FORMAT = {"png": ".png", "jpeg": ".jpg"}


@dataclass(frozen=True)
class CorruptionPlan(FolderPlan):
    """What to make of every photo.

    Raises:
        UserError: For an unknown value.
    """

    corruptions: tuple[str, ...]
    """Names, or paths of user files; ``common`` for the 15."""
    severities: tuple[int, ...] = SEVERITIES
    seed: int = 0
    draws: str = "fast"
    regime: str = "imagenet"
    channel_order: str = "rgb"
    format: str = "png"
    quality: int | None = None
    """Of JPEG, 1..100; ``None`` for PNG, which is lossless."""
    scale: tuple[float, float] | None = None
    """Values of photos with more than 8 bits that become 0 and 255."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "corruptions", resolve_corruptions(self.corruptions))
        for severity in self.severities:
            if severity not in SEVERITIES:
                raise UserError(
                    f"Expected severities among 1, 2, 3, 4, 5, but got {severity}; leave the"
                    " others out"
                )
        object.__setattr__(self, "severities", tuple(dict.fromkeys(self.severities)))
        lookup("draws", self.draws, DRAWS)
        lookup("regime", self.regime, REGIMES)
        lookup("channel order", self.channel_order, CHANNEL_ORDERS)
        lookup("format", self.format, SUFFIX_OF_FORMAT)
        if self.quality not in (range(1, 101) if self.format == "jpeg" else (None,)):
            raise UserError(
                "Expected a quality of 1 to 100 for jpeg, and none for png, but got"
                f" {self.quality!r}; give such a quality, or leave it out"
            )

        object.__setattr__(self, "scale", self.reading.scale)

    @property
    def reading(self) -> ImageReading:
        """Return how photos are read."""
        return ImageReading(self.scale)

    def corrupted(self, image: Image, corruption: str, severity: int, image_id: str) -> Image:
        """One photo under one corruption; severity 0 is the photo itself."""
        how: dict[str, Any] = {
            "draws": self.draws,
            "regime": self.regime,
            "channel_order": self.channel_order,
        }
        return corrupt(image, corruption, severity, seed=self.seed, image_id=image_id, **how)

    def protocol(self) -> dict[str, Any]:
        """Return the corruptions' protocol, how files are read and written, and user files."""
        user_files = {
            f"{display_name(name)}.py": with_content_hash(name)
            for name in self.corruptions
            if is_user_file(name)
        }
        return {
            **corruption_protocol(self.draws, self.regime, self.channel_order),
            "format": self.format,
            "quality": self.quality,
            "reading": self.reading.protocol,
            "seed": self.seed,
            "stillrobust": __version__,
            **user_files,
        }

    def prepare(self) -> None:
        """Compile the kernels."""
        warm_up(self.corruptions, self.draws)

    def outputs(self, target: str) -> dict[str, tuple[str, int]]:
        """Map CORRUPTION/SEVERITY/TARGET.SUFFIX to (corruption, severity)."""
        suffix = SUFFIX_OF_FORMAT[self.format]
        return {
            f"{display_name(corruption)}/{severity}/{target}{suffix}": (corruption, severity)
            for corruption in self.corruptions
            for severity in self.severities
        }

    def encode(self, image: Image, name: str, output: tuple[str, int]) -> bytes:
        """Corrupt the image and encode it as PNG or JPEG."""
        pixels = self.corrupted(image, *output, name)
        if self.quality is None:
            return encode_png(pixels)
        done, encoded = cv2.imencode(
            SUFFIX_OF_FORMAT[self.format],
            cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR),
            [cv2.IMWRITE_JPEG_QUALITY, self.quality],
        )
        if not done:
            raise OSError(f"OpenCV could not encode an image of shape {pixels.shape}")
        return bytes(encoded.tobytes())


def make_corrupted_folder(
    source: Path,
    out: Path,
    plan: CorruptionPlan,
    workers: int | None = None,
    listen: JobProgressCallback = lambda name, done, total, text: None,
) -> FolderSummary:
    """Corrupt a photo, or every photo below a folder. A second call resumes.

    Args:
        source: A photo, or a folder of photos.
        out: Output folder, not inside ``source``.
        plan: Corruptions, severities and protocol.
        workers: Worker processes; default: one for each core.
        listen: Called as ``listen(job, done, total, text)`` while photos are processed.

    Raises:
        UserError: If there is no photo, or ``out`` cannot be used.
        LeaseHeldError: If another process works on ``out``.
    """
    names, links = find_photos(source)
    require_outside(source, out)
    root = source if source.is_dir() else source.parent
    sources = FolderSources(root, unique_targets(names), [[name] for name in names], links)
    return run_folder_job(sources, out, plan, workers, listen)


def unique_targets(names: Sequence[str]) -> dict[str, str]:
    """Choose each source's output path: its own path without the suffix.

    Sources that would share a path, also where case does not count, keep their suffix. If that
    still clashes, part of a hash is added.

    Args:
        names: Paths inside the source folder.
    """
    forms = {
        name: [name.rpartition(".")[0], name, f"{name}-{sha256_of_name(name).hex()[:8]}"]
        for name in names
    }
    while True:
        groups: dict[str, list[list[str]]] = {}
        for remaining in forms.values():
            groups.setdefault(remaining[0].casefold(), []).append(remaining)
        clashing = [group for group in groups.values() if len(group) > 1]
        # of a clashing group, those that use the shortest form move on to their next one
        yielding = [
            remaining
            for group in clashing
            for remaining in group
            if len(remaining) == max(map(len, group)) > 1
        ]
        if not yielding:
            return {name: remaining[0] for name, remaining in forms.items()}
        for remaining in yielding:
            remaining.pop(0)
