"""Compare two corruption protocols on the same photos, in grey levels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillrobust.corruptions import CHANNEL_ORDERS, DRAWS, REFERENCE, REGIMES, corrupt
from stillrobust.data.reading import image_files, read_image
from stillrobust.errors import UserError
from stillrobust.names import lookup
from stillrobust.samples import Image

CHOICES: dict[str, Mapping[str, Any]] = {
    "draws": DRAWS,
    "regime": REGIMES,
    "channel_order": CHANNEL_ORDERS,
}


@dataclass(frozen=True)
class ProtocolDifference:
    """The difference of one corruption under two protocols, in grey levels."""

    corruption: str
    mean: float
    """Mean absolute difference of samples."""
    largest: int
    share: float
    """Of samples that differ, 0..1."""
    shift: float
    """Mean brightness under the second protocol minus that under the first. Different draws of the
    same noise do not change it.
    """


def parse_protocol(text: str) -> dict[str, Any]:
    """Parse a protocol such as ``"channel_order=bgr,draws=exact"``.

    Returns:
        Arguments of ``corrupt``.

    Raises:
        UserError: For an unknown key or value.
    """
    selected: dict[str, Any] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(
                f"Expected KEY=VALUE, but got {pair!r}; use the keys"
                f" {', '.join([*CHOICES, 'seed'])}"
            )
        if key == "seed":
            if not (value.isascii() and value.isdigit()):
                raise UserError(
                    f"Expected a whole number as seed, but got {value!r}; write it as seed=1"
                )
            selected[key] = int(value)
            continue
        lookup(key, value, lookup("key of a protocol", key, CHOICES))
        selected[key] = value
    return selected


def read_sample(source: Path, count: int) -> dict[str, Image]:
    """Read at most ``count`` photos, evenly spaced over a folder.

    Args:
        source: A photo, or a folder of photos.
        count: At least 1.

    Returns:
        Path inside the folder -> uint8 (H, W, 3) RGB.

    Raises:
        UserError: If there is no photo.
    """
    if source.is_file():
        return {source.name: read_image(source)}
    files = image_files(source) if source.is_dir() else []
    if not files or count < 1:
        raise UserError(
            f"Expected a photo or a folder with photos at {source}, and at least one of them; check"
            " the path"
        )
    selected = [
        files[index * len(files) // min(count, len(files))]
        for index in range(min(count, len(files)))
    ]
    return {path.relative_to(source).as_posix(): read_image(path) for path in selected}


def compare_protocols(
    images: Mapping[str, Image],
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    severities: Sequence[int],
) -> list[ProtocolDifference]:
    """Compare two protocols for each of the 19 corruptions.

    Args:
        images: Image id -> uint8 (H, W, 3) RGB.
        first: Arguments of ``corrupt``. The default seed is 0.
        second: The same.
        severities: All of them are pooled.
    """
    rows = []
    for name in REFERENCE:
        total, unequal, largest, shift, samples = 0.0, 0, 0, 0.0, 0
        for image_id, image in images.items():
            for severity in severities:
                how = {"seed": 0, "image_id": image_id}
                one = corrupt(image, name, severity, **{**how, **first}).astype(np.int64)
                gap = corrupt(image, name, severity, **{**how, **second}) - one
                total += float(np.abs(gap).sum())
                unequal += int((gap != 0).sum())
                largest = max(largest, int(np.abs(gap).max()))
                shift += float(gap.sum())
                samples += gap.size
        rows.append(
            ProtocolDifference(name, total / samples, largest, unequal / samples, shift / samples)
        )
    return rows


def format_differences(rows: Sequence[ProtocolDifference]) -> str:
    """Format the differences as a table, the largest mean first."""
    lines = [
        f"{'corruption':18s} {'mean |diff|':>11s} {'largest':>8s} {'differ':>8s} {'brighter':>9s}"
    ]
    lines += [
        f"{row.corruption:18s} {row.mean:11.3f} {row.largest:8d} {100 * row.share:7.2f}%"
        f" {row.shift:+9.3f}"
        for row in sorted(rows, key=lambda row: -row.mean)
    ]
    return "\n".join(lines)
