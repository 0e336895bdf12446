"""Make a folder of files from a folder of images: in parallel, resumable, with a manifest.

    OUT/manifest.json    the protocol; for every source its hash and its outputs' hashes, or why it
                         was skipped
    OUT/.records/        one file for each finished source while a run is at work; the manifest
                         takes them in at the end

A tool provides a :class:`FolderPlan`, which says what is made of one image. Its outputs depend only
on the plan and the source's path, so the number of workers and interruptions do not matter.
"""

import hashlib
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillrobust.data.decoding import DEFAULT_READING, ImageReading
from stillrobust.data.reading import read_image_bytes
from stillrobust.errors import UserError
from stillrobust.execution import Job, JobProgressCallback, ProgressCallback, run_jobs
from stillrobust.execution.serialization import from_json, to_json
from stillrobust.runtime import capacity
from stillrobust.samples import Image
from stillrobust.storage.files import LEFTOVER, output_folder, require_folder, write_whole
from stillrobust.storage.leases import lease
from stillrobust.tools.photos import read_photo
from stillrobust.untrusted import parse_json, read_regular_file

LARGEST_MANIFEST = 1 << 30  # bytes; a million images have 500 MB
JOBS_PER_WORKER = 8  # small jobs, so that no worker waits long for the last one

Record = dict[str, Any]
"""Of one source: ``name``, ``sha256``, ``outputs`` (path -> SHA-256), ``written``, and a ``remark``
or the reason why it was ``skipped``."""


class FolderPlan(ABC):
    """What a tool makes of each image. A plan is a dataclass, which workers receive as JSON."""

    @property
    def reading(self) -> ImageReading:
        """Return how sources are read."""
        return DEFAULT_READING

    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """Everything that decides an output, apart from the source. A folder has one protocol.

        Keys that end with ``.py`` (user files) may be added by a later run.
        """

    @abstractmethod
    def outputs(self, target: str) -> Mapping[str, Any]:
        """List the files made from one source.

        Args:
            target: The source's path inside its folder, without the suffix.

        Returns:
            Path inside OUT -> what :meth:`encode` needs to know to make this file.
        """

    @abstractmethod
    def encode(self, image: Image, name: str, output: Any) -> bytes:
        """Make the content of one output.

        Args:
            image: The source, uint8 (H, W, 3) RGB.
            name: The source's path inside its folder.
            output: The value that :meth:`outputs` returned for this file.
        """

    def prepare(self) -> None:  # noqa: B027
        """Do what all workers need. Called once, before they start. The default does nothing."""

    def start_group(self, number: int) -> None:  # noqa: B027
        """Prepare for a group of images, in a worker, before its first missing output."""


@dataclass(frozen=True)
class FolderSummary:
    """The result of a run."""

    written: int
    """Files written."""
    already: int
    """Files that existed already."""
    remarks: dict[str, str]
    """Source -> what was converted when it was read."""
    skipped: dict[str, str]
    """Source -> why nothing was made of it."""
    protocol: dict[str, Any]


@dataclass(frozen=True)
class FolderSources:
    """The images to work on."""

    root: Path
    targets: Mapping[str, str]
    """The source's path inside ``root`` -> the same without suffix, as outputs are named."""
    groups: Sequence[Sequence[str]]
    """Every source once. The images of a group are made by one worker, one after the other."""
    skipped: Mapping[str, str]
    """Files that are left out from the start, with the reason."""


def require_outside(source: Path, out: Path) -> None:
    """Raise ``UserError`` if ``out`` lies inside the folder ``source``."""
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise UserError(
            f"Expected an output folder outside {source}, but got {out}, whose files would become"
            " sources; choose another folder"
        )


def run_folder_job(
    sources: FolderSources,
    out: Path,
    plan: FolderPlan,
    workers: int | None = None,
    listen: JobProgressCallback = lambda name, done, total, text: None,
    gpus: Sequence[str] = (),
) -> FolderSummary:
    """Make the missing outputs of all sources. A second call resumes.

    Args:
        sources: The images.
        out: Output folder: new, empty, or made earlier with the same protocol.
        plan: What to make of each image.
        workers: Worker processes; default: one for each GPU, otherwise one for each core.
        listen: Called as ``listen(job, done, total, text)`` while images are processed.
        gpus: GPUs that the workers share out among them.

    Raises:
        UserError: If ``out`` holds other files or was made with another protocol.
        LeaseHeldError: If another process works on ``out``.
    """
    with lease(out), output_folder(out):
        before = _open(out, plan.protocol())
        plan.prepare()
        workers = workers or len(gpus) or capacity.cores()
        numbered = list(enumerate(sources.groups))
        parts = max(1, min(len(numbered), workers * JOBS_PER_WORKER))
        jobs = []
        for part in range(parts):
            groups = tuple(
                (number, tuple((name, sources.targets[name], before.get(name)) for name in names))
                for number, names in numbered[part::parts]
            )
            jobs.append(
                FolderJob(
                    name=f"part {part + 1} of {parts}",
                    root=sources.root,
                    out=out,
                    plan=to_json(plan),
                    groups=groups,
                )
            )
        run_jobs(jobs, min(workers, parts), listen, gpus=gpus)
        return _close(out, plan, before, sources)


def sha256_of_name(name: str) -> bytes:
    """SHA-256 of a path. Bytes that are not UTF-8 count as they are."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()


def _record_path(out: Path, name: str) -> Path:
    return out / ".records" / f"{sha256_of_name(name).hex()}.json"


def _as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _open(out: Path, protocol: dict[str, Any]) -> dict[str, Record]:
    """Begin or resume a folder.

    Returns:
        The records of earlier runs by source, those of interrupted runs included.
    """
    manifest = out / "manifest.json"
    if not manifest.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(
                f"Expected {out} to be new, empty, or made by this command, but it holds other"
                " files; choose another"
            )
        write_whole({manifest: _as_json({"protocol": protocol, "complete": False, "sources": {}})})
    try:
        content = parse_json(read_regular_file(manifest, LARGEST_MANIFEST))
        stored, records = dict(content["protocol"]), dict(content["sources"])
        if not all(isinstance(one, dict) for one in records.values()):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"Expected a manifest of this command at {manifest}, but it cannot be read; choose"
            " another folder"
        ) from None
    user_files = [key for key in protocol.keys() ^ stored.keys() if key.endswith(".py")]
    differing = [
        key
        for key in sorted(protocol | stored)
        if protocol.get(key) != stored.get(key) and key not in user_files
    ]
    if differing:
        parts = ", ".join(
            f"{key} was {stored.get(key)!r} and is {protocol.get(key)!r}" for key in differing
        )
        raise UserError(f"Expected the protocol of {out}, but {parts}; choose another folder")
    # a user file enters the manifest before any output is made with it
    if protocol.keys() - stored.keys():
        manifest_now = {**content, "protocol": stored | protocol, "complete": False}
        write_whole({manifest: _as_json(manifest_now)})
    for path in out.rglob(".*"):  # half-written files of a killed run
        if LEFTOVER.fullmatch(path.name):
            path.unlink()
    for path in (out / ".records").glob("*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):  # not ours: made again
            record = parse_json(read_regular_file(path))
            records[str(record["name"])] = dict(record)
    return records


@dataclass(frozen=True, kw_only=True)
class FolderJob(Job):
    """Make the missing outputs of some groups of images."""

    root: Path
    out: Path
    plan: str
    """A ``FolderPlan`` as JSON."""
    groups: tuple[tuple[int, tuple[tuple[str, str, dict[str, Any] | None], ...]], ...]
    """Number of the group, and its images: name, target, and the record of an earlier run."""

    def run(self, progress: ProgressCallback) -> None:
        """Write the missing outputs and a record for every image."""
        require_folder(self.out)
        with output_folder(self.out):
            self._make_outputs(progress)

    def _make_outputs(self, progress: ProgressCallback) -> None:
        plan = from_json(self.plan, FolderPlan)  # type: ignore[type-abstract]
        done, total = 0, sum(len(images) for _, images in self.groups)
        for number, images in self.groups:
            started = False
            for name, target, before in images:
                content = read_image_bytes(self.root / name)
                record = _known(self.out, name, content, before)
                missing = {
                    path: output
                    for path, output in plan.outputs(target).items()
                    if path not in record["outputs"]
                }
                if missing:
                    if not started:
                        plan.start_group(number)
                        started = True
                    _make_missing(self.out, plan, content, missing, record)
                write_whole({_record_path(self.out, name): _as_json(record)})
                done += 1
                progress(done, total, "images")


def _known(out: Path, name: str, content: bytes, before: Record | None) -> Record:
    """The record of a source, with the outputs that exist and were made from this content."""
    record: Record = {"name": name, "sha256": hashlib.sha256(content).hexdigest(), "written": 0}
    unchanged = before is not None and before["sha256"] == record["sha256"]
    outputs = before["outputs"] if before and unchanged else {}
    record["outputs"] = {path: sha for path, sha in outputs.items() if (out / path).is_file()}
    if before and unchanged and before.get("remark"):
        record["remark"] = before["remark"]
    return record


def _make_missing(
    out: Path, plan: FolderPlan, content: bytes, missing: Mapping[str, Any], record: Record
) -> None:
    image, remark = read_photo(content, plan.reading)
    record["remark" if image is not None else "skipped"] = remark
    if image is None:
        return
    for path, output in missing.items():
        encoded = plan.encode(image, record["name"], output)
        write_whole({out / path: encoded})
        record["outputs"][path] = hashlib.sha256(encoded).hexdigest()
        record["written"] += 1


def _close(
    out: Path, plan: FolderPlan, before: Mapping[str, Record], sources: FolderSources
) -> FolderSummary:
    """Write the manifest with all records, and only then remove their files."""
    records = {
        name: parse_json(read_regular_file(_record_path(out, name))) for name in sources.targets
    }
    written = sum(record["written"] for record in records.values())
    stored = {
        name: {key: value for key, value in record.items() if value and key != "written"}
        | {"outputs": record.get("outputs", {})}
        for name, record in {**before, **records}.items()
    }
    manifest = out / "manifest.json"
    # with the user files of earlier runs
    protocol = parse_json(read_regular_file(manifest, LARGEST_MANIFEST))["protocol"]
    write_whole({manifest: _as_json({"protocol": protocol, "complete": True, "sources": stored})})
    shutil.rmtree(out / ".records")
    skipped = {name: record["skipped"] for name, record in records.items() if "skipped" in record}
    remarks = {name: record["remark"] for name, record in records.items() if record.get("remark")}
    made = [name for name in records if name not in skipped]
    count = sum(len(plan.outputs(sources.targets[name])) for name in made)
    return FolderSummary(
        written, count - written, remarks, skipped | dict(sources.skipped), protocol
    )
