"""Damaged manifests and files of predictions: one sentence."""

import pytest

from stillrobust.errors import UserError
from stillrobust.evaluation.prediction_entries import read_entries
from stillrobust.evaluation.prediction_manifest import read_manifest


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("manifest.json", "[" * 100_000),
        ("manifest.json", "[]"),
        ("manifest.json", '{"protocol": 5}'),
        ("images.csv", "a" * 200_000),
    ],
)
def test_a_damaged_manifest_is_one_sentence(tmp_path, name, text):
    for file, content in {"manifest.json": "{}", "images.csv": "image\n", name: text}.items():
        (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match="it cannot be read"):
        read_manifest(tmp_path)


def test_deep_entries_are_one_sentence(tmp_path):
    (tmp_path / "fog_1.json").write_text('[{"a":' * 100_000)
    with pytest.raises(UserError, match="damaged"):
        list(read_entries(tmp_path / "fog_1.json"))
