"""`stillrobust data fetch` against a local server: archives in the official layouts, and everything
that can go wrong.
"""

import functools
import hashlib
import http.server
import shutil
import tarfile
import threading
import zipfile
from dataclasses import replace
from typing import ClassVar

import pytest
from typer.testing import CliRunner

from stillrobust.cli import app
from stillrobust.data import open_dataset
from stillrobust.data.check import check_dataset
from stillrobust.data.official import fetch as fetching
from stillrobust.data.official.extraction import Limits
from stillrobust.data.official.fetch import fetch_dataset
from stillrobust.data.official.imagenet import wordnet_ids
from stillrobust.data.official.layout import COUNTS
from stillrobust.data.official.sources import ARCHIVES
from stillrobust.errors import UserError
from stillrobust.grid import COMMON
from tests import layouts

SMALL = {
    "imagenet_c": {"val": 2},
    "imagenet": {"train": 2, "val": 2},
    "cifar10": {"train": 20, "val": 4},
    "cifar10_c": {"val": 4},
    "ade20k": {"train": 3, "val": 2},
    "coco": {"train": 3, "val": 2},
}


class Quiet(http.server.SimpleHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self):
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A folder with all archives, small, and a server of it."""
    sets, served = tmp_path_factory.mktemp("sets"), tmp_path_factory.mktemp("served")
    _, labels = layouts.write_cifar10(sets)
    layouts.write_cifar10_c(sets, labels)
    layouts.write_coco2017(sets)
    layouts.write_ade20k(sets)
    layouts.write_imagenet_c(layouts.write_imagenet(sets, classes=wordnet_ids()[:2]), COMMON)
    for archive in {archive.name: archive for row in ARCHIVES.values() for archive in row}.values():
        pack(served / archive.name, sets / archive.folder, archive.contents)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(served))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield served, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def pack(path, folder, names):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                for file in sorted((folder / name).rglob("*")):
                    archive.write(file, file.relative_to(folder))
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
            for name in names:
                archive.add(folder / name, name)


@pytest.fixture
def table(origin, monkeypatch):
    """The table of archives with the local server's addresses, sizes and checksums; and the counts
    of the small copies.
    """
    served, url = origin
    rows = {
        name: tuple(local(archive, served, url) for archive in row)
        for name, row in ARCHIVES.items()
    }
    for name, row in rows.items():
        monkeypatch.setitem(ARCHIVES, name, row)
    for name, counts in SMALL.items():
        monkeypatch.setitem(COUNTS, name, counts)
    monkeypatch.setattr("stillrobust.data.official.coco_2017.TRAINABLE_IMAGES", 2)
    Quiet.asked.clear()
    return rows


def local(archive, served, url):
    content = (served / archive.name).read_bytes()
    sums = (
        {"sha256": hashlib.sha256(content).hexdigest()}
        if archive.sha256
        else {"md5": hashlib.md5(content).hexdigest()}
    )
    size = None if archive.size is None else len(content)
    return replace(
        archive, url=f"{url}/{archive.name}", size=size, limits=Limits(50_000_000, 2000), **sums
    )


def test_the_table_is_whole():
    """Every archive has a checksum; sizes are within the limits; the gives of ImageNet-C are the 15
    corruptions.
    """
    rows = [archive for row in ARCHIVES.values() for archive in row]
    assert all(
        (archive.sha256 and len(archive.sha256) == 64) or (archive.md5 and len(archive.md5) == 32)
        for archive in rows
    )
    assert all(archive.size is None or archive.size <= archive.limits.size for archive in rows)
    assert sorted(
        name for archive in ARCHIVES["imagenet_c"] for name in archive.contents
    ) == sorted(COMMON)


@pytest.mark.parametrize("name", ["coco", "ade20k", "cifar10", "cifar10_c", "imagenet_c"])
def test_fetched_sets_are_whole(table, origin, tmp_path, name):
    seen = []
    fetch_dataset(name, tmp_path / "new", progress=lambda *what: seen.append(what))
    if name == "imagenet_c":  # its clean images need an account
        layouts.write_imagenet(tmp_path / "new", classes=wordnet_ids()[:2])
    part = "(part=True)" if name == "imagenet_c" else ""
    verdict = check_dataset(f"{name}{part}:{tmp_path / 'new'}", full=True)
    assert verdict.whole, verdict.text()
    assert len(
        open_dataset(
            f"{name}{'(part=True)' if name == 'imagenet_c' else ''}:{tmp_path / 'new'}", "val"
        )
    ) in (2, 4)
    assert not list((tmp_path / "new").glob("*.zip")) + list((tmp_path / "new").glob("*.tar*"))
    assert {archive.name for archive in table[name]} <= {what[0] for what in seen}
    Quiet.asked.clear()
    fetch_dataset(name, tmp_path / "new")
    assert not Quiet.asked


def test_only_what_is_missing(table, tmp_path):
    fetch_dataset("coco", tmp_path)
    shutil.rmtree(tmp_path / "val2017")
    Quiet.asked.clear()
    fetch_dataset("coco", tmp_path)
    assert set(Quiet.asked) == {"/val2017.zip"}


def test_a_mirror_comes_first(table, origin, tmp_path, monkeypatch):
    """A folder, or another server; the origin where the mirror has nothing."""
    served, url = origin
    fetch_dataset("ade20k", tmp_path / "a", mirror=str(served))
    assert not Quiet.asked
    monkeypatch.setitem(
        ARCHIVES,
        "ade20k",
        (replace(table["ade20k"][0], url="http://127.0.0.1:9/ADEChallengeData2016.zip"),),
    )
    fetch_dataset("ade20k", tmp_path / "b", mirror=f"{url}/")
    assert Quiet.asked
    (tmp_path / "empty").mkdir()
    fetch_dataset("cifar10", tmp_path / "c", mirror=str(tmp_path / "empty"))
    assert (tmp_path / "c" / "cifar-10-batches-py").is_dir()


def test_wrong_checksums(table, tmp_path, monkeypatch):
    monkeypatch.setitem(ARCHIVES, "ade20k", (replace(table["ade20k"][0], sha256="0" * 64),))
    with pytest.raises(UserError, match="ADEChallengeData2016"):
        fetch_dataset("ade20k", tmp_path)
    assert not (tmp_path / "ADEChallengeData2016").exists()
    wrong = (replace(table["imagenet_c"][0], md5="0" * 32), *table["imagenet_c"][1:])
    monkeypatch.setitem(ARCHIVES, "imagenet_c", wrong)
    with pytest.raises(UserError, match=r"noise.tar \(.*expected MD5 0000"):
        fetch_dataset("imagenet_c", tmp_path)
    assert not (tmp_path / "noise.tar").exists()


def test_an_archive_over_its_limits_is_refused(table, tmp_path, monkeypatch):
    monkeypatch.setitem(
        ARCHIVES, "ade20k", (replace(table["ade20k"][0], limits=Limits(50_000_000, 3)),)
    )
    with pytest.raises(UserError, match="more than 3 files"):
        fetch_dataset("ade20k", tmp_path)
    assert not (tmp_path / "ADEChallengeData2016").exists()


def test_space_is_asked_for_before_anything_is_downloaded(table, tmp_path, monkeypatch):
    monkeypatch.setattr(
        fetching.shutil,
        "disk_usage",
        lambda place: shutil._ntuple_diskusage(10**9, 10**9, 60_000_000),
    )
    with pytest.raises(UserError, match=r"Expected 0.2 GB of free space .* but 0.1 GB are free"):
        fetch_dataset("coco", tmp_path / "new")  # three archives of at most 50 MB
    assert not Quiet.asked
    assert not (tmp_path / "new").exists()
    fetch_dataset("ade20k", tmp_path)


def test_a_part_that_is_there_is_not_written_over(table, tmp_path):
    (tmp_path / "ImageNet-C" / "shot_noise").mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"only shot_noise is there; move it away, then noise.tar is fetched whole"
    ):
        fetch_dataset("imagenet_c", tmp_path)
    assert not Quiet.asked


def test_the_command_and_imagenet(table, tmp_path):
    result = CliRunner().invoke(app, ["data", "fetch", "cifar10", str(tmp_path)])
    assert (result.exit_code, "data check cifar10" in result.output) == (0, True)
    with pytest.raises(UserError, match=r"needs an account: .*image-net.org.* train/<wnid>"):
        fetch_dataset("imagenet", tmp_path)
    with pytest.raises(UserError, match="Did you mean: cifar10"):
        fetch_dataset("cifar", tmp_path)


def test_a_stopped_unpacking_is_done_again_without_another_download(table, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(fetching, "unpack", stop)
    with pytest.raises(KeyboardInterrupt):
        fetch_dataset("ade20k", tmp_path)
    monkeypatch.undo()
    for name, row in table.items():
        monkeypatch.setitem(ARCHIVES, name, row)
    Quiet.asked.clear()
    fetch_dataset("ade20k", tmp_path)
    assert not Quiet.asked
    assert (tmp_path / "ADEChallengeData2016" / "images").is_dir()


def test_a_hostile_archive_leaves_nothing_outside(table, origin, tmp_path, monkeypatch):
    served, url = origin
    with zipfile.ZipFile(served / "hostile.zip", "w") as archive:
        archive.writestr("ADEChallengeData2016/fine.txt", b"x")
        archive.writestr("../../out.txt", b"x")
    digest = hashlib.sha256((served / "hostile.zip").read_bytes()).hexdigest()
    wrong = replace(table["ade20k"][0], url=f"{url}/hostile.zip", sha256=digest, size=None)
    monkeypatch.setitem(ARCHIVES, "ade20k", (wrong,))
    with pytest.raises(UserError, match=r"'../../out.txt'; nothing was unpacked, do not use it"):
        fetch_dataset("ade20k", tmp_path / "a" / "b")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["hostile.zip"]
