"""Weights that another library loads: checked like those of our reader, and no code is run."""

import pickle

import pytest
import torch

from stillrobust.errors import UserError
from stillrobust.predictors import open_predictor
from tests.predictors.test_predictors import info_of

pytest.importorskip("ultralytics")
EIGHTY = info_of("detection", [f"{number}" for number in range(80)])


class Runs:
    """A pickle that calls a function, as an attack would."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Own:
    """A class of the user, whose constructor or state may do anything."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from ultralytics import YOLO

    path = tmp_path_factory.mktemp("yolo") / "small.pt"
    YOLO("yolo11n.yaml").save(path)
    return path


def test_a_checkpoint_of_ultralytics_is_loaded(checkpoint):
    assert open_predictor(f"ultralytics:{checkpoint}", EIGHTY).task == "detection"


@pytest.mark.parametrize(
    "content",
    [
        lambda mark: Runs(exec, f"open({str(mark)!r}, 'w')"),
        lambda mark: Runs(__import__("os").mkdir, str(mark)),
        lambda mark: Own(),
    ],
    ids=["exec", "mkdir", "own class"],
)
def test_a_checkpoint_that_could_run_code_is_not_unpickled(content, tmp_path):
    """The second entry makes it look like a file of Ultralytics."""
    mark, path = tmp_path / "ran", tmp_path / "evil.pt"
    torch.save({"model": content(mark), "version": "ultralytics"}, path)
    with pytest.raises(UserError, match="Ultralytics cannot load"):
        open_predictor(str(path), EIGHTY)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", pickle.dumps(1)])
def test_what_is_no_checkpoint_is_one_sentence(content, tmp_path):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(UserError, match="Ultralytics cannot load"):
        open_predictor(f"ultralytics:{tmp_path / 'a.pt'}", EIGHTY)


@pytest.mark.parametrize(
    ("value", "message"), [(torch.nan, "NaN or infinity"), (-1.0, "at least 0")]
)
def test_impossible_values_are_refused(checkpoint, value, message, tmp_path):
    from ultralytics import YOLO

    model = YOLO(checkpoint)
    next(one for name, one in model.model.named_buffers() if "running_var" in name)[0] = value
    model.save(tmp_path / "bad.pt")
    with pytest.raises(UserError, match=message):
        open_predictor(f"ultralytics:{tmp_path / 'bad.pt'}", EIGHTY)


def test_a_name_longer_than_a_path_may_be_is_no_traceback():
    info = info_of("classification")
    with pytest.raises(UserError, match="Expected weights of resnet18"):
        open_predictor(f"torchvision:resnet18(weights='{'x' * 300}')", info)
