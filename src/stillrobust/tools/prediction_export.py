"""Export the corrupted images of a dataset, so that predictions can be made elsewhere.

The pixels are those that ``evaluate`` shows a model. The layout of the folder is described in
:mod:`stillrobust.evaluation.prediction_manifest`. A cell is complete when its list of SHA-256 sums
exists; until then, ``OUT/.records/`` has a file for every finished batch of images.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from stillrobust.corruptions.compilation import warm_up
from stillrobust.data import open_dataset
from stillrobust.data.reading import encode_png
from stillrobust.errors import UserError
from stillrobust.evaluation.keys import cell_views, resolve_circumstances, select_images
from stillrobust.evaluation.prediction_manifest import (
    cell_name,
    cell_protocol,
    coco_ids,
    protocol_values,
    write_images,
    write_manifest,
)
from stillrobust.evaluation.protocol import Protocol, planned_cells
from stillrobust.execution import Job, JobProgressCallback, ProgressCallback, run_jobs
from stillrobust.grid import Place
from stillrobust.names import format_count
from stillrobust.runtime import capacity
from stillrobust.samples import Dataset
from stillrobust.storage.files import bytes_sha256, write_whole
from stillrobust.storage.leases import lease
from stillrobust.tools.corrupt_folder import unique_targets
from stillrobust.untrusted import parse_json, read_regular_file, read_user_file
from stillrobust.user_files import display_name

BATCH = 32  # images of a job, which an interruption may repeat
SAMPLES = 3  # images per corruption from which the size of an export is estimated


@dataclass(frozen=True)
class ExportSummary:
    """The result of an export."""

    images: int
    """Images of each cell."""
    exported: int
    """Cells that this call completed."""
    already: int
    """Cells that were complete before."""


@dataclass(frozen=True, kw_only=True)
class ExportJob(Job):
    """Write the images of one batch under one corruption."""

    data: str
    """Spec of the dataset."""
    selection: Protocol
    """Protocol of the export, which selects the images."""
    part: Protocol
    """The same protocol with the cells of this job only."""
    out: Path
    start: int
    """Index of the first image."""
    files: tuple[str, ...]
    """Path of each image below the folder of a cell."""

    def run(self, progress: ProgressCallback) -> None:
        """Write the images, and one record for each cell."""
        whole = select_images(_open(self.data), self.selection)
        views = cell_views(whole, self.part)
        records: dict[Place, list[tuple[str, int, int]]] = {place: [] for place in views}
        for offset, file in enumerate(self.files):
            sample = whole[self.start + offset]
            for place, view in views.items():
                corrupted = getattr(view, "corrupt_sample", None)
                shown = corrupted(sample) if corrupted else view[self.start + offset]
                content = encode_png(shown.image)
                write_whole({self.out / image_path(place, file): content})
                records[place].append((bytes_sha256(content), *shown.image.shape[:2]))
            progress(offset + 1, len(self.files), "images")
        for place, rows in records.items():
            path = record_path(self.out, place, self.start)
            write_whole({path: json.dumps(rows).encode()})


@lru_cache(maxsize=2)
def _open(spec: str) -> Dataset:
    """Open a dataset, once in a worker."""
    return open_dataset(spec, "val")


def image_path(place: Place, file: str) -> str:
    """Return the path of an image inside the export, such as ``fog/3/street/01.png``."""
    return f"{display_name(place[0])}/{place[1]}/{file}"


def record_path(out: Path, place: Place, start: int) -> Path:
    """Return the path of the record of a finished batch."""
    return out / ".records" / cell_name(place) / f"{start}.json"


def export_images(
    data: str,
    out: Path,
    protocol: Protocol,
    workers: int | None = None,
    listen: JobProgressCallback = lambda name, done, total, text: None,
) -> ExportSummary:
    """Write the images of every cell as PNG, with a manifest. A second call resumes.

    Args:
        data: Spec of a dataset.
        out: Output folder: new, empty, or made earlier from the same data and protocol. Further
            cells may be added.
        protocol: Cells and circumstances.
        workers: Worker processes (default: one for each core).
        listen: Called as ``listen(job, done, total, text)`` while images are written.

    Raises:
        UserError: If ``out`` has other files, was made otherwise, or the disk is too small.
        LeaseHeldError: If another process exports into ``out``.
    """
    dataset = select_images(open_dataset(data, "val"), protocol)
    circumstances = resolve_circumstances(dataset, protocol, "")
    del circumstances["weights"]
    cells = planned_cells(protocol, dataset.info.task)
    names = [dataset.image_id(index) for index in range(len(dataset))]
    files = [f"{target}.png" for target in unique_targets(names).values()]
    with lease(out):
        earlier = _open_export(out, circumstances, protocol)
        missing = [place for place in cells if not _sums_path(out, place).exists()]
        _require_space(out, dataset, protocol, missing)
        jobs = _jobs(data, out, protocol, missing, files)
        if jobs:
            warm_up(protocol.corruptions, protocol.draws)
            run_jobs(jobs, min(workers or capacity.cores(), len(jobs)), listen)
        image_ids, category_ids = coco_ids(dataset)
        for place in missing:
            rows = _join_records(out, place, files)
            if not (out / "images.csv").exists():
                sizes = [row[1:] for row in rows]
                table = [
                    [name, number, file, *size]
                    for name, number, file, size in zip(names, image_ids, files, sizes, strict=True)
                ]
                write_images(out, table)
        everything = list(dict.fromkeys([*earlier, *cells]))
        write_manifest(out, circumstances, protocol, dataset.info.classes, category_ids, everything)
        shutil.rmtree(out / ".records", ignore_errors=True)
    return ExportSummary(len(dataset), len(missing), len(cells) - len(missing))


def _sums_path(out: Path, place: Place) -> Path:
    return out / f"{cell_name(place)}.sha256"


def _open_export(out: Path, circumstances: dict[str, Any], protocol: Protocol) -> list[Place]:
    """Begin or resume an export; return the cells of its manifest."""
    begun, manifest = out / ".records" / "protocol.json", out / "manifest.json"
    now = json.loads(
        json.dumps({"circumstances": circumstances, "protocol": protocol_values(protocol)})
    )
    place = manifest if manifest.exists() else begun
    if not place.exists():
        if out.exists() and any(entry.name[0] != "." for entry in out.iterdir()):
            raise UserError(
                f"Expected {out} to be new, empty, or made by this command, but it holds other"
                " files; choose another folder"
            )
        write_whole({begun: json.dumps(now).encode()})
        return []
    try:
        found = parse_json(read_user_file(place, "the export's description"))
        before = {part: dict(found[part]) for part in ("circumstances", "protocol")}
        finished = [(one["corruption"], one["severity"]) for one in found.get("cells", [])]
    except UserError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError):
        raise UserError(
            f"Expected the description of this export in {place}, but it is damaged; export into"
            " another folder"
        ) from None
    differing = [
        key
        for part, cells in (("circumstances", ()), ("protocol", ("corruptions", "severities")))
        for key in sorted(now[part].keys() | before[part].keys())
        if key not in cells and now[part].get(key) != before[part].get(key)
    ]
    if differing:
        raise UserError(
            f"Expected the data and protocol of the images in {out}, but"
            f" {', '.join(dict.fromkeys(differing))} differ; choose another folder"
        )
    return finished


def _jobs(
    data: str, out: Path, protocol: Protocol, missing: Sequence[Place], files: Sequence[str]
) -> list[Job]:
    jobs: list[Job] = []
    for corruption in dict.fromkeys(corruption for corruption, _ in missing):
        for start in range(0, len(files), BATCH):
            severities = tuple(
                severity
                for name, severity in missing
                if name == corruption and not record_path(out, (name, severity), start).exists()
            )
            if severities:
                jobs.append(
                    ExportJob(
                        name=f"{display_name(corruption)} from image {start + 1}",
                        data=data,
                        selection=protocol,
                        part=cell_protocol(protocol, corruption, severities),
                        out=out,
                        start=start,
                        files=tuple(files[start : start + BATCH]),
                    )
                )
    return jobs


def _require_space(
    out: Path, dataset: Dataset, protocol: Protocol, missing: Sequence[Place]
) -> None:
    """Raise ``UserError`` if the disk has less space than the missing cells are estimated to
    take.
    """
    needed = 0.0
    chosen = np.linspace(0, len(dataset) - 1, min(SAMPLES, len(dataset))).astype(int).tolist()
    samples = [dataset[index] for index in chosen] if missing else []
    for corruption in dict.fromkeys(corruption for corruption, _ in missing):
        severities = [severity for name, severity in missing if name == corruption]
        middle = severities[len(severities) // 2]
        (view,) = cell_views(dataset, cell_protocol(protocol, corruption, (middle,))).values()
        corrupted = getattr(view, "corrupt_sample", None)
        shown = [
            corrupted(sample) if corrupted else view[index]
            for index, sample in zip(chosen, samples, strict=True)
        ]
        average = sum(len(encode_png(one.image)) for one in shown) / len(shown)
        needed += average * len(dataset) * len(severities)
    folder = next(parent for parent in (out, *out.resolve().parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"Expected about {needed / 1e9:.2f} GB of free space for"
            f" {format_count(len(missing), 'cell')} in {out}, but the disk has"
            f" {free / 1e9:.2f} GB; export fewer corruptions, severities or images at a time"
        )


def _join_records(out: Path, place: Place, files: Sequence[str]) -> list[tuple[str, int, int]]:
    """Write the sums of a cell, and return its records in the order of the images."""
    rows: list[tuple[str, int, int]] = []
    for start in range(0, len(files), BATCH):
        path = record_path(out, place, start)
        try:
            rows += parse_json(read_regular_file(path))
        except (OSError, ValueError) as error:
            raise UserError(
                f"Expected the record {path} of this export, but {error}; remove it and run the"
                " same command again"
            ) from None
    lines = [
        f"{digest}  {image_path(place, file)}\n"
        for (digest, _, _), file in zip(rows, files, strict=True)
    ]
    write_whole({_sums_path(out, place): "".join(lines).encode()})
    return rows
