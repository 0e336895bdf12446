"""What two protocols of corruption change on the same photos, in grey levels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillrobust.corruptions import CHANNEL_ORDERS, CORRUPTIONS, DRAWS, REGIMES, corrupt
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
class Difference:
    """Of one corruption: grey levels from pixel to pixel, their largest, the share of samples that
    differ, and the means'.
    """

    corruption: str
    mean: float
    largest: int
    share: float
    shift: float
    """Mean brightness under the second less that under the first; what is left of two draws of the
    same noise.
    """


def protocol_of(text: str) -> dict[str, Any]:
    """``"channel_order=bgr,draws=exact"`` -> arguments of ``corrupt``; ``UserError`` for what it
    does not know.
    """
    chosen: dict[str, Any] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(
                f"Expected KEY=VALUE, but got {pair!r}; keys: {', '.join([*CHOICES, 'seed'])}"
            )
        if key == "seed":
            if not (value.isascii() and value.isdigit()):
                raise UserError(
                    f"Expected a whole number as seed, but got {value!r}; write it as seed=1"
                )
            chosen[key] = int(value)
            continue
        lookup(key, value, lookup("key of a protocol", key, CHOICES))
        chosen[key] = value
    return chosen


def sample_of(source: Path, count: int) -> dict[str, Image]:
    """At most ``count`` photos, evenly spaced over a folder, by their path in it."""
    if source.is_file():
        return {source.name: read_image(source)}
    files = image_files(source) if source.is_dir() else []
    if not files or count < 1:
        raise UserError(
            f"Expected a photo or a folder with photos at {source}, and at least one of them; check"
            " the path"
        )
    chosen = [
        files[index * len(files) // min(count, len(files))]
        for index in range(min(count, len(files)))
    ]
    return {path.relative_to(source).as_posix(): read_image(path) for path in chosen}


def differences(
    images: Mapping[str, Image],
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    severities: Sequence[int],
) -> list[Difference]:
    """One row for each of the 19 corruptions, over all images and severities; both protocols have
    seed 0 unless they say so.
    """
    rows = []
    for name in CORRUPTIONS:
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
        rows.append(Difference(name, total / samples, largest, unequal / samples, shift / samples))
    return rows


def text_of(rows: Sequence[Difference]) -> str:
    """A table for the terminal, the largest difference first."""
    lines = [
        f"{'corruption':18s} {'mean |diff|':>11s} {'largest':>8s} {'differ':>8s} {'brighter':>9s}"
    ]
    lines += [
        f"{row.corruption:18s} {row.mean:11.3f} {row.largest:8d} {100 * row.share:7.2f}%"
        f" {row.shift:+9.3f}"
        for row in sorted(rows, key=lambda row: -row.mean)
    ]
    return "\n".join(lines)
