import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner

from stillrobust import corrupt
from stillrobust.cli import app
from stillrobust.corruptions import COMMON
from stillrobust.data.reading import read_image
from stillrobust.errors import UserError
from stillrobust.tools.contact_sheet import contact_sheet
from stillrobust.tools.corrupt_folder import CorruptionPlan, make_corrupted_folder, unique_targets
from stillrobust.tools.photos import read_photo


def photo(index, height=60, width=80):
    coarse = np.random.RandomState(index).randint(0, 256, (5, 7, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "street").mkdir(parents=True)
    for index in range(4):
        Pillow.fromarray(photo(index)).save(folder / "street" / f"{index}.png")
    Pillow.fromarray(photo(9)).save(folder / "top.jpg", quality=95)
    (folder / "notes.txt").write_text("not a photo")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


PLAN = CorruptionPlan(("fog", "gaussian_noise"), (1, 3))


def test_a_folder_is_mirrored_and_the_manifest_is_true(photos, tmp_path):
    out = tmp_path / "out"
    summary = make_corrupted_folder(photos, out, PLAN, workers=1)
    assert (summary.written, summary.already, summary.skipped) == (20, 0, {})
    made = corrupt(photo(2), "fog", 3, seed=0, image_id="street/2.png")
    assert np.array_equal(read_image(out / "fog" / "3" / "street" / "2.png"), made)
    assert (out / "fog" / "1" / "top.png").is_file()
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["complete"]
    assert manifest["protocol"]["seed"] == 0
    outputs = {}
    for name, record in manifest["sources"].items():
        assert hashlib.sha256((photos / name).read_bytes()).hexdigest() == record["sha256"]
        outputs |= record["outputs"]
    assert outputs == {
        name: hashlib.sha256(content).hexdigest()
        for name, content in tree(out).items()
        if name != "manifest.json"
    }


def test_workers_do_not_matter_and_only_what_is_missing_is_done(photos, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    make_corrupted_folder(photos, one, PLAN, workers=1)
    make_corrupted_folder(photos, two, PLAN, workers=2)
    assert tree(one) == tree(two)
    again = make_corrupted_folder(photos, two, PLAN, workers=2)
    assert (again.written, again.already) == (0, 20)
    (two / "fog" / "1" / "top.png").unlink()
    assert make_corrupted_folder(photos, two, PLAN, workers=1).written == 1
    assert tree(one) == tree(two)
    assert (
        make_corrupted_folder(
            photos, two, CorruptionPlan(("fog", "contrast"), (1, 3)), workers=1
        ).written
        == 10
    )
    # another photo under the same name
    Pillow.fromarray(photo(77)).save(photos / "top.jpg", quality=95)
    assert make_corrupted_folder(photos, one, PLAN, workers=1).written == 4


def test_no_two_photos_share_a_file(tmp_path):
    """Of names that meet, some only once others keep their suffix, and some only where case does
    not count.
    """
    names = ["a.jpg", "a.png", "a.png.jpg", "B.png", "b.png", "c.png"]
    targets = unique_targets(names)
    assert len({target.casefold() for target in targets.values()}) == len(names)
    assert [targets[name] for name in ("a.jpg", "a.png", "a.png.jpg", "c.png")] == [
        "a.jpg",
        "a.png",
        "a.png.jpg",
        "c",
    ]
    assert unique_targets(names[::-1]) == targets


def test_killed_at_any_moment_it_goes_on(photos, tmp_path):
    for index in range(4, 20):
        Pillow.fromarray(photo(index, 240, 320)).save(photos / f"{index}.png")
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    command = [
        sys.executable,
        "-m",
        "stillrobust",
        "corrupt",
        str(photos),
        str(killed),
        "--corruption",
        "fog,snow,zoom_blur",
        "--workers",
        "2",
    ]
    for moment in (5, 60):  # files that are there when the kill comes
        running = subprocess.Popen(
            command, start_new_session=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while (
            running.poll() is None
            and len(list(killed.rglob("*.png"))) < moment
            and time.monotonic() < deadline
        ):
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    for path in killed.rglob("*.png"):
        assert cv2.imread(str(path)) is not None, f"{path} is half written"
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    make_corrupted_folder(
        photos, undisturbed, CorruptionPlan(("fog", "snow", "zoom_blur")), workers=2
    )
    assert tree(undisturbed) == tree(killed)


def test_another_library_s_opener_changes_no_remark(monkeypatch):
    """ultralytics puts its own in Pillow's place, which tries a package for HEIF last and may lack
    it.
    """

    def opener(*arguments, **keywords):
        raise ModuleNotFoundError("No module named 'pi_heif'")

    monkeypatch.setattr(Pillow, "open", opener)
    assert read_photo(b"<html>") == (None, "its content cannot be decoded; replace the file")


@pytest.mark.parametrize("kind", ["WEBP", "TIFF", "MPO"])
def test_every_kind_is_turned_by_its_orientation(kind):
    """Of phones' pictures with a second one behind the first, too."""
    exif = Pillow.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    several = (
        {"save_all": True, "append_images": [Pillow.fromarray(photo(1))]} if kind == "MPO" else {}
    )
    Pillow.fromarray(photo(0)).save(buffer, kind, exif=exif, **several)
    image, remark = read_photo(buffer.getvalue())
    assert image.shape == (80, 60, 3)
    assert "turned by its EXIF orientation" in remark


def test_each_kind_of_odd_photo_follows_its_policy(tmp_path):
    folder, out = tmp_path / "odd", tmp_path / "out"
    folder.mkdir()
    whole = Pillow.fromarray(photo(0, 40, 50))
    whole.save(folder / "good.png")
    whole.save(folder / "same.jpg")
    whole.save(folder / "same.png")
    whole.convert("CMYK").save(folder / "cmyk.jpg")
    exif = Pillow.Exif()
    exif[0x0112] = 6
    whole.save(folder / "turned.jpg", exif=exif)
    whole.convert("RGBA").save(folder / "alpha.png")
    Pillow.fromarray(np.arange(2000, dtype=np.uint16).reshape(40, 50)).save(folder / "deep.png")
    cv2.imwrite(str(folder / "deep_colour.png"), photo(0).astype(np.uint16) * 16)
    cv2.imwrite(str(folder / "wide.png"), photo(0)[:40, :50].astype(np.uint16) * 257)
    whole.save(
        folder / "moving.gif", save_all=True, append_images=[Pillow.fromarray(photo(1, 40, 50))]
    )
    (folder / "cut.jpg").write_bytes((folder / "same.jpg").read_bytes()[:600])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("<html>")
    (tmp_path / "outside.png").write_bytes((folder / "good.png").read_bytes())
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    huge = bytearray((folder / "good.png").read_bytes())
    huge[16:24] = (30000).to_bytes(4, "big") * 2
    (folder / "enormous.png").write_bytes(bytes(huge))
    command = [
        sys.executable,
        "-m",
        "stillrobust",
        "corrupt",
        str(folder),
        str(out),
        "--corruption",
        "contrast",
        "--severity",
        "1",
    ]
    run = subprocess.run([*command, "--workers", "1"], capture_output=True, text=True)
    assert run.returncode == 3, run.stderr
    skipped = {
        line.split(": ")[1] for line in run.stdout.splitlines() if line.startswith("skipped")
    }
    assert skipped == {
        "deep.png",
        "deep_colour.png",
        "cut.jpg",
        "empty.png",
        "text.jpg",
        "link.png",
        "enormous.png",
    }
    for name, remark in (
        ("cmyk.jpg", "CMYK"),
        ("turned.jpg", "EXIF"),
        ("alpha.png", "alpha"),
        ("moving.gif", "first picture"),
        ("wide.png", "the upper 8 of 16 bits"),
    ):
        assert any(name in line and remark in line for line in run.stdout.splitlines()), name
    made = {path.name for path in (out / "contrast" / "1").iterdir()}
    assert made == {
        "good.png",
        "same.jpg.png",
        "same.png.png",
        "cmyk.png",
        "turned.png",
        "alpha.png",
        "moving.png",
        "wide.png",
    }
    assert read_image(out / "contrast" / "1" / "turned.png").shape == (50, 40, 3)
    assert "Traceback" not in run.stderr
    other = tmp_path / "other"  # reasons, too, are the same in every run
    assert (
        subprocess.run(
            [*command[:5], str(other), *command[6:], "--workers", "2"], capture_output=True
        ).returncode
        == 3
    )
    assert tree(other) == tree(out)


def test_a_range_of_16_bits_is_mapped_and_recorded(tmp_path):
    folder, out = tmp_path / "thermal", tmp_path / "out"
    folder.mkdir()
    grey = photo(0)[..., 0]
    cv2.imwrite(str(folder / "a.png"), 7000 + grey.astype(np.uint16) * 6)
    cv2.imwrite(str(folder / "b.tif"), 6994 + grey.astype(np.uint16) * 6)
    command = ["corrupt", str(folder), str(out), "--corruption", "contrast", "--severity", "1"]
    refused = CliRunner().invoke(app, [*command, "--workers", "1"])
    assert refused.exit_code == 3
    assert "a.png: its values (16-bit unsigned numbers) are 7" in refused.stdout
    assert "2 images skipped" in refused.stdout
    scaled = [*command, "--workers", "1", "--scale", "7000", "8530"]
    other = CliRunner().invoke(app, scaled)
    assert "reading was ''" in str(other.exception)
    scaled[2] = str(tmp_path / "scaled")
    done = CliRunner().invoke(app, scaled)
    assert done.exit_code == 0, done.output
    assert "a.png: values 7000 to 8530 become 0 to 255\n" in done.stdout
    assert f"{np.mean(grey == 0):.2%} of its values are outside" in done.stdout
    manifest = json.loads((tmp_path / "scaled" / "manifest.json").read_text())
    assert manifest["protocol"]["reading"] == "values 7000 to 8530 become 0 to 255"
    expected = corrupt(np.dstack([grey] * 3), "contrast", 1, seed=0, image_id="a.png")
    made = read_image(tmp_path / "scaled" / "contrast" / "1" / "a.png")
    np.testing.assert_array_equal(made, expected)
    wrong = CliRunner().invoke(app, [*command, "--scale", "9", "8"])
    assert "low < high, but got (9.0, 8.0)" in str(wrong.exception)


def test_names_that_are_no_utf8(tmp_path):
    """Corrupted under the same name; what no terminal can show is escaped."""
    folder, out = tmp_path / "latin", tmp_path / "out"
    folder.mkdir()
    Pillow.fromarray(photo(0)).save(folder / "a.png")
    (folder / "a.png").rename(folder / os.fsdecode(b"\xe9.png"))
    (folder / os.fsdecode(b"\xe8.png")).write_bytes(b"")
    command = [
        sys.executable,
        "-m",
        "stillrobust",
        "corrupt",
        str(folder),
        str(out),
        "--corruption",
        "fog",
        "--severity",
        "1",
    ]
    run = subprocess.run(
        [*command, "--workers", "1"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    assert (run.returncode, "skipped: \\udce8.png" in run.stdout) == (3, True), run.stderr
    assert [path.name for path in (out / "fog" / "1").iterdir()] == [os.fsdecode(b"\xe9.png")]


def test_jpeg_is_a_choice_that_is_recorded(photos, tmp_path):
    make_corrupted_folder(
        photos,
        tmp_path / "out",
        CorruptionPlan(("fog",), (1,), format="jpeg", quality=85),
        workers=1,
    )
    assert (tmp_path / "out" / "fog" / "1" / "top.jpg").is_file()
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["protocol"]["quality"] == 85


def test_mistakes_are_one_sentence(photos, tmp_path):
    make_corrupted_folder(photos, tmp_path / "out", CorruptionPlan(("contrast",), (1,)), workers=1)
    with pytest.raises(UserError, match="seed was 0 and is 1"):
        make_corrupted_folder(photos, tmp_path / "out", CorruptionPlan(("contrast",), (1,), seed=1))
    with pytest.raises(UserError, match="outside"):
        make_corrupted_folder(photos, photos / "out", PLAN)
    with pytest.raises(UserError, match="holds other files"):
        make_corrupted_folder(photos / "top.jpg", photos, PLAN)
    with pytest.raises(UserError, match="neither"):
        make_corrupted_folder(tmp_path / "nowhere", tmp_path / "b", PLAN)
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="found none"):
        make_corrupted_folder(tmp_path / "none", tmp_path / "b", PLAN)
    for wrong in (
        {"corruptions": ("fgo",)},
        {"corruptions": ("fog",), "severities": (6,)},
        {"corruptions": ("fog",), "quality": 5},
    ):
        with pytest.raises(UserError):
            CorruptionPlan(**wrong)


def test_a_plan_is_checked_before_anything_is_written():
    for wrong in ({"draws": "fats"}, {"regime": "imagnet"}, {"channel_order": "rgbb"}):
        with pytest.raises(UserError, match="Did you mean"):
            CorruptionPlan(("fog",), **wrong)
    for quality in (0, 101, None):
        with pytest.raises(UserError, match="1 to 100"):
            CorruptionPlan(("fog",), format="jpeg", quality=quality)
    assert CorruptionPlan(("fog",), (1, 1)).severities == (1,)  # said twice, made once


def test_a_contact_sheet_shows_what_is_asked_for(photos, tmp_path):
    """Severities and protocol are those of the command, and what a sheet has not is refused."""
    photo, seen = str(photos / "top.jpg"), set()
    for index, options in enumerate(
        (
            [],
            ["--severity", "1,3"],
            ["--draws", "exact"],
            ["--regime", "cifar"],
            ["--channel-order", "bgr"],
        )
    ):
        out = tmp_path / f"{index}.png"
        done = CliRunner().invoke(
            app, ["corrupt", photo, str(out), "--contact-sheet", "--corruption", "frost", *options]
        )
        assert done.exit_code == 0, done.output
        seen.add(out.read_bytes())
    assert len(seen) == 5
    with pytest.raises(UserError, match="no --format and --quality"):
        app(
            ["corrupt", photo, str(out), "--contact-sheet", "--format", "jpeg", "--quality", "9"],
            standalone_mode=False,
        )


def test_contact_sheet(photos, tmp_path):
    sheet = contact_sheet(photo(3, 100, 200), CorruptionPlan(COMMON))
    assert sheet.shape[0] > 15 * 80
    assert sheet.shape[1] > 6 * 160
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 1000
    assert len(COMMON) == 15
    run = [
        sys.executable,
        "-m",
        "stillrobust",
        "corrupt",
        str(photos / "top.jpg"),
        str(tmp_path / "sheet.png"),
        "--contact-sheet",
    ]
    assert subprocess.run(run).returncode == 0
    assert read_image(tmp_path / "sheet.png").shape[2] == 3
    nested = [*run[:5], str(tmp_path / "new" / "sheet.png"), *run[6:]]
    assert subprocess.run(nested).returncode == 0
    assert (tmp_path / "new" / "sheet.png").read_bytes() == (tmp_path / "sheet.png").read_bytes()
