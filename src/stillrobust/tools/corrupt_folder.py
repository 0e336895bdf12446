"""Whole folders of photos under corruptions, written to disk: resumable, with a manifest of what
was made from what.

    OUT/manifest.json                       the protocol, and for every source its hash, its
    outputs' hashes, or why it was skipped OUT/fog/3/street/0001.png               the corrupted
    photo, at the source's place in the tree

Pixels depend on the seed and the source's path inside the folder alone, so that workers and order
do not matter. While a run goes on, ``OUT/.records`` holds one file for each finished source; the
manifest takes them in at the end.
"""

import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from stillrobust import __version__
from stillrobust.corruptions import (
    CHANNEL_ORDERS,
    MODES,
    REGIMES,
    SEVERITIES,
    chosen,
    corrupt,
    protocol,
    warm_up,
)
from stillrobust.data.reading import LARGEST, decode_image, encode_png
from stillrobust.errors import UserError
from stillrobust.execution import Job, JobProgressCallback, ProgressCallback, run_jobs
from stillrobust.names import lookup
from stillrobust.runtime import capacity
from stillrobust.samples import Image
from stillrobust.storage.files import LEFTOVER, write_whole
from stillrobust.storage.leases import lease
from stillrobust.user_files import is_own, keyed, shown

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif"})
FORMATS = {"png": ".png", "jpeg": ".jpg"}
JOBS_A_WORKER = 8  # parts of the work, so that no worker waits long for the last one


@dataclass(frozen=True)
class SetPlan:
    """What to make of every photo."""

    corruptions: tuple[str, ...]
    """Names, or paths of files of your own."""
    severities: tuple[int, ...] = SEVERITIES
    seed: int = 0
    mode: str = "fast"
    regime: str = "imagenet"
    channel_order: str = "rgb"
    format: str = "png"
    quality: int | None = None
    """Of JPEG, 1..100; ``None`` for PNG, which loses nothing."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "corruptions", chosen(self.corruptions))
        for severity in self.severities:
            if severity not in SEVERITIES:
                raise UserError(
                    f"Expected severities among 1, 2, 3, 4, 5, but got {severity}; leave the"
                    " others out"
                )
        object.__setattr__(self, "severities", tuple(dict.fromkeys(self.severities)))
        lookup("mode", self.mode, MODES)
        lookup("regime", self.regime, REGIMES)
        lookup("channel order", self.channel_order, CHANNEL_ORDERS)
        lookup("format", self.format, FORMATS)
        if self.quality not in (range(1, 101) if self.format == "jpeg" else (None,)):
            raise UserError(
                "Expected a quality of 1 to 100 for jpeg, and none for png, but got"
                f" {self.quality!r}; give such a quality, or leave it out"
            )

    def corrupted(self, image: Image, corruption: str, severity: int, image_id: str) -> Image:
        """One photo under one corruption; severity 0 is the photo itself."""
        how: dict[str, Any] = {
            "mode": self.mode,
            "regime": self.regime,
            "channel_order": self.channel_order,
        }
        return corrupt(image, corruption, severity, seed=self.seed, image_id=image_id, **how)

    def protocol(self) -> dict[str, Any]:
        """What decides a pixel, apart from corruption, severity and photo."""
        stored = {"format": self.format, "quality": self.quality, "seed": self.seed}
        own = {f"{shown(name)}.py": keyed(name) for name in self.corruptions if is_own(name)}
        return {
            **protocol(self.mode, self.regime, self.channel_order),
            **stored,
            "stillrobust": __version__,
            **own,
        }


@dataclass(frozen=True)
class Summary:
    """What a run did: files written, files that were there already, and sources with a remark or
    skipped, with the reason.
    """

    written: int
    already: int
    remarks: dict[str, str]
    skipped: dict[str, str]


def corrupt_set(
    source: Path,
    out: Path,
    plan: SetPlan,
    workers: int | None = None,
    listen: JobProgressCallback = lambda name, done, total, text: None,
) -> Summary:
    """Corrupt a photo, or every photo below a folder, into ``out``; a second call does only what is
    missing.

    Raises ``UserError`` where there is no photo, ``out`` lies inside ``source``, or ``out`` was
    made with another protocol; ``Held`` while another process works on ``out``.
    """
    names, links = _sources(source)
    root = source if source.is_dir() else source.parent
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise UserError(
            f"Expected an output folder outside {source}, but got {out}; its files would be taken"
            " for sources, so choose another folder"
        )
    with lease(out):
        before = _open(out, plan)
        targets = _targets(names)
        warm_up()  # so that workers find the kernels on disk
        workers = workers or capacity.cores()
        parts = max(1, min(len(names), workers * JOBS_A_WORKER))
        jobs = []
        for part in range(parts):
            jobs.append(
                CorruptJob(
                    name=f"corrupt, part {part + 1} of {parts}",
                    root=root,
                    out=out,
                    plan=plan,
                    images=tuple(
                        (name, targets[name], before.get(name)) for name in names[part::parts]
                    ),
                )
            )
        run_jobs(jobs, min(workers, parts), listen)
        return _close(out, plan, before, names, links)


def _sources(source: Path) -> tuple[list[str], dict[str, str]]:
    """Paths inside the folder, with ``/``, sorted; and those that are links out of it, with the
    reason.
    """
    if source.is_file():
        return [source.name], {}
    if not source.is_dir():
        raise UserError(
            f"Expected a photo or a folder of photos at {source}, but there is neither; check the"
            " path"
        )
    names, links, root = [], {}, source.resolve()
    for path in source.rglob("*"):
        inside = path.relative_to(source)
        if (
            path.suffix.lower() not in SUFFIXES
            or any(part.startswith(".") for part in inside.parts)
            or not path.is_file()
        ):
            continue
        if path.resolve().is_relative_to(root):
            names.append(inside.as_posix())
        else:
            links[inside.as_posix()] = "a link out of the folder"
    if not names:
        raise UserError(
            f"Expected photos ({', '.join(sorted(SUFFIXES))}) below {source}, but found none; check"
            " the path"
        )
    return sorted(names), links


def _targets(names: Sequence[str]) -> dict[str, str]:
    """Each source's path without its suffix; those that would meet keep theirs, and where that does
    not part them, a digest.
    """
    ways = {name: [name.rpartition(".")[0], name, f"{name}-{_digest(name)[:8]}"] for name in names}
    while True:
        groups: dict[str, list[list[str]]] = {}
        for left in ways.values():
            groups.setdefault(left[0].casefold(), []).append(left)
        most = {target: max(map(len, group)) for target, group in groups.items() if len(group) > 1}
        giving_way = [
            left
            for target, ways_left in most.items()
            for left in groups[target]
            if len(left) == ways_left > 1
        ]
        if not giving_way:
            return {name: left[0] for name, left in ways.items()}
        for left in giving_way:  # those that still have the shorter form
            left.pop(0)


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()


def _record_path(out: Path, name: str) -> Path:
    return out / ".records" / f"{_digest(name)}.json"


def _open(out: Path, plan: SetPlan) -> dict[str, dict[str, Any]]:
    """What earlier runs recorded, by source; ``UserError`` if they had another protocol."""
    manifest, own = out / "manifest.json", plan.protocol()
    if not manifest.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(
                f"Expected {out} to be new, empty, or made by this command, but it holds other"
                " files; choose another"
            )
        write_whole({manifest: _text({"protocol": own, "complete": False, "sources": {}})})
    try:
        found = json.loads(manifest.read_text())
        theirs, records = dict(found["protocol"]), dict(found["sources"])
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"Expected a manifest of this command at {manifest}, but it cannot be read; choose"
            " another folder"
        ) from None
    # one may ask for another corruption every time
    files = [key for key in own.keys() ^ theirs.keys() if key.endswith(".py")]
    differing = [
        key for key in sorted(own | theirs) if own.get(key) != theirs.get(key) and key not in files
    ]
    if differing:
        parts = ", ".join(
            f"{key} was {theirs.get(key)!r} and is {own.get(key)!r}" for key in differing
        )
        raise UserError(f"Expected the protocol of {out}, but {parts}; choose another folder")
    # a corruption of one's own that is new here: known before it makes anything
    if own.keys() - theirs.keys():
        write_whole({manifest: _text({**found, "protocol": theirs | own, "complete": False})})
    for path in out.rglob(".*"):  # what a killed run was writing
        if LEFTOVER.fullmatch(path.name):
            path.unlink()
    for path in (out / ".records").glob("*.json"):
        record = json.loads(path.read_text())
        records[record["name"]] = record
    return records


def _text(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


@dataclass(frozen=True, kw_only=True)
class CorruptJob(Job):
    """Corrupt some images of a folder."""

    root: Path
    out: Path
    plan: SetPlan
    images: tuple[tuple[str, str, dict[str, Any] | None], ...]
    """(path inside ``root``, path of the output without its suffix, its record in the manifest)."""

    def run(self, progress: ProgressCallback) -> None:
        """Write the missing outputs.

        Args:
            progress: Called after each image.
        """
        for index, (name, target, before) in enumerate(self.images):
            _corrupt_one(self.root, self.out, self.plan, name, target, before)
            progress(index + 1, len(self.images), "photos")


def _corrupt_one(
    root: Path, out: Path, plan: SetPlan, name: str, target: str, before: Mapping[str, Any] | None
) -> None:
    """Write what is missing of one photo, all files whole, and then its record."""
    content = (root / name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    known = dict(before["outputs"]) if before and before["sha256"] == digest else {}
    known = {path: sha for path, sha in known.items() if (out / path).is_file()}
    wanted = {
        f"{shown(corruption)}/{severity}/{target}{FORMATS[plan.format]}": (corruption, severity)
        for corruption in plan.corruptions
        for severity in plan.severities
    }
    missing = [path for path in wanted if path not in known]
    record: dict[str, Any] = {"name": name, "sha256": digest, "outputs": known, "written": 0}
    if missing:
        image, remark = read_photo(name, content)
        record["remark" if image is not None else "skipped"] = remark
        for path in missing if image is not None else []:
            corruption, severity = wanted[path]
            encoded = _encode(plan.corrupted(image, corruption, severity, name), plan)  # type: ignore[arg-type]
            write_whole({out / path: encoded})
            known[path] = hashlib.sha256(encoded).hexdigest()
            record["written"] += 1
    elif before and before.get("remark"):
        record["remark"] = before["remark"]
    write_whole({_record_path(out, name): _text(record)})


def _encode(pixels: Image, plan: SetPlan) -> bytes:
    if plan.quality is None:
        return encode_png(pixels)
    quality = [cv2.IMWRITE_JPEG_QUALITY, plan.quality]
    done, encoded = cv2.imencode(
        FORMATS[plan.format], cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), quality
    )
    if not done:
        raise OSError(f"OpenCV could not encode a picture of {pixels.shape}")
    return bytes(encoded.tobytes())


def read_photo(name: str, content: bytes) -> tuple[Image | None, str]:
    """Encoded bytes -> (uint8 (H, W, 3) RGB, a remark or ""), or (None, the reason why it is left
    out).

    They become what the readers of ``data/`` make of them: EXIF orientation applied, alpha dropped,
    CMYK converted. Left out are files that are damaged or cut short, samples of 16 bits, and
    pictures beyond Pillow's limit. Of an animation the first picture is taken.
    """
    try:
        with warnings.catch_warnings():
            # the limit below is the one that errors
            warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
            opened = Pillow.open(BytesIO(content))
            mode, pixels, frames = (
                opened.mode,
                opened.width * opened.height,
                getattr(opened, "n_frames", 1),
            )
            if pixels > LARGEST:
                return None, f"{opened.width}x{opened.height} is larger than {LARGEST} pixels"
            deep = mode.startswith(("I", "F")) or (
                content[:8] == b"\x89PNG\r\n\x1a\n" and content[24] == 16
            )
            if deep:
                return None, "more than 8 bits a sample; convert it first, saying how"
            turned = opened.getexif().get(0x0112, 1) not in (0, 1)
            by_opencv = Path(name).suffix.lower() in {".png", ".jpg", ".jpeg"} and frames == 1
            # OpenCV turns by itself
            upright = ImageOps.exif_transpose(opened) if turned and not by_opencv else opened
            # reads all of it, where OpenCV fills what is cut short with grey
            converted = np.array(upright.convert("RGB"))
    # its text holds an address in memory; ImportError: see reading.UNREADABLE
    except (UnidentifiedImageError, ImportError):
        return None, "cannot be read: no known image format"
    except Pillow.DecompressionBombError:
        return None, f"larger than {LARGEST} pixels"
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, IndexError) as error:
        return None, f"cannot be read: {str(error) or type(error).__name__}"[:200]
    if by_opencv:
        decoded = decode_image(np.frombuffer(content, np.uint8))
        if decoded is None:
            return None, "cannot be read by OpenCV"
        converted = decoded
    reasons = {
        "animated, first picture taken": frames > 1,
        "CMYK converted": mode == "CMYK",
        "alpha dropped": mode in ("RGBA", "LA", "PA") or "transparency" in opened.info,
        "turned by its EXIF orientation": turned,
    }
    return converted, "; ".join(reason for reason, holds in reasons.items() if holds)


def _close(
    out: Path,
    plan: SetPlan,
    before: Mapping[str, Any],
    names: Sequence[str],
    links: Mapping[str, str],
) -> Summary:
    """Gather the records into the manifest, whole, and only then remove them."""
    records = {name: json.loads(_record_path(out, name).read_text()) for name in names}
    kept = {name: record for name, record in before.items() if name not in records}
    written = sum(record.pop("written") for record in records.values())
    sources = {
        name: {key: value for key, value in record.items() if value}
        for name, record in (kept | records).items()
    }
    for record in sources.values():
        record.setdefault("outputs", {})
    manifest = out / "manifest.json"
    made_by = json.loads(manifest.read_text())["protocol"]  # with the files of earlier calls
    write_whole({manifest: _text({"protocol": made_by, "complete": True, "sources": sources})})
    shutil.rmtree(out / ".records")
    skipped = {name: record["skipped"] for name, record in records.items() if record.get("skipped")}
    remarks = {name: record["remark"] for name, record in records.items() if record.get("remark")}
    made = len(plan.corruptions) * len(plan.severities) * (len(names) - len(skipped))
    return Summary(written, made - written, remarks, {**skipped, **links})
