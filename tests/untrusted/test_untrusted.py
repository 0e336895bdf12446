"""Bounded files, strict JSON, printable text."""

import os
from pathlib import Path

import pytest

from stillrobust.data.formats.class_names import read_lines
from stillrobust.data.formats.coco_checks import read_document
from stillrobust.data.formats.coco_table import Outlines
from stillrobust.data.formats.yolo import read_yaml
from stillrobust.errors import UserError
from stillrobust.untrusted import (
    JsonError,
    NotAFileError,
    parse_json,
    path_fault,
    printable,
    read_regular_file,
    read_user_text,
)


def test_printable_escapes_what_a_terminal_interprets():
    assert printable("a\x1b[31mb\x07\x9b\x7f") == r"a\x1b[31mb\x07\x9b\x7f"
    assert printable("a\nb\tc\rd") == r"a\nb\tc\rd"
    assert printable("a\nb\r", lines=True) == "a\nb\\r"
    marks = [0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)]
    for code in [*range(32), *range(0x7F, 0xA0), *marks, 0xD800, 0xDC80, 0xDFFF]:
        assert printable(chr(code)).isascii(), hex(code)
        assert printable(chr(code)).startswith("\\"), hex(code)
    for text in ("Straße", "日本語", "👩‍🚒", "ü", "−3.2 %", "עברית"):
        assert printable(text) == text
    assert printable(printable("\x1b\u202e")) == printable("\x1b\u202e")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' is given twice"),
        ('[{"b": {"a": 1, "a": 1}}]', "the key 'a' is given twice"),
        ('{"a": NaN}', "NaN is not a number"),
        ('{"a": -Infinity}', "-Infinity is not"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5000, "too many digits"),
        (b"\xff", "byte 0 is not UTF-8"),
        ("", "line 1"),
        ('{"a": 1} {}', "Extra data"),
    ],
)
def test_json_is_strict(text, fault):
    with pytest.raises(JsonError, match=fault.replace("(", r"\(")):
        parse_json(text)


def test_json_is_read():
    assert parse_json('\ufeff{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}
    assert parse_json(b'\xef\xbb\xbf{"a": "\xc3\xbc"}') == {"a": "ü"}
    assert parse_json('[{"a": 1}, {"a": {"b": 2}}]', lambda one: sorted(one)) == [["a"], ["a"]]


def test_only_regular_files_of_bounded_size_are_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular_file(path, 5) == b"12345"
    for largest in (4, 0):
        with pytest.raises(NotAFileError, match=f"at most {largest} bytes"):
            read_regular_file(path, largest)
    assert read_regular_file(Path("/proc/self/stat")).startswith(str(os.getpid()).encode())
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(NotAFileError, match="a folder, a device or a pipe"):
            read_regular_file(other)
    (tmp_path / "empty").touch()
    assert read_regular_file(tmp_path / "empty") == b""


def hostile_paths(folder):
    (folder / "loop").symlink_to("loop")
    return [
        ("loop", "symbolic links"),
        ("x" * 300, "name too long"),
        ("a\0b", "NUL"),
        ("\ud800", "not valid Unicode"),
        ("nowhere", "No such file"),
    ]


def test_paths_that_no_file_can_have_are_one_sentence(tmp_path):
    for name, fault in hostile_paths(tmp_path):
        with pytest.raises(UserError, match=f"(?i){fault}.*; check the path"):
            read_user_text(tmp_path / name, "CSV")
    try:  # what resolving raises depends on the version of Python
        (tmp_path / "loop").resolve(strict=True)
    except (OSError, RuntimeError) as error:
        found = error
    assert "symbolic links" in path_fault(found)
    (tmp_path / "latin").write_bytes(b"a\xff")
    with pytest.raises(UserError, match="byte 1 is not; save the file as UTF-8"):
        read_user_text(tmp_path / "latin", "CSV")
    assert not path_fault(ValueError("another"))


@pytest.mark.parametrize("content", ["names: [a]\nnames: [b]\nval: x", "names: &a [*a]\nval: x"])
def test_yaml_of_yolo_is_strict(content, tmp_path):
    (tmp_path / "data.yaml").write_text(content)
    with pytest.raises(UserError, match=r"given twice|contains itself"):
        read_yaml(tmp_path / "data.yaml")


def test_a_list_of_names_is_a_regular_file():
    with pytest.raises(UserError, match="regular file"):
        read_lines(Path("/dev/zero"))


def test_keys_of_a_coco_file_occur_once(tmp_path):
    path = tmp_path / "instances.json"
    path.write_text('{"images": [], "annotations": [], "categories": [], "images": []}')
    with pytest.raises(UserError, match="'images' is given twice"):
        read_document(path, Outlines())
