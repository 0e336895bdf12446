"""Compare another library of ImageNet-C corruptions with the exact draws of stillrobust.

With the reference's generator these are the reference's pixels. The other library runs in its own
environment, see :mod:`stillrobust.tools.conformance.library`.
"""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stillrobust import __version__
from stillrobust.corruptions import DETERMINISTIC, REFERENCE, corrupt, corruption_protocol
from stillrobust.names import lookup
from stillrobust.samples import Array, Image
from stillrobust.tools.conformance.library import (
    ADAPTERS,
    TIMEOUT_SECONDS,
    Adapter,
    Call,
    LibraryResult,
    call_library,
    get_adapter,
    probe_library,
)
from stillrobust.tools.conformance.library_process import DISTRIBUTIONS, versions
from stillrobust.tools.conformance.permutation_test import image_features, p_value

__all__ = ["ADAPTERS", "Conformance", "Row", "compare_library", "format_table"]

SEEDS = 16  # of the other library, for each image and severity
OWN_SEEDS = 48  # of stillrobust, which show how far one distribution scatters
# up to this p the distributions differ; it is the smallest possible with RELABELINGS = 999
LEVEL = 0.001
FEWER_SEVERITIES = (1, 3, 5)

Verdict = Literal["identical", "±1", "same distribution", "different", "crashes", "not compared"]
Seed = Literal["followed", "ignored", "fixed", "draws nothing", "-"]
CONFORMING: tuple[Verdict, ...] = ("identical", "±1", "same distribution")


@dataclass(frozen=True)
class ConformanceRow:
    """The result for one corruption."""

    corruption: str
    verdict: Verdict
    largest: int | None = None
    """Largest difference of one sample with the same seed, in grey levels."""
    share: float | None = None
    """Of samples (pixel and channel) that differ with the same seed, 0..1."""
    seed: Seed = "-"
    """``ignored``: the same seed gave different pixels. ``fixed``: every seed gave the same pixels,
    although the corruption draws random numbers.
    """
    p: float | None = None
    """Of the permutation test, if it was needed."""
    note: str = ""
    """The error's first line, and the number of calls that raised one."""


@dataclass(frozen=True)
class Conformance:
    """A library's rows, with everything that affects them."""

    library: str
    versions: dict[str, str]
    """Of the other library's environment."""
    own_versions: dict[str, str]
    severities: tuple[int, ...]
    frost_textures: str
    rows: tuple[ConformanceRow, ...]

    @property
    def passed(self) -> bool:
        """Whether every corruption is identical, ±1 or of the same distribution."""
        return all(row.verdict in CONFORMING for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return {
            **asdict(self),
            "passed": self.passed,
            "seeds": SEEDS,
            "own_seeds": OWN_SEEDS,
            "level": LEVEL,
        }


def compare_library(
    library: str,
    python: Path | str | None = None,
    severities: Sequence[int] = FEWER_SEVERITIES,
    corruptions: Iterable[str] = REFERENCE,
    listen: Callable[[int, int, str], None] = lambda done, total, text: None,
    timeout: float = TIMEOUT_SECONDS,
) -> Conformance:
    """Compare a library with the exact draws of stillrobust. A crash of the library is a result.

    Args:
        library: A name of ``ADAPTERS``, or ``module:function``.
        python: The interpreter that has the library; default: this one.
        severities: Of 1..5.
        corruptions: Names of ``REFERENCE``.
        listen: Called as ``listen(done, total, corruption)`` after each corruption.
        timeout: Seconds for one corruption.

    Raises:
        UserError: If the interpreter, the module or the function does not exist.
    """
    names = tuple(corruptions)
    for name in names:
        lookup("corruption of the reference", name, dict.fromkeys(REFERENCE))
    adapter, interpreter = get_adapter(library), str(python or sys.executable)
    environment = probe_library(adapter, interpreter)
    job = _Job(adapter, interpreter, tuple(severities), timeout, environment["crash"])
    rows = []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        results = {name: pool.submit(job.run_library, name) for name in names}
        for done, name in enumerate(names, 1):
            rows.append(job.compare(name, results[name].result()))
            listen(done, len(names), name)
    own = {"stillrobust": __version__, **versions(list(DISTRIBUTIONS))}
    return Conformance(
        library,
        environment["versions"],
        own,
        tuple(severities),
        corruption_protocol()["frost_textures"],
        tuple(rows),
    )


@dataclass(frozen=True)
class _Job:
    adapter: Adapter
    python: str
    severities: tuple[int, ...]
    timeout: float
    crash: str | None  # the error with which the library's import crashed

    def calls(self, corruption: str) -> list[Call]:
        """List all calls: each image and severity with its seeds, then each first call again."""
        settings = [(name, severity) for name in test_images() for severity in self.severities]
        seeds = 1 if corruption in DETERMINISTIC else SEEDS
        calls = [
            (*setting, 1000 * i + seed)
            for i, setting in enumerate(settings)
            for seed in range(seeds)
        ]
        return calls + calls[::seeds]

    def run_library(self, corruption: str) -> LibraryResult:
        if self.crash is not None:
            return LibraryResult({}, {}, f"import: {self.crash}")
        images = {name: image for name, (image, _) in test_images().items()}
        return call_library(
            self.adapter, self.python, corruption, self.calls(corruption), images, self.timeout
        )

    def compare(self, corruption: str, result: LibraryResult) -> ConformanceRow:
        if result.killed is not None:
            return ConformanceRow(corruption, "crashes", note=result.killed)
        calls = self.calls(corruption)
        if result.errors:
            kinds = list(dict.fromkeys(result.errors.values()))
            return ConformanceRow(
                corruption,
                "crashes",
                note=f"{kinds[0]} ({len(result.errors)} of {len(calls)} calls)",
            )
        if corruption == "frost" and corruption_protocol()["frost_textures"].startswith(
            "generated"
        ):
            note = (
                "the reference's photographs are not installed: pip install --no-deps"
                " imagecorruptions-imaug"
            )
            return ConformanceRow(corruption, "not compared", note=note)
        theirs = [result.images[number] for number in range(len(calls))]
        firsts = len(calls) - len(self.severities) * len(test_images())
        seed = _seed_behaviour(corruption, calls[:firsts], theirs[:firsts], theirs[firsts:])
        return self._compare_pixels(corruption, calls[:firsts], theirs[:firsts], seed)

    def _compare_pixels(
        self, corruption: str, calls: list[Call], theirs: list[Image], seed: Seed
    ) -> ConformanceRow:
        ours = [_own_image(corruption, call) for call in calls]
        gaps = [np.abs(one.astype(np.int16) - two) for one, two in zip(theirs, ours, strict=True)]
        largest = max(int(gap.max()) for gap in gaps)
        share = sum(int((gap > 0).sum()) for gap in gaps) / sum(gap.size for gap in gaps)
        if largest <= 1:
            return ConformanceRow(
                corruption, "±1" if largest else "identical", largest, share, seed
            )
        # without draws, another image is another corruption
        if corruption in DETERMINISTIC:
            return ConformanceRow(corruption, "different", largest, share, seed)
        more = [
            (image, severity, first + SEEDS + k)
            for image, severity, first in calls[::SEEDS]
            for k in range(OWN_SEEDS)
        ]
        p = p_value(
            *_features(
                _by_setting(calls, theirs),
                _by_setting(more, [_own_image(corruption, call) for call in more]),
            )
        )
        return ConformanceRow(
            corruption, "same distribution" if p > LEVEL else "different", largest, share, seed, p
        )


def _own_image(corruption: str, call: Call) -> Image:
    image, severity, seed = call
    return corrupt(test_images()[image][0], corruption, severity, rng=np.random.RandomState(seed))


def _by_setting(calls: list[Call], images: list[Image]) -> dict[tuple[str, int], list[Image]]:
    """The images of each (image, severity), in the order of the seeds."""
    settings: dict[tuple[str, int], list[Image]] = {}
    for call, image in zip(calls, images, strict=True):
        settings.setdefault(call[:2], []).append(image)
    return settings


def _features(
    theirs: dict[tuple[str, int], list[Image]], ours: dict[tuple[str, int], list[Image]]
) -> tuple[Array, Array]:
    """The features of both sides' images, float64 (seeds, settings, F) each."""
    described = [
        image_features([*theirs[setting], *ours[setting]], *test_images()[setting[0]])
        for setting in theirs
    ]
    numbers = np.stack(described, axis=1)
    return numbers[:SEEDS], numbers[SEEDS:]


def _seed_behaviour(
    corruption: str, calls: list[Call], theirs: list[Image], again: list[Image]
) -> Seed:
    firsts = theirs[:: len(theirs) // len(again)]
    if any((one != two).any() for one, two in zip(firsts, again, strict=True)):
        return "ignored"
    if corruption in DETERMINISTIC:
        return "draws nothing"
    pairs = [
        (one, two)
        for call, one, two in zip(calls[1:], theirs, theirs[1:], strict=False)
        if call[2] % 1000
    ]
    return "followed" if any((one != two).any() for one, two in pairs) else "fixed"


def test_images() -> dict[str, tuple[Image, Array]]:
    """Generate two images, uint8 (H, W, 3), each with a mask of its flat patches, bool (H, W).

    The sizes matter: 224 x 224 is what ImageNet-C was made for; at 160 x 320 pixelate's filters
    differ (0.4 of it is a whole number) and snow's zoom rounds beyond the border.
    """
    return {"wide": _test_image(160, 320), "square": _test_image(224, 224)}


def _test_image(height: int, width: int) -> tuple[Image, Array]:
    """A smooth field of colours with straight and round edges, over four flat patches."""
    down, across = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)
    waves = [
        np.sin(7 * across + 2 * down),
        np.cos(5 * across * down + 3 * down),
        np.sin(9 * down - 4 * across),
    ]
    field = 128 + 90 * np.stack(waves, axis=2)
    field[(down > 0.15) & (down < 0.45) & (across > 0.1) & (across < 0.35)] = (200, 60, 40)
    field[(down - 0.35) ** 2 + (across - 0.7) ** 2 < 0.03] += 60
    field[(np.floor(24 * across) % 2 == 0) & (down > 0.55) & (down < 0.7)] = 20
    flat = down >= 0.75
    patches = np.array([(30, 30, 30), (110, 120, 130), (90, 180, 60), (225, 225, 225)])
    field[flat] = patches[np.floor(4 * across[flat]).astype(int)]
    return np.clip(field, 0, 255).astype(np.uint8), flat


def format_table(found: Conformance) -> str:
    """Format the rows, the library's environment, and the number of each verdict."""
    widths = (18, 18, 8, 8, 14, 6)
    cells = [("corruption", "verdict", "largest", "share", "seed", "p", "")]
    for row in found.rows:
        largest = "-" if row.largest is None else str(row.largest)
        share = "-" if row.share is None else f"{100 * row.share:.3g} %"
        p = "" if row.p is None else f"{row.p:.3f}"
        cells.append((row.corruption, row.verdict, largest, share, row.seed, p, row.note))
    lines = [
        "".join(f"{cell:<{width}} " for cell, width in zip(row, (*widths, 0), strict=True)).rstrip()
        for row in cells
    ]
    counts = {
        verdict: sum(row.verdict == verdict for row in found.rows)
        for verdict in (*CONFORMING, "different", "crashes", "not compared")
    }
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    ignored = sum(row.seed == "ignored" for row in found.rows)
    environment = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    summary = [
        f"{found.library} ({environment})",
        verdicts + (f"; {ignored} ignore the seed" if ignored else ""),
    ]
    return "\n".join([*lines, "", *summary])
