"""Others' numbers: published P, mPC and rPC come out, what a file does not say stays unknown, a
strange file is one sentence.
"""

import csv
import json
import pickle
from statistics import fmean

import numpy as np
import pytest

from stillrobust.analysis.robustness import robustness
from stillrobust.errors import MissingCellsError, UserError
from stillrobust.grid import COMMON, Cell
from stillrobust.importers import IMPORTED, SOURCES, import_results
from stillrobust.importers.pickled_numbers import plain_value, read_numbers
from stillrobust.report import summarize
from stillrobust.storage.store import Run, Store

# Mask R-CNN R50-FPN 1x on COCO val2017, box and mask AP, severities 1 to 5:
# bethgelab/robust-detection-benchmark, raw-data/coco/ mask_rcnn_r50_fpn_1x_results.pkl @aecde7ba
# (MIT), four digits. Published of them (P, mPC, rPC in %): 37.3 / 18.7 / 50.1 and 34.2 / 16.8 /
# 49.1 (mmdetection, docs/robustness_benchmarking.md).
CLEAN = {"bbox": 0.3727, "segm": 0.3416}
CORRUPTED = {
    "gaussian_noise": (
        (0.2981, 0.2489, 0.1780, 0.1064, 0.0430),
        (0.2719, 0.2252, 0.1593, 0.0942, 0.0379),
    ),
    "shot_noise": (
        (0.2968, 0.2448, 0.1817, 0.0984, 0.0550),
        (0.2702, 0.2210, 0.1626, 0.0878, 0.0486),
    ),
    "impulse_noise": (
        (0.2076, 0.1880, 0.1670, 0.1070, 0.0520),
        (0.1874, 0.1701, 0.1506, 0.0964, 0.0456),
    ),
    "defocus_blur": (
        (0.2820, 0.2365, 0.1671, 0.1178, 0.0837),
        (0.2561, 0.2129, 0.1462, 0.1010, 0.0699),
    ),
    "glass_blur": (
        (0.2272, 0.1671, 0.0720, 0.0573, 0.0395),
        (0.2042, 0.1513, 0.0620, 0.0499, 0.0333),
    ),
    "motion_blur": (
        (0.2911, 0.2209, 0.1463, 0.0866, 0.0604),
        (0.2586, 0.1932, 0.1256, 0.0737, 0.0513),
    ),
    "zoom_blur": (
        (0.1312, 0.0885, 0.0717, 0.0525, 0.0437),
        (0.1097, 0.0702, 0.0565, 0.0403, 0.0332),
    ),
    "snow": ((0.2669, 0.1783, 0.1795, 0.1349, 0.1231), (0.2420, 0.1585, 0.1608, 0.1190, 0.1075)),
    "frost": ((0.2961, 0.2363, 0.1996, 0.1937, 0.1712), (0.2683, 0.2119, 0.1787, 0.1737, 0.1538)),
    "fog": ((0.3357, 0.3219, 0.3091, 0.3061, 0.2856), (0.3049, 0.2917, 0.2793, 0.2763, 0.2568)),
    "brightness": (
        (0.3647, 0.3494, 0.3326, 0.3112, 0.2857),
        (0.3346, 0.3183, 0.3025, 0.2819, 0.2583),
    ),
    "contrast": (
        (0.3368, 0.3145, 0.2719, 0.1730, 0.0729),
        (0.3074, 0.2862, 0.2452, 0.1548, 0.0638),
    ),
    "elastic_transform": (
        (0.2956, 0.2587, 0.2082, 0.1742, 0.1338),
        (0.2653, 0.2294, 0.1819, 0.1506, 0.1140),
    ),
    "pixelate": (
        (0.2748, 0.2368, 0.1053, 0.0546, 0.0301),
        (0.2587, 0.2248, 0.1050, 0.0560, 0.0320),
    ),
    "jpeg_compression": (
        (0.2606, 0.2055, 0.1684, 0.0928, 0.0473),
        (0.2379, 0.1846, 0.1512, 0.0848, 0.0440),
    ),
}
# RobustBench, ImageNet-C on 5,000 images, Tian2022Deeper_DeiT-B: unaggregated_results_2d.csv of
# model_info/imagenet/corruptions @24ce20d1 and its card @13e15a33 (clean_acc 80.32,
# corruptions_acc_2d 62.88).
DEIT_B = {
    "shot_noise": (0.7612, 0.7448, 0.726, 0.6656, 0.6122),
    "impulse_noise": (0.7306, 0.676, 0.5742, 0.4192, 0.3254),
    "defocus_blur": (0.7062, 0.6194, 0.6306, 0.5356, 0.5294),
    "contrast": (0.7508, 0.7388, 0.7008, 0.619, 0.5372),
    "brightness": (0.7534, 0.7456, 0.7286, 0.687, 0.62),
    "jpeg_compression": (0.6818, 0.6424, 0.54, 0.434, 0.321),
    "pixelate": (0.7786, 0.776, 0.764, 0.747, 0.7228),
    "glass_blur": (0.7106, 0.6878, 0.6598, 0.642, 0.5798),
    "motion_blur": (0.6402, 0.5616, 0.478, 0.4102, 0.3302),
    "zoom_blur": (0.7424, 0.6854, 0.6364, 0.6358, 0.6),
    "gaussian_noise": (0.7018, 0.6428, 0.4718, 0.3978, 0.3006),
    "fog": (0.7536, 0.7398, 0.7208, 0.6784, 0.6334),
    "frost": (0.7348, 0.7118, 0.6702, 0.584, 0.393),
    "snow": (0.7256, 0.7114, 0.7012, 0.6634, 0.6012),
    "elastic_transform": (0.7344, 0.5496, 0.7048, 0.6418, 0.444),
}
# SemSegBench, PSPNet with ResNet-50 on Cityscapes, mIoU in %, severity 3; printed mean 50.78.
PSPNET = (
    12.41,
    22.57,
    21.72,
    75.32,
    71.52,
    75.32,
    25.16,
    20.78,
    52.78,
    75.11,
    78.23,
    75.51,
    50.80,
    77.49,
    27.00,
)


def results(wrap=np.float64, levels=range(6)):
    """As test_robustness.py of 2.x has it."""

    def told(kind, value):
        stats = [
            "AP",
            "AP50",
            "AP75",
            "APs",
            "APm",
            "APl",
            "AR1",
            "AR10",
            "AR100",
            "ARs",
            "ARm",
            "ARl",
        ]
        return {kind: {name: wrap(value if name == "AP" else 0.5) for name in stats}}

    return {
        name: {
            level: (
                told("bbox", box[level - 1] if level else CLEAN["bbox"])
                | told("segm", mask[level - 1] if level else CLEAN["segm"])
            )
            for level in levels
        }
        for name, (box, mask) in CORRUPTED.items()
    }


def pickled(folder, content, protocol=2):
    path = folder / "mask_rcnn_r50_fpn_1x_results.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def numbers_of(results_folder, metric):
    return robustness([one for one in Store(results_folder).measurements() if one.metric == metric])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("wrap", [float, np.float64, np.float32, np.array])
def test_published_values_of_mask_rcnn(tmp_path, protocol, wrap):
    """In every protocol of pickle and each form in which numbers occur."""
    path = pickled(tmp_path, results(wrap), protocol)
    (found,) = import_results("mmdetection", path, tmp_path / "r", dataset="COCO val2017")
    assert (found.run, found.missing, found.notes) == ("mmdetection-mask_rcnn_r50_fpn_1x", 0, ())
    for metric, clean, mpc, rpc in (("box_ap", 37.3, 18.7, 50.1), ("mask_ap", 34.2, 16.8, 49.1)):
        numbers = numbers_of(tmp_path / "r", metric)
        assert 100 * numbers.clean == pytest.approx(clean, abs=0.05)
        assert 100 * numbers.mpc == pytest.approx(mpc, abs=0.05)
        assert 100 * numbers.rpc == pytest.approx(rpc, abs=0.06)


def test_the_layout_of_mmdetection_3(tmp_path):
    named = {"bbox": "coco/bbox_mAP", "segm": "coco/segm_mAP"}
    flat = {
        name: {
            level: {named[kind]: stats["AP"] for kind, stats in told.items()}
            | {"coco/bbox_mAP_50": 0.5}
            for level, told in levels.items()
        }
        for name, levels in results().items()
    }
    import_results("mmdetection", pickled(tmp_path, flat), tmp_path / "r")
    assert 100 * numbers_of(tmp_path / "r", "box_ap").mpc == pytest.approx(18.7, abs=0.05)


def test_json_by_task(tmp_path):
    by_task = {
        kind: {name: [CLEAN[kind], *scores[place]] for name, scores in CORRUPTED.items()}
        for place, kind in enumerate(CLEAN)
    }
    path = tmp_path / "r50.json"
    path.write_text(json.dumps({"source": "x", "AP": by_task}))
    import_results("mmdetection", path, tmp_path / "r")
    assert 100 * numbers_of(tmp_path / "r", "mask_ap").rpc == pytest.approx(49.1, abs=0.06)


def test_holes_that_a_tool_fills_with_zeros(tmp_path):
    """robustness_eval.py's array of six severities when only 0 and 1 were run: its mPC would be a
    fifth, or less, of the truth.
    """
    by_task = {
        "bbox": {name: [CLEAN["bbox"], box[0], 0, 0, 0, 0] for name, (box, _) in CORRUPTED.items()}
    }
    path = tmp_path / "r50.json"
    path.write_text(json.dumps({"AP": by_task}))
    (found,) = import_results("mmdetection", path, tmp_path / "r")
    assert found.severities == (1,)
    assert sum("exactly 0" in note for note in found.notes) == 1
    (row,) = summarize(Store(tmp_path / "r")).rows
    assert row.robustness.severities == (1,)
    # the relative drop at severity 1 of the same file
    assert 100 * row.robustness.drop == pytest.approx(25.48, abs=0.02)
    assert row.interval is None


def test_part_of_the_corruptions_is_a_hole(tmp_path):
    some = {
        name: levels
        for name, levels in results().items()
        if name in ("fog", "snow", "frost", "brightness")
    }
    (found,) = import_results("mmdetection", pickled(tmp_path, some), tmp_path / "r")
    assert found.missing == 11 * 5
    summary = summarize(Store(tmp_path / "r"))
    assert not summary.rows
    assert {len(row.robustness.corruptions) for row in summary.partial_rows} == {4}, "not mPC"


def test_the_clean_score_is_not_zero_when_it_was_not_run(tmp_path):
    import_results("mmdetection", pickled(tmp_path, results(levels=range(1, 6))), tmp_path / "r")
    with pytest.raises(MissingCellsError, match="clean"):
        numbers_of(tmp_path / "r", "box_ap")


class Owned:
    def __reduce__(self):
        return (print, ("owned",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"fog": {0: Owned()}}, "Expected a mapping of scores of clean 0"),
        ({"fogg": {1: {"bbox": {"AP": 0.1}}}}, "Did you mean"),
        ({"fog": {7: {"bbox": {"AP": 0.1}}}}, "severities 0 to 5"),
        ({"fog": {1: {"bbox": {"AP": -1.0}}}}, "a score from 0 to 1"),
        ({"fog": {1: {"bbox": {"AP": float("nan")}}}}, "a score from 0 to 1"),
        ({"fog": {1: {"bbox": {"AP": 0.3, "mine": 1}}}}, "Expected AP"),
        ({"fog": {1: {"proposal": np.zeros(12)}}}, "there are none"),
        ({"fog": {1: [{"ap": 0.4}]}}, "Pascal VOC"),
        ({"fog": {0: {"bbox": {"AP": 0.3}}}, "snow": {0: {"bbox": {"AP": 0.2}}}}, "two runs"),
        ([1, 2], "Expected a mapping of corruptions"),
        ({"fog": {1: {"bbox": np.array(["a"])}}}, "something else than numbers"),
    ],
)
def test_strange_pickles_are_one_sentence(tmp_path, capsys, content, words):
    with pytest.raises(UserError, match=words):
        import_results("mmdetection", pickled(tmp_path, content), tmp_path / "r")
    assert not (tmp_path / "r").exists()
    assert capsys.readouterr().out == ""  # nothing that a pickle names was called


def test_every_cut_of_a_pickle_is_one_sentence(tmp_path):
    whole = pickle.dumps({"fog": {1: {"bbox": {"AP": np.float64(0.1)}}}}, protocol=2)
    for end in range(len(whole)):
        path = tmp_path / "cut.pkl"
        path.write_bytes(whole[:end])
        with pytest.raises(UserError):
            import_results("mmdetection", path, tmp_path / "r")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", [">f8", "<f4", ">i2", "u1", "?"])
def test_arrays_are_numpy_s(tmp_path, protocol, dtype):
    array = np.asfortranarray(np.arange(6).reshape(2, 3).astype(dtype))
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"a": array, "b": array[0, 1]}, protocol=protocol))
    found = read_numbers(path)
    np.testing.assert_array_equal(plain_value(found["a"]), array)
    assert plain_value(found["b"]) == array[0, 1]


def robustbench_folder(folder, clean="80.32", mean="62.88", name="Tian2022Deeper_DeiT-B"):
    folder.mkdir(exist_ok=True)
    places = [(corruption, level) for corruption in DEIT_B for level in range(1, 6)]
    with (folder / "unaggregated_results_2d.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", *(corruption for corruption, _ in places), "average"])
        writer.writerow(["", *(level for _, level in places), ""])
        writer.writerow(
            [name, *(DEIT_B[corruption][level - 1] for corruption, level in places), "0.628765333"]
        )
    card = {
        "dataset": "imagenet",
        "architecture": "DeiT Base",
        "clean_acc": clean,
        "corruptions_acc_2d": mean,
    }
    (folder / f"{name}.json").write_text(json.dumps(card))
    return folder


def test_published_values_of_robustbench(tmp_path):
    (found,) = import_results("robustbench", robustbench_folder(tmp_path / "rb"), tmp_path / "r")
    assert (found.missing, found.notes) == (0, ())
    numbers = numbers_of(tmp_path / "r", "top1")
    assert (100 * numbers.clean, 100 * numbers.mpc) == pytest.approx((80.32, 62.88), abs=0.005)
    (run,) = Store(tmp_path / "r").runs()
    assert (run.dataset, run.kind) == ("ImageNet-C", "upstream")
    protocol = Store(tmp_path / "r").measurements()[0].protocol
    assert (protocol["images"], protocol["stage"], protocol["data"]) == (5000, "stored", "unknown")
    assert set(protocol[IMPORTED]) == {"source", "file", "sha256"}


def test_cards_that_do_not_fit_their_table(tmp_path):
    (found,) = import_results(
        "robustbench", robustbench_folder(tmp_path / "rb", mean="46.91"), tmp_path / "r"
    )
    assert "different evaluations" in found.notes[0]
    with pytest.raises(UserError, match="reads as a fraction"):
        import_results(
            "robustbench", robustbench_folder(tmp_path / "other", clean="0.5538"), tmp_path / "r2"
        )
    (tmp_path / "rb" / "Tian2022Deeper_DeiT-B.json").unlink()
    (found,) = import_results("robustbench", tmp_path / "rb", tmp_path / "r3")
    assert "no card" in found.notes[0]
    assert "clean" in summarize(Store(tmp_path / "r3")).incomplete[0].reason


def semsegbench_file(path, **changed):
    line = {
        "architecture": "pspnet",
        "backbone": "resnet50",
        "type_backbone": "convolution",
        "dataset": "cityscapes",
    }
    line |= {"crop_size": "512x1024", "mIoU_clean": "78.66"}
    line |= {f"mIoU_2d_{name}": str(value) for name, value in zip(COMMON, PSPNET, strict=True)} | {
        "mIoU_2d_mean": "50.78"
    }
    line |= changed
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, line)
        writer.writeheader()
        writer.writerow(line)
    return path


def test_published_mean_of_semsegbench(tmp_path):
    (found,) = import_results("semsegbench", semsegbench_file(tmp_path / "t.csv"), tmp_path / "r")
    assert (found.severities, found.missing, found.notes) == ((3,), 0, ())
    (row,) = summarize(Store(tmp_path / "r")).rows
    assert 100 * row.robustness.mpc == pytest.approx(50.78, abs=0.005)
    assert row.robustness.clean == pytest.approx(0.7866)
    assert fmean(PSPNET) == pytest.approx(50.78, abs=0.005)


def test_strange_tables_are_one_sentence(tmp_path):
    for changed, words in (
        ({"mine": "1"}, "it has mine"),
        ({"mIoU_clean": "178"}, "a score from 0 to 100"),
        ({"dataset": "mars"}, "not known"),
        ({"mIoU_2d_fog": "x"}, "a score from 0 to 100"),
    ):
        with pytest.raises(UserError, match=words):
            import_results(
                "semsegbench", semsegbench_file(tmp_path / "t.csv", **changed), tmp_path / "r"
            )
    (tmp_path / "t.csv").write_text("a,b\n1\n")
    with pytest.raises(UserError, match="2 columns in line 2"):
        import_results("semsegbench", tmp_path / "t.csv", tmp_path / "r")
    for source in SOURCES:
        with pytest.raises(UserError):
            import_results(source, tmp_path / "nothing.csv", tmp_path / "r")
    assert not (tmp_path / "r").exists()
    found = import_results(
        "semsegbench",
        semsegbench_file(tmp_path / "t.csv", mIoU_2d_fog="", mIoU_2d_mean=""),
        tmp_path / "r",
    )
    assert found[0].missing == 1
    found = import_results(
        "semsegbench", semsegbench_file(tmp_path / "u.csv", mIoU_2d_mean="42.00"), tmp_path / "r4"
    )
    assert "prints a mean of 42.00" in found[0].notes[0]


def test_what_is_known_is_only_filled_in_where_it_is_unknown(tmp_path):
    path = semsegbench_file(tmp_path / "t.csv")
    import_results(
        "semsegbench", path, tmp_path / "r", known={"seed": "7", "stage": "before resize"}
    )
    protocol = Store(tmp_path / "r").measurements()[0].protocol
    assert (protocol["seed"], protocol["stage"], protocol["channel_order"]) == (
        7,
        "before resize",
        "unknown",
    )
    with pytest.raises(UserError, match="is documented"):
        import_results("semsegbench", path, tmp_path / "r", known={"regime": "cifar"})
    with pytest.raises(UserError, match="Did you mean"):
        import_results("semsegbench", path, tmp_path / "r", known={"sed": "7"})


def test_a_run_of_one_s_own_is_never_replaced(tmp_path):
    path = semsegbench_file(tmp_path / "t.csv")
    name = import_results("semsegbench", path, tmp_path / "r")[0].run
    assert import_results("semsegbench", path, tmp_path / "r")[0].run == name  # the same file again
    Store(tmp_path / "r").write_run(
        Run(name, "segmentation", "mine", "full_network", "toy", {}, ("a",))
    )
    with pytest.raises(UserError, match="does not come from this file"):
        import_results("semsegbench", path, tmp_path / "r")
    assert Store(tmp_path / "r").statistics(Cell(name, "clean", 0)) == {}
