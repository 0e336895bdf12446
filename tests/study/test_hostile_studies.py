"""Study files that are too large, no files, or built to exhaust memory: one sentence at once."""

import os

import pytest

from stillrobust.errors import UserError
from stillrobust.study.files import LARGEST, read_study

RUN = "task: classification, model: resnet18, data: 'folders:x', transfer: full_network"
WHOLE = f"name: a\nruns: [{{{RUN}}}]\n"


def written(folder, text, name="a.yaml"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def bomb(leaf, times=9):
    lines = [f"x0: &x0 {leaf}"]
    lines += [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]" for n in range(1, times)]
    return "\n".join(lines)


def axes(count):
    values = ", ".join(map(str, range(count)))
    return f"axes: {{images: [{values}], recipe: [{values}], technique: [{values}]}}"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"name: a\nruns: [{{{RUN}, {axes(1000)}}}]\n", "1,000,000,000 combinations"),
        (f"name: a\nruns: [{{{RUN}, {axes(22)}}}]\n", "10,648 combinations; leave values out"),
        (bomb("x"), "expand to too many values"),
        ("x: &x [*x]", "a value contains itself"),
        ("name: a\nname: b\n", "given twice"),
        ("a" * (LARGEST + 1), "at most 262,144 bytes"),
        ("[" * 5000, "nested too deeply"),
        (f"{WHOLE}seed: {'9' * 100}", "an integer is too large in line 3"),
        (f"{WHOLE}seed: {'9' * 5000}", "line 3"),
        (f"{WHOLE}seed: 0x{'f' * 5000}", "an integer is too large"),
        (f'{WHOLE}title: "\\ud800"', "a text is not valid Unicode in line 3"),
        ("name: a\0", "special characters are not allowed"),
        (f"{WHOLE}from: 3", "`?from`?|source"),
        ("name: a\nfrom: /dev/zero\n", "in the same folder, but got '/dev/zero'"),
        ("name: a\nfrom: ../b.yaml\n", "in the same folder, but got '../b.yaml'"),
        ("name: a\nfrom: sub/b.yaml\n", "in the same folder"),
        ("name: a\nfrom: ..\n", "in the same folder"),
        ("name: a\nfrom: '.'\n", "in the same folder"),
        ("name: a\nfrom: ''\n", "in the same folder"),
        ('name: a\nfrom: "a\\0b.yaml"\n', "in the same folder"),
        (f"name: a\nfrom: {'b' * 300}.yaml\n", "(?i)name too long"),
        ("name: a\nfrom: outside.yaml\n", "in the same folder, but got 'outside.yaml'"),
        ("name: a\nfrom: zero.yaml\n", "in the same folder"),
        ("name: a\nfrom: pipe.yaml\n", "a folder, a device or a pipe"),
        ("name: a\nfrom: loop.yaml\n", "(?i)symbolic links"),
    ],
)
def test_a_hostile_study_is_one_sentence(text, fault, tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    written(tmp_path, WHOLE, "b.yaml")
    (folder / "outside.yaml").symlink_to(tmp_path / "b.yaml")
    (folder / "zero.yaml").symlink_to("/dev/zero")
    (folder / "loop.yaml").symlink_to("loop.yaml")
    os.mkfifo(folder / "pipe.yaml")
    with pytest.raises(UserError, match=fault) as caught:
        read_study(written(folder, text))
    assert "\n" not in str(caught.value)


def test_a_study_is_a_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", tmp_path, "/dev/zero"):
        with pytest.raises(UserError, match="a folder, a device or a pipe"):
            read_study(type(tmp_path)(path))


def test_a_study_and_its_base_may_both_be_links(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "links").mkdir()
    written(tmp_path / "real", WHOLE, "b.yaml")
    written(tmp_path / "real", "name: a\nfrom: b.yaml\n")
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / "links" / name).symlink_to(tmp_path / "real" / name)
    assert len(read_study(tmp_path / "links" / "a.yaml").runs) == 1
