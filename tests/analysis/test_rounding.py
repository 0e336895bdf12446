"""Decimals by the interval: the examples of the Particle Data Group's rule, by hand."""

import pytest

from stillrobust.analysis.breakdown import _percent
from stillrobust.analysis.rounding import decimals
from stillrobust.report.renderers import to_csv, to_latex, to_markdown, to_text
from stillrobust.report.table import Column, Percent, Table


@pytest.mark.parametrize(
    ("half_width", "expected"),  # in points
    [
        (0.02, 2),  # the rule would keep three decimals; more than two are never shown
        (0.25, 2),  # 250: two digits of 0.25
        (0.354, 2),  # the last of 100 to 354
        (0.356, 1),  # 355 to 949: one digit of 0.4
        (0.9, 1),
        (2.5, 1),  # 250: two digits of 2.5
        (20.0, 1),  # the rule would keep none
        (0.0, 1),  # an interval without width says nothing
        (float("nan"), 1),
    ],
)
def test_decimals_follow_the_half_width(half_width, expected):
    middle = 0.3
    assert decimals((middle - half_width / 100, middle + half_width / 100)) == expected


def test_without_an_interval_one_decimal_is_shown():
    assert decimals(None) == 1
    assert str(Percent(0.36094)) == "36.1"


def test_every_format_has_the_same_decimals_and_files_have_all():
    columns = [Column("model", "Model", is_text=True), Column("drop", "Drop", has_interval=True)]
    cells = {"narrow": Percent(0.36094, (0.3589, 0.3629)), "wide": Percent(0.36094, (0.31, 0.41))}
    table = Table.from_rows("", columns, cells.items())
    for text in (to_text(table), to_markdown(table)):
        assert "36.09 [35.89, 36.29]" in text
        assert "36.1 [31.0, 41.0]" in text
    latex = to_latex(table)
    assert r"narrow & 36.09 {\scriptsize [35.89, 36.29]} \\" in latex
    assert r"wide & 36.1 {\scriptsize [31.0, 41.0]} \\" in latex
    assert "narrow,0.36094,0.3589,0.3629" in to_csv(table)
    assert _percent(0.36094, (0.3589, 0.3629)) == "36.09 [35.89, 36.29]"
