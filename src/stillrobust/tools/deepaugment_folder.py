"""DeepAugment's folders: every image of a training set through a network that is tampered with on
the way.

    OUT/manifest.json             the protocol, whether all is done, and which images could not be
    read OUT/<class>/<stem>.jpg        the changed image, at the place of
    SOURCE/<class>/<stem>.<suffix>

As published, the network's weights are perturbed anew before one image in twenty, in a random
order. That order follows from the seed, and all other draws from the seed and the image's path, so
that workers and interruptions do not matter.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow

from stillrobust import __version__
from stillrobust.data.reading import IMAGE_KINDS, image_files
from stillrobust.errors import UserError
from stillrobust.execution import Job, Listener, run_jobs
from stillrobust.robustify.deepaugment import REDRAW_PROBABILITY, load_pretrained
from stillrobust.robustify.deepaugment.roots import image_stem
from stillrobust.runtime import capacity
from stillrobust.storage.files import LEFTOVER, write_whole
from stillrobust.storage.leases import lease
from stillrobust.tools.corrupt_folder import read_photo

QUALITY = 75  # of JPEG: Pillow's default, which the published folders were saved with
JOBS_A_WORKER = 8  # parts of the work, so that no worker waits long for the last one

Group = tuple[int, tuple[str, ...]]
"""Images made with the same weights, and the number that those follow from."""


@dataclass(frozen=True)
class Summary:
    """What a run did: files written, files that were there already, and images left out, with the
    reason.
    """

    written: int
    already: int
    skipped: dict[str, str]
    sha256: str
    """Of the weight file."""


def deepaugment_set(
    source: Path,
    out: Path,
    network: str,
    weights: Path | None,
    seed: int = 0,
    workers: int | None = None,
    listen: Listener = lambda name, done, total, text: None,
    allow_untrained: bool = False,
) -> Summary:
    """Make ``out`` from the images below ``source``; a second call does only what is missing.

    ``network``: of ``NETWORKS``; ``allow_untrained`` is for tests. Raises ``UserError`` for weights
    that do not fit or are not trained, where there is no image, where two differ in their suffix
    alone, and where ``out`` holds something else.
    """
    pretrained = load_pretrained(network, weights, allow_untrained)
    names = _sources(source, out)
    protocol = {
        "network": network,
        "weights": pretrained.sha256,
        "seed": seed,
        "quality": QUALITY,
        "sources": hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest(),
        "stillrobust": __version__,
    }
    with lease(out):
        _open(out, protocol)
        missing = [
            (number, kept)
            for number, group in groups(names, seed)
            if (kept := _without_made(group, out))
        ]
        count = sum(len(group) for _, group in missing)
        gpus = capacity.gpus()
        workers = workers or len(gpus) or capacity.cores()
        parts = min(len(missing), workers * JOBS_A_WORKER)
        jobs = []
        for part in range(parts):
            arguments = (source, out, network, weights, seed, missing[part::parts], allow_untrained)
            jobs.append(Job(f"deepaugment, part {part + 1} of {parts}", _make_part, arguments))
        if jobs:
            run_jobs(jobs, min(workers, parts), listen, gpus=gpus)
        skipped = {name: reason for name in names if (reason := _reason(out, name))}
        write_whole(
            {
                out / "manifest.json": _text(
                    {"protocol": protocol, "complete": True, "skipped": skipped}
                )
            }
        )
        return Summary(count - len(skipped), len(names) - count, skipped, pretrained.sha256)


def _sources(source: Path, out: Path) -> list[str]:
    """Paths of the images inside ``source``, with ``/``, sorted."""
    if not source.is_dir():
        raise UserError(
            f"Expected a folder of class folders at {source}, but there is none; check the path"
        )
    if out.resolve().is_relative_to(source.resolve()):
        raise UserError(
            f"Expected an output folder outside {source}, but got {out}; its files would be taken"
            " for sources, so choose another folder"
        )
    names = [path.relative_to(source).as_posix() for path in image_files(source)]
    if not names:
        raise UserError(
            f"Expected {IMAGE_KINDS} images below {source}, but found none; check the path"
        )
    twice = [
        name for name, count in Counter(image_stem(name) for name in names).items() if count > 1
    ]
    if twice:
        raise UserError(
            f"Expected names that differ in more than their suffix, but {twice[0]} is there more"
            " than once; rename one"
        )
    return names


def groups(names: Sequence[str], seed: int) -> list[Group]:
    """All images in a random order, cut before each with the probability that weights are drawn
    anew.
    """
    rng = np.random.default_rng([seed, 0])
    order = rng.permutation(len(names))
    cuts = np.nonzero(rng.random(len(names)) < REDRAW_PROBABILITY)[0]
    parts = [part for part in np.split(order, cuts) if part.size]
    return [(number, tuple(names[place] for place in part)) for number, part in enumerate(parts)]


def _target(out: Path, name: str) -> Path:
    return out / f"{image_stem(name)}.jpg"


def _note(out: Path, name: str) -> Path:
    """Where the reason stands why an image is left out."""
    return (
        out
        / ".skipped"
        / f"{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()}.txt"
    )


def _reason(out: Path, name: str) -> str:
    note = _note(out, name)
    return note.read_text() if note.is_file() and not _target(out, name).is_file() else ""


def _without_made(group: Sequence[str], out: Path) -> tuple[str, ...]:
    return tuple(name for name in group if not _target(out, name).is_file())


def _text(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _open(out: Path, protocol: dict[str, Any]) -> None:
    """Begin a new folder or go on with one; ``UserError`` if it holds something else or had another
    protocol.
    """
    manifest = out / "manifest.json"
    if not manifest.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(
                f"Expected {out} to be new, empty, or made by this command, but it holds other"
                " files; choose another"
            )
        write_whole({manifest: _text({"protocol": protocol, "complete": False, "skipped": {}})})
    try:
        theirs = json.loads(manifest.read_text())["protocol"]
        differing = [
            key for key in sorted(protocol | theirs) if protocol.get(key) != theirs.get(key)
        ]
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"Expected a manifest of this command at {manifest}, but it cannot be read; choose"
            " another folder"
        ) from None
    if differing:
        parts = ", ".join(
            f"{key} was {theirs.get(key)!r} and is {protocol.get(key)!r}" for key in differing
        )
        raise UserError(f"Expected what {out} was made with, but {parts}; choose another folder")
    for path in out.rglob(".*"):  # what a killed run was writing
        if LEFTOVER.fullmatch(path.name):
            path.unlink()


def _make_part(
    source: Path,
    out: Path,
    network: str,
    weights: Path | None,
    seed: int,
    chosen: Sequence[Group],
    allow_untrained: bool,
    progress: Callable[[int, int, str], None],
) -> None:
    """Some of the groups, on a GPU where there is one."""
    pretrained = load_pretrained(network, weights, allow_untrained)
    if torch.cuda.is_available():
        pretrained.module.to(torch.device("cuda"))  # the worker's own
    done, total = 0, sum(len(names) for _, names in chosen)
    for number, names in chosen:
        pretrained.perturb(np.random.default_rng([seed, 1, number]))
        for name in names:
            image, remark = read_photo(name, (source / name).read_bytes())
            if image is None:
                write_whole({_note(out, name): remark.encode()})
            else:
                key = int.from_bytes(
                    hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big"
                )
                made = pretrained.distort(
                    Pillow.fromarray(image), np.random.default_rng([seed, 2, key])
                )
                encoded = io.BytesIO()
                Pillow.fromarray(made).save(encoded, "JPEG", quality=QUALITY)
                write_whole({_target(out, name): encoded.getvalue()})
            done += 1
            progress(done, total, "images")
