"""Libraries made for the purpose, each with one property, and the verdict it must get."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stillrobust.tools.conformance as room
from stillrobust.corruptions import DETERMINISTIC, corrupt, textures
from stillrobust.errors import UserError
from stillrobust.tools.conformance import ADAPTERS, compare_library, format_table, permutation_test
from stillrobust.tools.conformance.library import CHILD, Adapter

IMPORTS = """
import os, time
import numpy as np
from stillrobust.corruptions import CORRUPTIONS, corrupt as right
STREAM = np.random.mtrand._rand
"""
LIBRARIES = {
    "faithful": "right(image, corruption_name, severity, rng=STREAM)",
    "floating": "right(image, corruption_name, severity, rng=STREAM) + 0.99 * (image.min() > 300)",
    "off_by_one": "np.maximum(right(image, corruption_name, severity, rng=STREAM), 1)",
    "deaf": "right(image, corruption_name, severity, rng=np.random.RandomState())",
    "stuck": "right(image, corruption_name, severity, rng=np.random.RandomState(3))",
    "stronger": "right(image, corruption_name, min(severity + 1, 5), rng=np.random.RandomState())",
    "raising": (
        "right(image, 'nonsense' if severity == 3 else corruption_name, severity, rng=STREAM)"
    ),
    "killed": (
        "os.kill(os.getpid(), 9) if corruption_name == 'fog' else right(image, corruption_name,"
        " severity, rng=STREAM)"
    ),
    "leaving": "os._exit(7)",
    "slow": "time.sleep(60)",
    "small": "image[:-1]",
    "beyond": "image * 2.0",
}


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Write a library by its name in LIBRARIES, where every interpreter finds it, and name its
    function.
    """
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")

    def write(name, head=IMPORTS):
        path = tmp_path / f"fake_{name}.py"
        path.write_text(
            f"{head}\ndef corrupt(image, corruption_name, severity):\n    return"
            f" {LIBRARIES.get(name, 'image')}\n"
        )
        return f"fake_{name}:corrupt"

    return write


def rows(name, corruptions, severities=(3,), **arguments):
    found = compare_library(name, severities=severities, corruptions=corruptions, **arguments)
    return {row.corruption: row for row in found.rows}, found


def test_the_faithful_one_is_identical(library):
    made, found = rows(
        library("faithful"), ["gaussian_noise", "glass_blur", "jpeg_compression"], (1, 5)
    )
    assert {row.verdict for row in made.values()} == {"identical"}
    assert {(row.largest, row.share) for row in made.values()} == {(0, 0.0)}
    assert [made[name].seed for name in ("glass_blur", "jpeg_compression")] == [
        "followed",
        "draws nothing",
    ]
    assert found.passed
    assert found.versions["numpy"] == np.__version__ == found.own_versions["numpy"]


def test_floats_are_truncated(library):
    assert rows(library("floating"), ["shot_noise"])[0]["shot_noise"].verdict == "identical"


def test_one_grey_level_off(library):
    made, found = rows(library("off_by_one"), ["shot_noise", "contrast"], (5,))
    assert made["shot_noise"].verdict == "±1"
    assert made["shot_noise"].largest == 1
    assert 0 < made["shot_noise"].share < 0.5
    assert found.passed


def test_who_ignores_the_seed_may_have_the_same_distribution(library):
    made, found = rows(library("deaf"), ["impulse_noise", "motion_blur"])
    assert {(row.verdict, row.seed) for row in made.values()} == {("same distribution", "ignored")}
    assert made["impulse_noise"].p > room.LEVEL
    assert made["impulse_noise"].largest == 255
    assert found.passed
    assert "2 ignore the seed" in format_table(found)


def test_one_seed_for_ever_is_no_distribution(library):
    row = rows(library("stuck"), ["gaussian_noise"])[0]["gaussian_noise"]
    assert (row.verdict, row.seed) == ("different", "fixed")


@pytest.mark.parametrize("name", ["gaussian_noise", "fog", "snow", "contrast"])
def test_another_strength_is_different(name, library):
    made, found = rows(library("stronger"), [name])
    assert made[name].verdict == "different"
    assert not found.passed
    assert (made[name].p is None) == (name in DETERMINISTIC)


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("raising", "Unknown corruption 'nonsense'"),
        ("leaving", "ended with status 7"),
        ("small", "returned shape"),
        ("beyond", "not within 0..255"),
    ],
)
def test_a_crash_is_a_verdict_with_its_line(name, note, library):
    row = rows(library(name), ["contrast"])[0]["contrast"]
    assert row.verdict == "crashes"
    assert note in row.note
    assert "\n" not in row.note


def test_a_crash_counts_its_calls(library):
    row = rows(library("raising"), ["contrast"], (1, 3))[0]["contrast"]
    assert "(4 of 8 calls)" in row.note


def test_a_killed_process_loses_no_other_corruption(library):
    made, found = rows(library("killed"), ["fog", "contrast"])
    assert (made["fog"].verdict, made["fog"].note) == ("crashes", "killed by SIGKILL")
    assert made["contrast"].verdict == "identical"
    assert not found.passed


def test_who_does_not_answer_crashes(library):
    row = rows(library("slow"), ["contrast"], timeout=5)[0]["contrast"]
    assert (row.verdict, row.note) == ("crashes", "no answer within 5 s")


def test_an_import_that_crashes_is_a_finding(library):
    row = rows(library("broken", head="import no_such_requirement"), ["contrast"])[0]["contrast"]
    assert row.verdict == "crashes"
    assert row.note == "import: ModuleNotFoundError: No module named 'no_such_requirement'"


def test_frost_is_not_compared_with_generated_textures(library, monkeypatch):
    monkeypatch.setattr(textures, "find_frost_folder", lambda: None)
    textures.load_textures.cache_clear()
    try:
        with pytest.warns(UserWarning, match="generated"):
            made, found = rows(library("deaf"), ["frost"])
    finally:
        textures.load_textures.cache_clear()
    assert made["frost"].verdict == "not compared"
    assert not found.passed


@pytest.mark.parametrize(
    ("name", "python", "message"),
    [
        ("no_such_module:corrupt", None, "the module no_such_module"),
        ("json:corrupt", None, "Expected a function corrupt in the module json"),
        ("imagecorruption", None, "Did you mean: imagecorruptions"),
        ("not a module:corrupt", None, "module:function"),
        ("json:loads", "/nowhere/python", "/nowhere/python"),
        ("json:loads", "/bin/false", "ended with status 1"),
    ],
)
def test_a_mistake_is_one_sentence(name, python, message):
    with pytest.raises(UserError, match=message) as caught:
        compare_library(name, python)
    assert "\n" not in str(caught.value)


def test_a_known_library_must_be_there_under_its_own_name(monkeypatch):
    """Two distributions have the module imagecorruptions; what is scored must be what was asked
    for.
    """
    monkeypatch.setitem(ADAPTERS, "twin", Adapter("json", "loads", distribution="json-twin"))
    with pytest.raises(UserError, match="Expected json-twin"):
        compare_library("twin")


def test_the_command_writes_everything_and_says_it_by_its_status(library, tmp_path):
    def run(*arguments):
        words = ["corruptions", "conformance", *map(str, arguments)]
        command = [sys.executable, "-m", "stillrobust", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    good = run(
        library("faithful"), "--corruptions", "contrast", "--json", tmp_path / "a.json", "--full"
    )
    assert good.returncode == 0, good.stderr
    assert "1 identical" in good.stdout
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["severities"] == [1, 2, 3, 4, 5]
    assert written["rows"][0]["verdict"] == "identical"
    assert {"python", "numpy"} <= set(written["versions"])
    assert run(library("leaving"), "--corruptions", "contrast").returncode == 1
    wrong = run("no_such_module:corrupt")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("stillrobust: Expected the module no_such_module")
    assert run(library("faithful"), "--json", tmp_path / "nowhere" / "a.json").returncode == 2


def test_the_child_is_python_3_8_and_imports_nothing_of_ours():
    tree = ast.parse(CHILD.read_text(), feature_version=(3, 8))
    named = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    named |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in named} - {"numpy"} <= set(sys.stdlib_module_names)


def test_the_sides_of_the_permutation_test():
    """Equal sides get p values all over 0..1; a side that is shifted, or only wider, gets the least
    there is.
    """
    rng = np.random.RandomState(1)
    equal = [
        permutation_test.p_value(rng.normal(size=(16, 3, 5)), rng.normal(size=(48, 3, 5)))
        for _ in range(20)
    ]
    assert min(equal) > 0.001
    assert min(equal) < 0.4
    assert max(equal) > 0.6
    least = 1 / (permutation_test.RELABELINGS + 1)
    assert (
        permutation_test.p_value(rng.normal(size=(16, 3, 5)) + 2, rng.normal(size=(48, 3, 5)))
        == least
    )
    assert (
        permutation_test.p_value(3 * rng.normal(size=(16, 3, 5)), rng.normal(size=(48, 3, 5)))
        == least
    )
    assert permutation_test.p_value(np.ones((16, 3, 5)), np.ones((48, 3, 5))) == 1


def test_roughness_by_hand():
    stripes = np.repeat(np.array([[1.0, -1.0] * 4] * 6)[..., None], 3, axis=2)
    assert permutation_test.roughness(stripes, 1, 1) == pytest.approx(np.log(5))
    assert permutation_test.roughness(stripes, 1, 4) == 0
    assert permutation_test.roughness(stripes, 0, 1) == 0


def test_the_test_images_show_what_differs():
    """Flat patches are flat; pixelate's BOX and NEAREST differ on the wide image at severity 3."""
    from PIL import Image

    for image, flat in room.test_images().values():
        assert len(np.unique(image[flat].reshape(-1, 3), axis=0)) == 4
        assert 0.2 < flat.mean() < 0.3
    wide = room.test_images()["wide"][0]
    small = Image.fromarray(wide).resize((128, 64), Image.Resampling.BOX)
    box = np.array(small.resize((320, 160), Image.Resampling.BOX))
    assert (box != corrupt(wide, "pixelate", 3, rng=np.random.RandomState(0))).any()


def test_the_seed_of_every_setting_is_its_own():
    job = room._Job(ADAPTERS["corrupt_tta"], "python", (1, 3), 1.0, None)
    calls = job.calls("fog")
    firsts = calls[: -len(room.test_images()) * 2]
    assert len({seed for *_, seed in firsts}) == len(firsts) == 4 * room.SEEDS
    assert calls[len(firsts) :] == firsts[:: room.SEEDS]


def test_the_package_sends_its_child():
    assert Path(CHILD).is_file()
