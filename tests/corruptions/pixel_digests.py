"""Digests of everything that fast draws decide, for tests that run this file in processes with
other processor features.

    python tests/corruptions/pixel_digests.py [NAME,NAME]    prints JSON: case -> SHA-256, first 16
    digits

The pictures are drawn in whole numbers, so that they are the same everywhere too. Frost takes its
generated textures.
"""

import hashlib
import json
import sys
from unittest import mock

import numpy as np

from stillrobust.corruptions import (
    CORRUPTIONS,
    GEOMETRIC,
    REGIMES,
    SEVERITIES,
    corrupt,
    displacement,
    textures,
)

SIZES = ((64, 96), (97, 45), (224, 224))


def picture(height, width):
    """Smooth parts, hard edges and noise."""
    rows, columns = np.arange(height)[:, None, None], np.arange(width)[None, :, None]
    smooth = (
        (rows * rows * np.array([1, 2, 3]) // 37 + columns * np.array([5, 3, 1]) // 2) // 3 % 512
    )
    smooth = np.where(smooth < 256, smooth, 511 - smooth)
    noise = (rows * 7919 + columns * 104729 + np.array([1, 2, 3]) * 1299709) % 251
    edges = np.broadcast_to((rows // 16 + columns // 24) % 3 * 100 + 20, smooth.shape)
    part = (rows // 32 + columns // 32) % 3
    return np.select([part == 0, part == 1], [smooth, edges], noise).astype(np.uint8)


def digest(arrays):
    return hashlib.sha256(
        b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    ).hexdigest()[:16]


def forget_textures():
    for cache in (textures.load_textures, textures.enlarged_texture, textures.shrunk_texture):
        cache.cache_clear()


def digests(names=tuple(CORRUPTIONS), sizes=SIZES):
    found = {}
    with mock.patch.object(textures, "find_frost_folder", return_value=None):
        forget_textures()
        for size in sizes:
            image = picture(*size)
            for regime in REGIMES:
                how = {"seed": 7, "image_id": "a", "regime": regime}
                for name in names:
                    if CORRUPTIONS[name].severities.get(regime, ()) is None:
                        continue
                    case = f"{regime} {size[0]}x{size[1]} {name}"
                    found[case] = digest(
                        corrupt(image, name, severity, **how) for severity in SEVERITIES
                    )
                    if name in GEOMETRIC:
                        found[f"{case} field"] = digest(
                            displacement(size, name, severity, **how) for severity in SEVERITIES
                        )
        forget_textures()
    return found


if __name__ == "__main__":
    print(json.dumps(digests(*(tuple(names.split(",")) for names in sys.argv[1:2])), indent=0))
