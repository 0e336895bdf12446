"""Download official datasets and unpack them into the layout that ``open_dataset`` reads."""

import hashlib
import shutil
from pathlib import Path

from stillrobust.data.formats.checks import ProgressCallback
from stillrobust.data.official.extraction import staging_folder, unpack
from stillrobust.data.official.sources import ARCHIVES, IMAGENET_ADVICE, Archive
from stillrobust.errors import UserError
from stillrobust.names import unknown_name_error
from stillrobust.storage.downloads import fetch
from stillrobust.storage.files import output_folder

MIB, GB = 1 << 20, 1_000_000_000


def fetch_dataset(
    name: str,
    root: Path,
    mirror: str | None = None,
    progress: ProgressCallback = lambda name, done, total, text: None,
) -> list[str]:
    """Download and unpack the missing archives of a dataset. A second call resumes.

    Args:
        name: Key of ``ARCHIVES``.
        root: Folder of the dataset. Created if missing.
        mirror: Folder or base URL with the archives, tried before the official server.
        progress: Called as archives are downloaded and unpacked.

    Returns:
        The folders that the archives unpack to, relative to ``root``.

    Raises:
        UserError: If the dataset has no public download, the disk is too small (checked before
            the download), a checksum is wrong, or an archive is unsafe (see ``unpack``).
    """
    if name == "imagenet":
        raise UserError(
            f"Expected a set that is openly served, but {IMAGENET_ADVICE}; fetch it there by hand"
        )
    if name not in ARCHIVES:
        raise unknown_name_error("data set to fetch", name, [*ARCHIVES, "imagenet"])
    missing = [archive for archive in ARCHIVES[name] if not _is_unpacked(archive, root)]
    _require_space(missing, root)
    with output_folder(root):
        for archive in missing:
            _fetch_archive(archive, root, mirror, progress)
    return [
        str(Path(archive.folder) / given)
        for archive in ARCHIVES[name]
        for given in archive.contents
    ]


def _is_unpacked(archive: Archive, root: Path) -> bool:
    there = [given for given in archive.contents if (root / archive.folder / given).exists()]
    if there and len(there) < len(archive.contents):
        raise UserError(
            f"Expected all or none of {', '.join(archive.contents)} in {root / archive.folder}, but"
            f" only {', '.join(there)} {'is' if len(there) == 1 else 'are'} there; move"
            f" {'it' if len(there) == 1 else 'them'} away, then {archive.name} is fetched whole"
        )
    return bool(there)


def _require_space(archives: list[Archive], root: Path) -> None:
    """Require space for all content and one archive: each is removed once it is unpacked."""
    needed = kept = 0
    for archive in archives:
        shutil.rmtree(
            staging_folder(root / archive.name, root / archive.folder), ignore_errors=True
        )
        size = archive.size or archive.limits.size
        partial = sum(
            path.stat().st_size for path in root.glob(f"*{archive.name}*") if path.is_file()
        )
        needed = max(needed, kept + max(size - partial, 0) + archive.limits.size)
        kept += archive.limits.size
    place = next(folder for folder in (root, *root.resolve().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"Expected {needed / GB:.1f} GB of free space at {root} for"
            f" {', '.join(archive.name for archive in archives)} and what they unpack to, but"
            f" {free / GB:.1f} GB are free; free some space, or choose another disk"
        )


def _fetch_archive(
    archive: Archive, root: Path, mirror: str | None, progress: ProgressCallback
) -> None:
    path = root / archive.name
    sources = ([] if mirror is None else [f"{mirror.rstrip('/')}/{archive.name}"]) + [archive.url]

    def downloaded(done: int, total: int | None) -> None:
        progress(archive.name, done // MIB, (total or archive.limits.size) // MIB, "MB")

    def md5_fault(path: Path) -> str:
        same = archive.md5 is None or _md5(path) == archive.md5
        return "" if same else f"expected MD5 {archive.md5}, got another"

    fetch(
        sources,
        path,
        sha256=archive.sha256,
        size=archive.size,
        limit=archive.limits.size,
        check=md5_fault,
        progress=downloaded,
    )
    files = archive.limits.files
    unpack(
        path,
        root / archive.folder,
        archive.limits,
        lambda done: progress(f"unpack {archive.name}", done, files, "files at most"),
    )
    path.unlink()


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
