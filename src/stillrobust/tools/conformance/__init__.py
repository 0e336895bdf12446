"""Does another library of ImageNet-C corruptions do what ours does? Corruption by corruption, with
both libraries' versions.

Ours has the reference's pixels where it is given the reference's generator, so that it is the
measure here. The other library runs in its own environment
(:mod:`stillrobust.tools.conformance.other`).
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stillrobust import __version__
from stillrobust.corruptions import CORRUPTIONS, DETERMINISTIC, corrupt, protocol
from stillrobust.names import lookup
from stillrobust.samples import Array, Image
from stillrobust.tools.conformance import other
from stillrobust.tools.conformance.child import DISTRIBUTIONS, versions
from stillrobust.tools.conformance.distribution import describe, p_value
from stillrobust.tools.conformance.other import ADAPTERS, Adapter, Answer, Call

__all__ = ["ADAPTERS", "Conformance", "Row", "conformance", "table"]

SEEDS = 16  # of the other library, for every image and severity
OWN_SEEDS = 48  # of ours, which say how far one distribution scatters
# below this p the distributions differ; with RELABELINGS = 999 it is the least there is
LEVEL = 0.001
FEWER_SEVERITIES = (1, 3, 5)

Verdict = Literal["identical", "±1", "same distribution", "different", "crashes", "not compared"]
Seed = Literal["followed", "ignored", "fixed", "draws nothing", "-"]
GOOD: tuple[Verdict, ...] = ("identical", "±1", "same distribution")


@dataclass(frozen=True)
class Row:
    """What was found of one corruption."""

    corruption: str
    verdict: Verdict
    largest: int | None = None
    """Largest difference of one sample with the same seed, in grey levels."""
    share: float | None = None
    """Of the samples (pixel and channel) that differ with the same seed, 0..1."""
    seed: Seed = "-"
    """ignored: the same seed gave different pixels; fixed: every seed gave the same pixels, where
    ours draws.
    """
    p: float | None = None
    """Of the permutation test, where there was one."""
    note: str = ""
    """The error's line, and how many calls had one."""


@dataclass(frozen=True)
class Conformance:
    """A library's rows, with everything that decides them."""

    library: str
    versions: dict[str, str]
    """Of the other library's environment."""
    own_versions: dict[str, str]
    severities: tuple[int, ...]
    frost_textures: str
    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        """Whether every corruption is identical, ±1 or of the same distribution."""
        return all(row.verdict in GOOD for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        return {
            **asdict(self),
            "passed": self.passed,
            "seeds": SEEDS,
            "own_seeds": OWN_SEEDS,
            "level": LEVEL,
        }


def conformance(
    library: str,
    python: Path | str | None = None,
    severities: Sequence[int] = FEWER_SEVERITIES,
    corruptions: Iterable[str] = tuple(CORRUPTIONS),
    listen: Callable[[int, int, str], None] = lambda done, total, text: None,
    timeout: float = other.TIMEOUT_SECONDS,
) -> Conformance:
    """Compare a library (a name of ``ADAPTERS``, or ``module:function``) in ``python``'s
    environment with ours.

    ``listen(done, total, corruption)`` hears of progress; ``timeout`` is in seconds for one
    corruption. Raises ``UserError`` where interpreter, module or function are not there; a library
    that crashes is a result.
    """
    names = tuple(corruptions)
    for name in names:
        lookup("corruption", name, CORRUPTIONS)
    adapter, interpreter = other.adapter_of(library), other.interpreter(python)
    found = other.probe(adapter, interpreter)
    job = _Job(adapter, interpreter, tuple(severities), timeout, found["crash"])
    rows = []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        answers = {name: pool.submit(job.ask, name) for name in names}
        for done, name in enumerate(names, 1):
            rows.append(job.judge(name, answers[name].result()))
            listen(done, len(names), name)
    own = {"stillrobust": __version__, **versions(list(DISTRIBUTIONS))}
    return Conformance(
        library,
        found["versions"],
        own,
        tuple(severities),
        protocol()["frost_textures"],
        tuple(rows),
    )


@dataclass(frozen=True)
class _Job:
    adapter: Adapter
    python: str
    severities: tuple[int, ...]
    timeout: float
    crash: str | None  # the line with which the import crashed, as it will every time

    def calls(self, corruption: str) -> list[Call]:
        """Each image and severity with seeds of its own, then every first call once more."""
        settings = [(name, severity) for name in test_images() for severity in self.severities]
        seeds = 1 if corruption in DETERMINISTIC else SEEDS
        calls = [
            (*setting, 1000 * i + seed)
            for i, setting in enumerate(settings)
            for seed in range(seeds)
        ]
        return calls + calls[::seeds]

    def ask(self, corruption: str) -> Answer:
        if self.crash is not None:
            return Answer({}, {}, f"import: {self.crash}")
        images = {name: image for name, (image, _) in test_images().items()}
        return other.call(
            self.adapter, self.python, corruption, self.calls(corruption), images, self.timeout
        )

    def judge(self, corruption: str, answer: Answer) -> Row:
        if answer.killed is not None:
            return Row(corruption, "crashes", note=answer.killed)
        calls = self.calls(corruption)
        if answer.errors:
            kinds = list(dict.fromkeys(answer.errors.values()))
            return Row(
                corruption,
                "crashes",
                note=f"{kinds[0]} ({len(answer.errors)} of {len(calls)} calls)",
            )
        if corruption == "frost" and protocol()["frost_textures"].startswith("generated"):
            note = (
                "the reference's photographs are not here: pip install --no-deps"
                " imagecorruptions-imaug"
            )
            return Row(corruption, "not compared", note=note)
        theirs = [answer.images[number] for number in range(len(calls))]
        firsts = len(calls) - len(self.severities) * len(test_images())
        seed = _seed(corruption, calls[:firsts], theirs[:firsts], theirs[firsts:])
        return self._compare(corruption, calls[:firsts], theirs[:firsts], seed)

    def _compare(self, corruption: str, calls: list[Call], theirs: list[Image], seed: Seed) -> Row:
        ours = [_ours(corruption, call) for call in calls]
        gaps = [np.abs(one.astype(np.int16) - two) for one, two in zip(theirs, ours, strict=True)]
        largest = max(int(gap.max()) for gap in gaps)
        share = sum(int((gap > 0).sum()) for gap in gaps) / sum(gap.size for gap in gaps)
        if largest <= 1:
            return Row(corruption, "±1" if largest else "identical", largest, share, seed)
        # where ours draws nothing, another image is another corruption
        if corruption in DETERMINISTIC:
            return Row(corruption, "different", largest, share, seed)
        more = [
            (image, severity, first + SEEDS + k)
            for image, severity, first in calls[::SEEDS]
            for k in range(OWN_SEEDS)
        ]
        p = p_value(
            *_numbers(
                _by_setting(calls, theirs),
                _by_setting(more, [_ours(corruption, call) for call in more]),
            )
        )
        return Row(
            corruption, "same distribution" if p > LEVEL else "different", largest, share, seed, p
        )


def _ours(corruption: str, call: Call) -> Image:
    image, severity, seed = call
    return corrupt(test_images()[image][0], corruption, severity, rng=np.random.RandomState(seed))


def _by_setting(calls: list[Call], images: list[Image]) -> dict[tuple[str, int], list[Image]]:
    """The images of each (image, severity), in the order of the seeds."""
    settings: dict[tuple[str, int], list[Image]] = {}
    for call, image in zip(calls, images, strict=True):
        settings.setdefault(call[:2], []).append(image)
    return settings


def _numbers(
    theirs: dict[tuple[str, int], list[Image]], ours: dict[tuple[str, int], list[Image]]
) -> tuple[Array, Array]:
    """The numbers of both sides' images, float64 (seeds, settings, F) each."""
    described = [
        describe([*theirs[setting], *ours[setting]], *test_images()[setting[0]])
        for setting in theirs
    ]
    numbers = np.stack(described, axis=1)
    return numbers[:SEEDS], numbers[SEEDS:]


def _seed(corruption: str, calls: list[Call], theirs: list[Image], again: list[Image]) -> Seed:
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
    """Two generated images, uint8 (H, W, 3), each with the place of its flat patches, bool (H, W):
    the lowest quarter.

    The sizes matter: 224 x 224 is what ImageNet-C was made for; at 160 x 320 pixelate's filters
    differ (0.4 of it is whole) and snow's zoom rounds beyond the border.
    """
    return {"wide": _test_image(160, 320), "square": _test_image(224, 224)}


def _test_image(height: int, width: int) -> tuple[Image, Array]:
    """A smooth field of colours, with straight and round edges in it, over four flat patches."""
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


def table(found: Conformance) -> str:
    """The rows as text, the environment, and a line that sums up."""
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
        for verdict in (*GOOD, "different", "crashes", "not compared")
    }
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    ignored = sum(row.seed == "ignored" for row in found.rows)
    there = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    ends = [
        f"{found.library} ({there})",
        f"{said}" + (f"; {ignored} ignore the seed" if ignored else ""),
    ]
    return "\n".join([*lines, "", *ends])
