"""How long corruptions take, as ratios measured in one run: exact and fast against the reference
library, memcpy and cv2.LUT.

    python benchmarks/corruptions.py [--sizes 224x224,480x640,1080x1920] [--rounds 5] [--common]

The reference is imagecorruptions' code (package imagecorruptions or imagecorruptions-imaug, with
scikit-image), where one is installed; without it only our times are printed. Rounds interleave the
candidates; of each the median is taken. CPU time of this thread, in ms per image, mean over the
five severities. "At least" is the ratio at the severity where exact draws gain the least.
"""

import argparse
import importlib
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np

from stillrobust.corruptions import COMMON, CORRUPTIONS, REFERENCE, SEVERITIES, corrupt

Candidate = Callable[[np.ndarray, str, int], object]


def reference() -> Candidate | None:
    """The reference's ``corrupt``, or None."""
    for package in ("imagecorruptions", "imagecorruptions_imaug"):
        try:
            function = importlib.import_module(package).corrupt
        except ImportError:
            continue
        return lambda image, name, severity: function(
            image, corruption_name=name, severity=severity
        )
    return None


def photo(height: int, width: int) -> np.ndarray:
    """A photograph of scikit-image, which the reference needs, else a generated picture; uint8
    (height, width, 3).
    """
    try:
        from skimage import data
    except ImportError:
        return drawing(height, width)
    return cv2.resize(
        data.astronaut(),
        (width, height),
        interpolation=cv2.INTER_AREA if height < 512 else cv2.INTER_CUBIC,
    )


def drawing(height: int, width: int) -> np.ndarray:
    """A generated picture with smooth parts and edges, a third of it flat."""
    rng = np.random.RandomState(0)
    coarse = rng.randint(0, 256, (12, 16, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    edges = cv2.resize(
        rng.randint(0, 256, (9, 13, 3)).astype(np.uint8),
        (width, height),
        interpolation=cv2.INTER_NEAREST,
    )
    return np.where(smooth[..., :1] > 128, smooth, edges)


def milliseconds(call: Callable[..., object], *arguments: object) -> float:
    begun = time.thread_time()
    call(*arguments)
    return 1000 * (time.thread_time() - begun)


def measure(
    image: np.ndarray, name: str, candidates: dict[str, Candidate], rounds: int
) -> dict[str, list[float]]:
    """The medians over rounds in ms, one for each severity."""
    medians: dict[str, list[float]] = {label: [] for label in candidates}
    for severity in SEVERITIES:
        for call in candidates.values():
            call(image, name, severity)  # tables, textures and compiled code
        times: dict[str, list[float]] = {label: [] for label in candidates}
        for _ in range(rounds):
            for label, call in candidates.items():
                repeats = 1 if label == "reference" else 3
                times[label].append(
                    min(milliseconds(call, image, name, severity) for _ in range(repeats))
                )
        for label in candidates:
            medians[label].append(statistics.median(times[label]))
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", default="224x224,480x640,1080x1920", help="HEIGHTxWIDTH, with commas"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--common", action="store_true", help="only the 15 common corruptions")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    stream = np.random.RandomState(0)
    candidates: dict[str, Candidate] = {
        "exact": lambda image, name, severity: corrupt(image, name, severity, rng=stream),
        "fast": lambda image, name, severity: corrupt(image, name, severity, seed=0, image_id="a"),
    }
    other = reference()
    if other:
        candidates["reference"] = other
    for size in arguments.sizes.split(","):
        height, width = (int(part) for part in size.split("x"))
        image = photo(height, width)
        print(
            f"\n{height}x{width}: ms per image, mean over severities; ratios are reference / ours"
        )
        totals = dict.fromkeys(candidates, 0.0)
        for name in COMMON if arguments.common else CORRUPTIONS:
            # the reference has no code for the ten of ImageNet-C-bar
            able = {
                label: call
                for label, call in candidates.items()
                if label != "reference" or name in REFERENCE
            }
            medians = measure(image, name, able, arguments.rounds)
            took = {label: statistics.mean(values) for label, values in medians.items()}
            print(line(name, took) + least_gain(medians), flush=True)
            for label, value in took.items():
                totals[label] += value if name in COMMON else 0.0
        print(line("sum of the 15", totals))
        copy = min(milliseconds(np.copyto, np.empty_like(image), image) for _ in range(20))
        table = np.arange(256, dtype=np.uint8)
        lut = min(milliseconds(cv2.LUT, image, table) for _ in range(20))
        print(
            f"memcpy {copy:.3f} ms, one cv2.LUT pass {lut:.3f} ms: fast is"
            f" {totals['fast'] / 15 / lut:.1f} LUT passes an image"
        )


def least_gain(medians: dict[str, list[float]]) -> str:
    """The smallest ratio of the reference to exact draws over the severities."""
    if "reference" not in medians:
        return ""
    ratios = [
        other / ours for other, ours in zip(medians["reference"], medians["exact"], strict=True)
    ]
    least = min(ratios)
    return f"  exact at least {least:.2f}x (severity {SEVERITIES[ratios.index(least)]})"


def line(name: str, took: dict[str, float]) -> str:
    text = f"{name:26s}" + "".join(f" {label} {value:9.2f}" for label, value in took.items())
    if "reference" in took:
        text += (
            f"   exact {took['reference'] / took['exact']:6.1f}x  fast"
            f" {took['reference'] / took['fast']:6.1f}x"
        )
    return text


if __name__ == "__main__":
    main()
