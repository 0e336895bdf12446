"""Images that belong together are resampled together, wherever intervals are made."""

import csv
import hashlib
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from stillrobust.analysis.groups import GroupedStore, Grouping, group_images
from stillrobust.analysis.intervals import (
    UNBOUNDED,
    bootstrap_weights,
    interval,
    mean_over_seeds,
    paired_interval,
    student_quantile,
)
from stillrobust.analysis.resampling import resample_cells
from stillrobust.analysis.sample_size import sample_size_warnings
from stillrobust.cli import app
from stillrobust.data import open_dataset
from stillrobust.errors import UserError
from stillrobust.evaluation import Protocol, evaluate
from stillrobust.evaluation.image_groups import dataset_groups, store_groups
from stillrobust.grid import Cell
from stillrobust.predictors import Predictor
from stillrobust.report import results_table, summarize, to_text
from stillrobust.report.comparison import compare_runs, comparison_text
from stillrobust.report.downloads import results_json
from stillrobust.report.transfer_gain import transfer_gain_table
from stillrobust.report.upstream_gain import upstream_gain_table
from stillrobust.samples import Prediction
from stillrobust.storage.image_groups import ImageGroups
from stillrobust.storage.store import Store
from tests.analysis.test_resampling import CELLS, top1_store
from tests.data.format_writers import CLASSIFIED, LABELS
from tests.toys import Toys

VIDEOS = "^(.)"  # of the ids 000 to 039, which makes four groups
IDS = [f"{video}/{frame}.png" for video in "abcdefgh" for frame in range(3)]


def halves_of_images(ids, replicates, seed):
    """The weights as they were before there were groups."""
    digest = hashlib.sha256("\n".join([str(seed), *sorted(ids)]).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    sizes = (len(ids) + np.arange(replicates) % 2) // 2
    drawn = rng.permuted((np.arange(len(ids)) < sizes[:, None]).astype(np.int64), axis=1)
    weights = np.empty_like(drawn)
    weights[:, np.argsort(ids)] = drawn
    return weights


def test_without_groups_nothing_changes():
    expected = halves_of_images(IDS[::-1], 50, 3)
    assert (bootstrap_weights(IDS[::-1], 50, 3) == expected).all()
    assert (bootstrap_weights(IDS[::-1], 50, 3, groups=IDS[::-1]) == expected).all()


def test_a_resample_is_half_of_the_groups():
    groups = [one[0] for one in IDS]
    weights = bootstrap_weights(IDS, 100, groups=groups)
    by_group = weights.reshape(100, 8, 3)
    assert (by_group == by_group[:, :, :1]).all()
    assert (by_group[:, :, 0].sum(1) == 4).all()
    order = np.random.default_rng(0).permutation(len(IDS))
    shuffled = bootstrap_weights([IDS[i] for i in order], 100, groups=[groups[i] for i in order])
    assert (shuffled == weights[:, order]).all()


def test_a_mean_varies_as_the_means_of_groups_do():
    """Groups of equal size: the variance of the mean is s² of the groups' means / G."""
    rng = np.random.default_rng(1)
    values = np.repeat(rng.normal(0, 1, 40), 5) + rng.normal(0, 0.1, 200)
    groups = [str(index // 5) for index in range(200)]
    weights = bootstrap_weights([str(i) for i in range(200)], 4000, groups=groups)
    means = weights @ values / weights.sum(1)
    expected = values.reshape(40, 5).mean(1).std(ddof=1) / 40**0.5
    assert means.std() == pytest.approx(expected, rel=0.04)


def test_few_groups_have_students_t_of_their_number():
    """Five groups of equal size have 4 degrees of freedom; of 4, 2 and 2, fewer than 2."""
    five = Grouping("folder", tuple("abcde"))
    assert (five.effective, five.freedom) == (5, 4)
    unequal = Grouping("folder", tuple("aaaabbcc"))  # 24² / 288 = 2 degrees, 64 / 24 groups
    assert unequal.effective == pytest.approx(8 / 3)
    assert unequal.freedom == pytest.approx(2 * (1 - 3 / 8))
    values = np.array([-1.0, 0.0, 1.0])
    for bounds in (
        interval(values, 0.0, UNBOUNDED, freedom=4),
        paired_interval(values, 0.0, freedom=4),
    ):
        assert bounds == pytest.approx((-2.776, 2.776), abs=1e-3)
    assert interval(values, 0.0, UNBOUNDED, freedom=100) == interval(values, 0.0, UNBOUNDED)
    assert "5 effective groups" in sample_size_warnings(500, (), 5)[0]
    assert sample_size_warnings(500, (), 50) == []


def test_few_groups_and_seeds_by_hand():
    """As test_seeds_by_hand, s² / S = v = 0.01; 1 * 0.02 / (0.01 + 0.01 / 4) = 1.6 degrees."""
    found = mean_over_seeds([0.4, 0.6], [[0.3, 0.4, 0.5], [0.5, 0.6, 0.7]], freedom=4)
    reach = student_quantile(0.975, 1.6) * 0.02**0.5
    assert (found.low, found.high) == pytest.approx((0.5 - reach, 0.5 + reach))


def test_rules():
    assert group_images(["a/x/1.png", "a/x/2.png", "b.png"], "folder").of == {
        "a/x/1.png": "a/x", "a/x/2.png": "a/x", "b.png": ".",
    }  # fmt: skip
    assert group_images(["v1_002.png", "v2_001.png"], "^[^_]+").of["v1_002.png"] == "v1"
    assert group_images(["v1_day_2.png", "v1_night_2.png"], r"(\w\d)_(\w+)_").of == {
        "v1_day_2.png": "v1\0day", "v1_night_2.png": "v1\0night",
    }  # fmt: skip
    assert group_images(["a", "b"], "image") is None
    for wrong, fault in (
        ("(", "not valid"),
        ("^v", "does not match 'w.png'"),
        ("folder", "into one"),
        ("field:video", "read from the dataset"),
    ):
        with pytest.raises(UserError, match=fault):
            group_images(["v.png", "w.png"], wrong)


def grouped_store(root, **others):
    store = top1_store(root, {"one": 0.0, "other": 0.1}, **others)
    for run in ("one", "other"):
        store.write_groups(run, group_images([f"{index:03}" for index in range(40)], "^00|^.."))
    return store


def test_tables_and_comparisons_resample_the_groups_and_say_so(tmp_path):
    plain = summarize(top1_store(tmp_path / "plain", {"one": 0.0, "other": 0.1}), 200)
    store = grouped_store(tmp_path / "grouped")
    summary = summarize(store, 200)
    for before, row in zip(plain.rows, summary.rows, strict=True):
        assert row.interval != before.interval
        assert row.protocol["groups"].startswith("4 by ^00|^.. (")
        assert row.freedom == 3
        assert "groups" not in before.protocol
    text = to_text(results_table(summary.rows, 200))
    assert "Groups of images of toys are resampled: 4 by ^00|^.." in text
    assert "4 effective groups" in text
    content = results_json(summary, transfer_gain_table([]), upstream_gain_table([]))
    assert json.loads(content)["rows"][0]["protocol"]["groups"].startswith("4 by")
    text = comparison_text(compare_runs(store, "one", "other"))
    assert "Groups of images are resampled: 4 by" in text
    assert "4 effective groups" in text
    assert summarize(GroupedStore(store, "image"), 200).rows[0].interval == plain.rows[0].interval


def test_scores_are_recomputed_in_halves_of_the_groups(tmp_path):
    store = grouped_store(tmp_path)
    drawn = resample_cells(store, "one", CELLS[:2], 50)
    correct = store.statistics(Cell("one", *CELLS[1]))["correct"]
    groups = [one[:2] for one in drawn.image_ids]
    weights = bootstrap_weights(drawn.image_ids, 50, groups=groups)
    expected = weights @ correct / weights.sum(1)
    assert drawn.values["top1"][1, 1:] == pytest.approx(expected)


def test_runs_of_other_groups_are_not_compared(tmp_path):
    store = grouped_store(tmp_path)
    store.write_groups("other", None)
    with pytest.raises(UserError, match=r"the same groups.*other has none; give --group-by here"):
        compare_runs(store, "one", "other")
    rows = summarize(store, 50).rows
    assert len({row.comparison_key for row in rows}) == 2
    assert [row.alike for row in rows] == ["a", "a"], "each in a table of its own"
    compare_runs(GroupedStore(store, "^00|^.."), "one", "other")


def test_groups_that_are_not_whole_are_refused(tmp_path):
    store = grouped_store(tmp_path)
    store.write_groups("one", ImageGroups("folder", {"000": "a", "001": "b"}))
    with pytest.raises(UserError, match="Expected a group for every image of one, but '002'"):
        resample_cells(store, "one", CELLS, 5)
    path = tmp_path / "groups" / "one.json"
    path.write_bytes(path.read_bytes().replace(b"folder", b"holder"))
    for _ in range(2):  # damaged groups never count as none
        with pytest.raises(UserError, match="Expected the groups of one"):
            resample_cells(store, "one", CELLS, 5)


def test_groups_go_with_their_run(tmp_path):
    store = grouped_store(tmp_path)
    groups = store.groups("one")
    store.rename_run("one", "new")
    assert store.groups("new") == groups
    assert store.groups("one") is None
    store.remove_run("new")
    assert store.groups("new") is None


def test_more_images_are_grouped_by_the_rule_of_the_run(tmp_path):
    predictor = Predictor(
        "classification",
        "wide",
        lambda images: [Prediction(probabilities=np.array([0.9, 0.1]))] * len(images),
        "0" * 64,
    )
    data, store = Toys("classification", 12), Store(tmp_path)
    run = evaluate(
        predictor, data, tmp_path, Protocol((), (1,), images=6), group_by=r"^(.)(?=\.)|^1"
    )
    assert len(store.groups(run).of) == 6
    evaluate(predictor, data, tmp_path, Protocol((), (1,)))
    assert len(store.groups(run).of) == 12
    evaluate(predictor, data, tmp_path, Protocol((), (1,)), group_by="image")
    assert store.groups(run) is None


def test_fields_of_csv_and_coco(tmp_path):
    spec = CLASSIFIED["csv_list"](tmp_path / "csv")
    table = tmp_path / "csv" / "val.csv"
    rows = list(csv.reader(table.read_text().splitlines()))
    lines = [f"{file},{label},{place % 2}" for place, (file, label) in enumerate(rows[1:])]
    table.write_text("\n".join(["filename,label,Camera", *lines]))
    data = open_dataset(spec, "val")
    groups = dataset_groups(data, "field:camera")
    assert len(groups.of) == len(LABELS)
    assert set(groups.of.values()) == {"0", "1"}
    with pytest.raises(UserError, match="camera"):
        dataset_groups(data, "field:camra")
    with pytest.raises(UserError, match="fields of images"):
        dataset_groups(Toys("classification"), "field:camera")


def test_a_field_of_coco(tmp_path, coco_with_videos):
    data = open_dataset(f"coco:{coco_with_videos}", "val")
    assert dataset_groups(data, "field:video_id").of == {"a.png": "7", "b.png": "7", "c.png": "8"}
    store = Store(tmp_path / "store")
    store_groups(store, "run", data, "field:video_id")
    assert store.groups("run").by == "field:video_id"
    for name, fault in (("vido_id", "video_id"), ("scene", "for every image, but 1 of 3")):
        with pytest.raises(UserError, match=fault):
            dataset_groups(data, f"field:{name}")


@pytest.fixture
def coco_with_videos(tmp_path):
    from PIL import Image

    root = tmp_path / "coco"
    (root / "val").mkdir(parents=True)
    (root / "annotations").mkdir()
    images = []
    for number, (name, video) in enumerate((("a", 7), ("b", 7), ("c", 8)), 1):
        Image.new("RGB", (40, 40)).save(root / "val" / f"{name}.png")
        images.append(
            {"id": number, "file_name": f"{name}.png", "width": 40, "height": 40, "video_id": video}
        )
    images[0]["scene"] = images[1]["scene"] = "street"
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 9, 9], "area": 81}]
    document = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    (root / "annotations" / "instances_val.json").write_text(json.dumps(document))
    return root


def test_the_commands_take_a_rule(tmp_path):
    top1_store(tmp_path / "results", {"one": 0.0, "other": 0.1})
    run = CliRunner().invoke
    out = run(app, ["compare", "one", "other", "--results", str(tmp_path), "--group-by", "^.."])
    assert "4 by ^.." in out.output
    out = run(
        app, ["report", str(tmp_path), "--out", str(tmp_path / "report"), "--group-by", "^.."]
    )
    assert out.exit_code == 0
    assert "4 by ^.." in (tmp_path / "report" / "report.html").read_text()


def false_calls(groups, trials=150):
    """How often the interval of two equal models' difference excludes 0: 50 clusters of 10 images,
    intraclass correlation .71 of the difference.
    """
    rng = np.random.default_rng(5)
    ids, wrong = [f"{i:03}" for i in range(500)], 0
    weights = bootstrap_weights(ids, 200, groups=groups)
    for _ in range(trials):
        difference = np.repeat(rng.normal(0, 0.71**0.5, 50), 10) + rng.normal(0, 0.29**0.5, 500)
        low, high = paired_interval(weights @ difference / weights.sum(1), difference.mean())
        wrong += low > 0 or high < 0
    return wrong / trials


def test_clusters_do_not_call_equal_models_different():
    """The benchmark has 5.5 % with groups and 43 % without; binomial deviations are 2 and 4."""
    assert false_calls([f"{i // 10}" for i in range(500)]) < 0.11
    assert false_calls(None) > 0.3
