import json
import math
from pathlib import Path

import pytest

from stillrobust import paper
from stillrobust.analysis.robustness import (
    chance_corrected_drop,
    falls_by_clean_score_only,
    robustness,
)
from stillrobust.errors import MissingCellsError, UserError
from stillrobust.grid import COMMON
from stillrobust.storage.store import Measurement

PUBLISHED = json.loads(
    (Path(__file__).parents[1] / "fixtures/mask_rcnn_r50_fpn_1x_coco_c.json").read_text()
)["AP"]


def one(corruption, severity, value, protocol=None):
    return Measurement(
        "run", "box_ap", corruption, severity, value, protocol or {"seed": 0}, 10, 1.0
    )


def grid(clean, value):
    return [
        one("clean", 0, clean),
        *(one(name, level, value) for name in COMMON for level in range(1, 6)),
    ]


@pytest.mark.parametrize(
    ("kind", "clean", "mpc", "rpc"),
    [("bbox", 0.3727, 0.1868, 0.5014), ("segm", 0.3416, 0.1678, 0.4912)],
)
def test_published_results_extras_left_out(kind, clean, mpc, rpc):
    table = PUBLISHED[kind]
    cells = [
        one(name, level, values[level]) for name, values in table.items() for level in range(1, 6)
    ]
    result = robustness([one("clean", 0, table["fog"][0]), *cells])
    assert (result.clean, result.mpc, result.rpc) == pytest.approx((clean, mpc, rpc), abs=6e-5)


BEFORE_AND_AFTER = [
    row for table in paper.printed_tables() for row in table.rows.values() if "corrupted" in row
]


def test_the_paper_s_rows_are_there():
    assert len(BEFORE_AND_AFTER) == 4


@pytest.mark.parametrize("row", BEFORE_AND_AFTER)
def test_paper(row):
    """Tables 4 and 5: the printed drop follows from the printed scores, within their rounding."""
    assert 100 * robustness(grid(row["clean"], row["corrupted"])).drop == pytest.approx(
        row["drop"], abs=0.03
    )


def test_hole_is_named():
    with pytest.raises(MissingCellsError, match="jpeg_compression 5"):
        robustness(grid(0.5, 0.25)[:-1])


def test_mixed_protocols_duplicates_and_zero():
    with pytest.raises(UserError, match="seed"):
        robustness([*grid(0.5, 0.25)[:-1], one("jpeg_compression", 5, 0.25, {"seed": 1})])
    with pytest.raises(UserError, match="once"):
        robustness([*grid(0.5, 0.25), one("fog", 1, 0.2)])
    with pytest.raises(UserError, match="above 0"):
        robustness(grid(0.0, 0.0))


def test_a_score_that_falls_to_chance_has_lost_everything():
    assert chance_corrected_drop(0.9, 0.1, 0.1) == pytest.approx(1.0)
    assert chance_corrected_drop(0.9, 0.5, 0.1) == pytest.approx(0.5)  # 0.4 of 0.8 is left
    assert chance_corrected_drop(0.8, 0.6, 0.0) == pytest.approx(0.25)  # the plain drop
    assert chance_corrected_drop(0.5, 0.0, 0.25) == pytest.approx(2.0)  # below chance
    assert math.isnan(chance_corrected_drop(0.1, 0.1, 0.1))


@pytest.mark.parametrize(
    ("second", "expected"),  # P, mPC; the first has 0.8, 0.4: it drops 50 %
    [
        ((0.6, 0.36), True),  # drops 40 %, with the lower mPC
        ((0.6, 0.4), True),  # the same mPC
        ((0.6, 0.42), False),  # its mPC is higher: more robust
        ((0.8, 0.44), False),
        ((0.6, 0.3), False),  # drops as much
        ((0.6, 0.2), False),
    ],
)
def test_a_drop_that_falls_only_with_the_clean_score(second, expected):
    assert falls_by_clean_score_only((0.8, second[0]), (0.4, second[1])) == expected
