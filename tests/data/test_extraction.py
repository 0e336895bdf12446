"""Archives unpack whole and inside their folder, or not at all."""

import gzip
import io
import stat
import tarfile
import zipfile

import pytest

from stillrobust.data.official.extraction import Limits, unpack
from stillrobust.errors import UserError

LIMITS = Limits(size=100_000, files=50)
FILES = {"set/a.txt": b"a" * 700, "set/deep/b.bin": bytes(range(256)) * 8, "other.txt": b""}


def tar_member(name, content=b"x", **fields):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in fields.items():
        setattr(member, key, value)
    return member, io.BytesIO(content)


def write_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for member, content in members:
            archive.addfile(member, content)
    return path


def write_zip(path, files, **fields):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name)
            for key, value in fields.items():
                setattr(member, key, value)
            archive.writestr(member, content)
    return path


def make(path, files):
    if path.suffix == ".zip":
        return write_zip(path, files)
    return write_tar(
        path, [tar_member(*item) for item in files.items()], "w:gz" if path.suffix == ".gz" else "w"
    )


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_whole_archives(tmp_path, name):
    archive, target, counted = make(tmp_path / name, FILES), tmp_path / "to", []
    assert unpack(archive, target, LIMITS, counted.append) == ["other.txt", "set"]
    assert tree(target) == FILES
    assert counted == [1, 2, 3]
    with pytest.raises(UserError, match=r"'other.txt' is there already; move it away"):
        unpack(archive, target, LIMITS)
    assert tree(target) == FILES


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_every_truncation_is_noticed_and_leaves_nothing(tmp_path, name):
    """Cut off at 36 places; in the tar, whose blocks are 512 bytes, at every 128."""
    whole = make(tmp_path / name, FILES).read_bytes()
    end = len(whole) if name != "a.tar" else 512 * 9  # what follows in the tar are empty blocks
    for place in range(36):
        cut = tmp_path / f"cut-{name}"
        cut.write_bytes(whole[: end * place // 36])
        with pytest.raises(UserError, match="damaged; download it again") as caught:
            unpack(cut, tmp_path / "to", LIMITS)
        assert "\n" not in str(caught.value)
    assert not list((tmp_path / "to").iterdir())


OUTSIDE = [
    "../out.txt",
    "/tmp/out.txt",
    "a/../../out.txt",
    "C:\\out.txt",
    "..\\out.txt",
    "\\\\host\\out.txt",
    "a\nb",
]
HOSTILE = {
    **{
        f"zip: {name!r}": lambda path, name=name: write_zip(path, {"fine.txt": b"x", name: b"x"})
        for name in OUTSIDE
    },
    **{
        f"tar: {name!r}": lambda path, name=name: write_tar(
            path, [tar_member("fine"), tar_member(name)]
        )
        for name in OUTSIDE
    },
    "tar: symlink": lambda path: write_tar(
        path, [tar_member("a", b"", type=tarfile.SYMTYPE, linkname="/etc")]
    ),
    "tar: hard link": lambda path: write_tar(
        path, [tar_member("a", b"", type=tarfile.LNKTYPE, linkname="../b")]
    ),
    "tar: device": lambda path: write_tar(path, [tar_member("a", b"", type=tarfile.CHRTYPE)]),
    "tar: pipe": lambda path: write_tar(path, [tar_member("a", b"", type=tarfile.FIFOTYPE)]),
    "zip: symlink": lambda path: write_zip(
        path, {"a": b"/etc/passwd"}, external_attr=(stat.S_IFLNK | 0o777) << 16
    ),
    "tar: twice": lambda path: write_tar(path, [tar_member("a"), tar_member("./a")]),
    "tar: a file as a folder": lambda path: write_tar(path, [tar_member("a"), tar_member("a/b")]),
    "zip: bomb": lambda path: write_zip(path, {"a": bytes(10_000_000)}),
    "tar.gz: bomb": lambda path: write_tar(path, [tar_member("a", bytes(10_000_000))], "w:gz"),
    "many files": lambda path: write_zip(path, {str(n): b"" for n in range(51)}),
    "tar.gz: bomb of a header": lambda path: path.write_bytes(gzip.compress(long_header())),
}


def long_header():
    """A name of 20 MB."""
    member, _ = tar_member("x" * 20_000_000, b"")
    return member.tobuf(tarfile.PAX_FORMAT)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_leave_nothing(tmp_path, name):
    path, target = tmp_path / "archive", tmp_path / "to"
    HOSTILE[name](path)
    with pytest.raises(UserError, match=r"Expected plain files .*do not use it") as caught:
        unpack(path, target, LIMITS)
    assert "\n" not in str(caught.value)
    assert not list(target.iterdir())
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["archive", "to"]


def test_headers_that_lie(tmp_path):
    """A zip that says it is small is counted as it is written."""
    path = write_zip(tmp_path / "a.zip", {"a": bytes(150_000)})
    content = bytearray(path.read_bytes())
    place = content.rfind(b"PK\x01\x02")
    # the uncompressed size in the directory
    content[place + 24 : place + 28] = (10).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(UserError):
        unpack(path, tmp_path / "to", LIMITS)
    assert not list((tmp_path / "to").iterdir())


def test_leftovers_of_a_stopped_run_go(tmp_path):
    staging = tmp_path / "to" / ".a.zip.unpacking"
    staging.mkdir(parents=True)
    (staging / "half").write_bytes(b"x")
    unpack(make(tmp_path / "a.zip", FILES), tmp_path / "to", LIMITS)
    assert tree(tmp_path / "to") == FILES
