"""A corruption and a technique of one's own, as Python files: their contract, their keys, their
errors, in any process.
"""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from stillrobust.cli import app
from stillrobust.corruptions import CORRUPTIONS, corrupt, get_corruption, resolve_corruptions
from stillrobust.data.image_cache import ImageCache
from stillrobust.data.reading import encode_png
from stillrobust.data.views import corrupted_view
from stillrobust.errors import UserError
from stillrobust.evaluation import Protocol, cells_to_evaluate, evaluate
from stillrobust.grid import COMMON
from stillrobust.predictors import Predictor, open_predictor
from stillrobust.report import summarize
from stillrobust.report.extra_corruptions import extra_corruptions_table
from stillrobust.report.page import render_page
from stillrobust.report.renderers import to_text
from stillrobust.robustify import build_technique
from stillrobust.samples import Prediction
from stillrobust.storage.store import Store
from stillrobust.study.files import read_study
from stillrobust.study.runs import selected_runs
from stillrobust.tools.corrupt_folder import CorruptionPlan, make_corrupted_folder
from stillrobust.user_files import display_name, resolve_user_file, with_content_hash
from tests.own_toys import DIM, IMAGE, RAIN, written
from tests.toys import Toys


@pytest.fixture
def rain(tmp_path):
    return written(tmp_path, "rain.py", RAIN)


@pytest.fixture
def dim(tmp_path):
    return written(tmp_path, "dim.py", DIM)


def seeing():
    """A model that knows the label map from nothing but the image: wide is where the columns are
    bright.
    """

    def predict(images):
        found = []
        for image in images:
            bright = image.max(axis=2) > 119
            wide = bright.any(axis=0).sum() > bright.any(axis=1).sum()
            found.append(Prediction(probabilities=np.array([0.9, 0.1] if wide else [0.1, 0.9])))
        return found

    return Predictor(task="classification", model="seeing", predict=predict, weights="1")


# ---- specs
# ------------------------------------------------------------------------------


def test_a_spec_is_known_by_content_and_shown_by_name(tmp_path, dim):
    once = resolve_user_file(f"{dim}+augmix(width=2)")
    assert display_name(once) == "dim+augmix(width=2)"
    assert resolve_user_file(once) == once
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    assert with_content_hash(written(elsewhere, "dim.py", DIM)) == with_content_hash(dim)
    assert with_content_hash(written(elsewhere, "dim.py", DIM + "\n")) != with_content_hash(dim)
    for plain in (
        "augmix",
        "prime(geometry=False)",
        "a(x='b+c.py')+d",
        "deepaugment(roots=('a.py',))",
        "",
    ):
        assert resolve_user_file(plain) == display_name(plain) == with_content_hash(plain) == plain


@pytest.mark.parametrize("folder", ["a+b", "a@home", "100% (new)", "it's"])
def test_any_folder_will_do(folder, tmp_path, monkeypatch):
    """What a spec has a meaning for may stand in a path: of the file that is named, and of the
    folder that one is in.
    """
    place = tmp_path / folder
    place.mkdir()
    rain, dim = written(place, "rain.py", RAIN), written(place, "dim.py", DIM)
    assert resolve_corruptions([rain]) == resolve_corruptions(resolve_corruptions([rain]))
    assert with_content_hash(resolve_corruptions([rain])[0]).startswith("rain@")
    assert np.array_equal(
        corrupt(IMAGE, rain, 3, seed=0, image_id="a"),
        corrupt(IMAGE, resolve_corruptions([rain])[0], 3, seed=0, image_id="a"),
    )
    monkeypatch.chdir(place)
    technique = build_technique("dim.py+augmix")
    assert display_name(technique.spec) == "dim+augmix"
    assert build_technique(technique.spec).spec == technique.spec
    assert str(place / "dim.py") in build_technique(dim).cards[0].code


def test_a_file_that_exits_is_told_like_one_that_raises(tmp_path):
    """The command ended without a word, and with status 0."""
    gone = written(tmp_path, "gone.py", "import sys\nsys.exit()")
    with pytest.raises(UserError, match="running it failed: SystemExit"):
        resolve_corruptions([gone])
    leaves = "import sys\ndef {}(*_):\n    sys.exit(0)"
    with pytest.raises(UserError, match="raised SystemExit: 0"):
        resolve_corruptions([written(tmp_path, "leaves.py", leaves.format("corrupt"))])
    technique = build_technique(written(tmp_path, "leaving.py", leaves.format("augment_image")))
    with pytest.raises(UserError, match="raised SystemExit: 0"):
        technique.augment_image(IMAGE, np.random.default_rng(0))
    with pytest.raises(UserError, match=r"create\(\) failed: SystemExit: 0"):
        open_predictor(
            written(tmp_path, "model.py", leaves.format("create")), Toys("classification").info
        )


@pytest.mark.parametrize("name", ["fog.py", "clean.py", "common.py"])
def test_a_corruption_has_a_name_of_its_own(name, tmp_path):
    with pytest.raises(UserError, match="rename the file"):
        resolve_corruptions([written(tmp_path, name, RAIN)])


@pytest.mark.parametrize("name", ["augmix.py", "regular.py"])
def test_a_technique_has_a_name_of_its_own(name, tmp_path):
    with pytest.raises(UserError, match="rename the file"):
        build_technique(written(tmp_path, name, DIM))


def test_two_files_of_one_name_are_refused(tmp_path, rain):
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="different names"):
        resolve_corruptions([rain, written(tmp_path / "other", "rain.py", RAIN + "\n")])


# ---- a corruption
# ------------------------------------------------------------------------------


def test_a_corruption_is_seeded_like_any_other(rain):
    first = corrupt(IMAGE, rain, 3, seed=0, image_id="a")
    assert first.dtype == np.uint8
    assert first.shape == IMAGE.shape
    assert 0 < (first != IMAGE).mean() < 0.2
    assert np.array_equal(first, corrupt(IMAGE, rain, 3, seed=0, image_id="a", draws="exact"))
    assert not np.array_equal(first, corrupt(IMAGE, rain, 3, seed=0, image_id="b"))
    assert not np.array_equal(first, corrupt(IMAGE, rain, 3, seed=1, image_id="a"))
    reversed_ = corrupt(
        np.ascontiguousarray(IMAGE[..., ::-1]), rain, 3, seed=0, image_id="a", channel_order="bgr"
    )
    assert np.array_equal(reversed_[..., ::-1], first)
    again = [corrupt(IMAGE, rain, 3, rng=np.random.RandomState(1)) for _ in range(2)]
    assert np.array_equal(*again)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "no corrupt"),
        ("def corrupt(:", "SyntaxError"),
        ("import gone_for_good", "gone_for_good"),
        ("def corrupt(image, severity, rng):\n    return image / 255", "float64"),
        ("def corrupt(image, severity, rng):\n    return image[:4]", "keep the size"),
        ("def corrupt(image, severity, rng):\n    return None", "NoneType"),
        ("def corrupt(image, severity, rng):\n    return image[1 / 0]", "ZeroDivisionError"),
        (
            (
                "import numpy\ndef corrupt(image, severity, rng):\n    return"
                " numpy.random.permutation(image)"
            ),
            "from rng",
        ),
    ],
)
def test_what_is_wrong_in_a_corruption_is_one_sentence_before_anything_is_measured(
    text, said, tmp_path
):
    path = written(tmp_path, "wrong.py", text)
    with pytest.raises(UserError, match=said) as told:
        Protocol(corruptions=(path,))
    assert "wrong.py" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_path_that_is_not_there_is_told(tmp_path):
    for make in (lambda path: Protocol(corruptions=(path,)), build_technique):
        with pytest.raises(UserError, match=r"gone\.py.*check the path"):
            make(str(tmp_path / "gone.py"))


ELSEWHERE = """
import pickle, sys
from stillrobust.corruptions import image_key
from stillrobust.errors import UserError
function, image = pickle.load(sys.stdin.buffer)
try:
    sys.stdout.buffer.write(function(image, 3, image_key(0, "rain", 3, "a"), "imagenet").tobytes())
except UserError as error:
    sys.exit(str(error))
"""


def test_any_process_runs_the_same_code_or_none(rain, tmp_path):
    (spec,) = resolve_corruptions([rain])
    asked = pickle.dumps((get_corruption(spec), IMAGE))
    there = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], input=asked, capture_output=True, check=True
    )
    assert there.stdout == corrupt(IMAGE, rain, 3, seed=0, image_id="a").tobytes()
    written(tmp_path, "rain.py", RAIN + "\n# later\n")
    changed = subprocess.run([sys.executable, "-c", ELSEWHERE], input=asked, capture_output=True)
    assert b"rain.py unchanged since this command started, but it has changed" in changed.stderr


def test_it_stands_beside_the_15_and_never_in_their_mean(rain, tmp_path):
    data, model = Toys("classification", 6), seeing()
    evaluate(model, data, tmp_path / "plain", Protocol(severities=(3,)))
    evaluate(model, data, tmp_path / "own", Protocol(("common", rain), (3,)))
    plain, own = (
        summarize(Store(tmp_path / name), 20).rows[0].robustness for name in ("plain", "own")
    )
    assert own == plain
    measured = {
        one.corruption: one
        for one in Store(tmp_path / "own").measurements()
        if one.metric == "top1"
    }
    assert set(measured) == {"clean", "rain", *COMMON}
    assert measured["rain"].protocol["corruption_file"] == with_content_hash(rain)
    assert "corruption_file" not in measured["fog"].protocol
    text = render_page(Store(tmp_path / "own"), summarize(Store(tmp_path / "own"), 0))
    table = text.partition("<caption>Further corruptions")[2].partition("</table>")[0]
    score, clean = (100 * measured[name].value for name in ("rain", "clean"))
    for text in ("seeing", "rain", f"{score:.1f}", f"{100 - 100 * score / clean:.1f}".lstrip("-")):
        assert text in table
    assert "rain" in to_text(extra_corruptions_table(summarize(Store(tmp_path / "own"), 0)))
    assert to_text(extra_corruptions_table(summarize(Store(tmp_path / "plain"), 0))) == ""


def test_a_corruption_of_ones_own_stands_beside_few_of_the_15(rain, tmp_path):
    evaluate(seeing(), Toys("classification", 4), tmp_path, Protocol((rain, "fog"), (3,)))
    summary = summarize(Store(tmp_path), 0)
    told = to_text(extra_corruptions_table(summary))
    assert [line.split()[1] for line in told.splitlines()[4:]] == ["rain"]
    assert [row.robustness.corruptions for row in summary.partial_rows] == [("fog",)]
    page = render_page(Store(tmp_path), summary)
    assert "<caption>Further corruptions" in page
    assert "mean over 1 of 15 corruptions, severity 3" in page


def test_what_is_measured_is_told_before_a_run_is_complete(rain, tmp_path):
    """Without the clean score there is no drop."""
    protocol = Protocol((rain, "fog"), (3,), clean=False)
    evaluate(seeing(), Toys("classification", 4), tmp_path, protocol)
    summary = summarize(Store(tmp_path), 0)
    told = to_text(extra_corruptions_table(summary))
    assert not summary.rows
    assert not summary.partial_rows
    assert [line.split()[1] for line in told.splitlines()[4:]] == ["fog", "rain"]
    assert "Measured so far" in render_page(Store(tmp_path), summary)


def test_a_set_that_comes_with_its_corruptions_takes_none_of_ones_own(rain, tmp_path):
    class Stored(Toys):
        def corrupted(self, corruption, severity):
            return self

    with pytest.raises(UserError, match="evaluate it on the clean set"):
        evaluate(
            seeing(), Stored("classification", 4), tmp_path / "results", Protocol((rain,), (1,))
        )


def test_a_changed_file_is_another_cell(rain, tmp_path):
    data, model, results = Toys("classification", 4), seeing(), tmp_path / "results"
    protocol = Protocol((rain, "fog"), (1, 3))
    evaluate(model, data, results, protocol)
    assert not cells_to_evaluate(data, results, protocol, "seeing", "1")
    written(tmp_path, "rain.py", RAIN.replace("0.02", "0.04"))
    changed = Protocol((rain, "fog"), (1, 3))
    assert [
        (display_name(name), severity)
        for name, severity in cells_to_evaluate(data, results, changed, "seeing", "1")
    ] == [
        ("rain", 1),
        ("rain", 3),
    ]
    one, other = (
        corrupted_view(data, name, 3).info.fingerprint for name in (protocol.corruptions[0], rain)
    )
    assert one != other


def test_images_that_are_kept_for_the_next_model_are_those_of_this_file(rain, tmp_path):
    data, shared = Toys("classification", 1), ImageCache(tmp_path / "kept", 10**8)
    for text in (RAIN, RAIN.replace("0.02", "0.2"), RAIN):
        written(tmp_path, "rain.py", text)
        kept, made = (
            corrupted_view(data, rain, 3, **how)[0].image for how in ({"shared": shared}, {})
        )
        assert np.array_equal(kept, made)
    assert len(list((tmp_path / "kept").glob("??/*.image"))) == 2


def test_workers_give_the_same_numbers_and_errors_in_one_sentence(rain, tmp_path):
    data, model = Toys("classification", 4), seeing()
    for workers in (0, 2):
        evaluate(
            model,
            data,
            tmp_path / str(workers),
            Protocol((rain,), (5,), workers=workers, batch_size=2),
        )
    alone, several = (
        {(m.corruption, m.metric): m.value for m in Store(tmp_path / name).measurements()}
        for name in "02"
    )
    assert alone == several
    fails = written(
        tmp_path,
        "small.py",
        "def corrupt(image, severity, rng):\n    return image if len(image) > 99 else image[99]",
    )
    sentence = (
        r"^Expected an image.*small\.py at severity 1 on an image uint8 \(64.*IndexError[^\n]*$"
    )
    for workers in (0, 1):
        with pytest.raises(UserError, match=sentence):
            evaluate(model, data, tmp_path / "fails", Protocol((fails,), (1,), workers=workers))


def test_a_folder_of_photos(rain, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(encode_png(IMAGE))
    out = tmp_path / "out"
    assert (
        make_corrupted_folder(tmp_path / "photos", out, CorruptionPlan(("fog",), (1,)), 1).written
        == 1
    )
    assert (
        make_corrupted_folder(tmp_path / "photos", out, CorruptionPlan((rain,), (1,)), 1).written
        == 1
    )
    assert (out / "rain" / "1" / "a.png").is_file()
    make_corrupted_folder(tmp_path / "photos", out, CorruptionPlan(("snow",), (1,)), 1)
    assert json.loads((out / "manifest.json").read_text())["protocol"][
        "rain.py"
    ] == with_content_hash(rain)
    written(tmp_path, "rain.py", RAIN + "\n")
    with pytest.raises(UserError, match=r"rain\.py was"):
        make_corrupted_folder(tmp_path / "photos", out, CorruptionPlan((rain,), (1,)), 1)


def test_the_contact_sheet_shows_it(rain, tmp_path):
    (tmp_path / "a.png").write_bytes(encode_png(IMAGE))
    line = [
        "corrupt",
        str(tmp_path / "a.png"),
        str(tmp_path / "sheet.png"),
        "--contact-sheet",
        "--corruption",
        f"fog,{rain}",
    ]
    assert CliRunner().invoke(app, line).exit_code == 0
    assert (tmp_path / "sheet.png").is_file()


# ---- a study
# ------------------------------------------------------------------------------

STUDY = """
name: own
protocols:
  default: {corruptions: [common, rain.py], severities: [3]}
runs:
  - task: classification
    model: "resnet_mini(weights='random')"
    data: scenes
    transfer: full_network
    axes: {technique: ["", dim.py, dim.py+augmix]}
"""


def test_a_study_takes_files_from_beside_it(rain, dim, tmp_path, monkeypatch):
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    monkeypatch.chdir("/")
    study = read_study(path)
    assert [display_name(name) for name in study.protocol().corruptions] == [*COMMON, "rain"]
    runs = selected_runs(study)
    assert [display_name(run.technique) for run in runs] == ["", "dim", "dim+augmix"]
    assert [run.id for run in runs][1:] == [f"{runs[0].id}-dim", f"{runs[0].id}-dim-augmix"]
    assert str(tmp_path) not in runs[1].folder
    assert "full_network-dim" in runs[1].folder
    before = [run.training_key for run in runs]
    written(tmp_path, "dim.py", DIM + "\n")
    after = [run.training_key for run in selected_runs(read_study(path))]
    assert after[0] == before[0]
    assert after[1] != before[1]
    (tmp_path / "rain.py").unlink()
    with pytest.raises(UserError, match=r"rain\.py.*check the path"):
        read_study(path)


def test_the_registry_is_as_it_was(rain):
    assert len(CORRUPTIONS) == 29
    assert resolve_corruptions(["common"]) == COMMON
