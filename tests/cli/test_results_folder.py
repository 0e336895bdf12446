"""Every command that takes results takes the folder that ``--out`` made."""

import pytest
from typer.testing import CliRunner

from stillrobust.cli.application import app
from stillrobust.cli.results import store_folder
from stillrobust.errors import UserError
from tests.paper_store import fill


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False).output


def test_commands_take_the_folder_of_out(tmp_path):
    out = tmp_path / "out"
    for name in ("one", "two"):
        fill(out / "results", name, 0.9, 0.5, images=20)
    assert store_folder(out) == store_folder(out / "results") == out / "results"
    assert "one: classification on toy, 16 cells, weights one" in call("runs", "list", out)
    assert "fog" in call("compare", "one", "two", "--results", out)
    with pytest.raises(UserError, match="Unknown run 'x'"):
        call("runs", "show", out, "--run", "x")
    assert "renamed: two is three" in call("runs", "rename", out, "two", "three")
    assert "removed: three" in call("runs", "remove", out, "three")
    assert "two" not in call("runs", "list", out)
    with pytest.raises(UserError, match="which --out of evaluate, runs import or study made"):
        store_folder(tmp_path)
    with pytest.raises(UserError, match="Unknown run 'x'"):
        call("runs", "remove", out, "one", "x")
    assert "one" in call("runs", "list", out)
    call("runs", "remove", out, "one")
    assert call("runs", "list", out) == f"no runs in {out}\n"
