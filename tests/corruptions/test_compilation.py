"""Kernels are compiled once for a processor and a release of numba, the slowest first."""

import os

import pytest

from stillrobust.corruptions import CORRUPTIONS, compilation
from stillrobust.corruptions.kernels import jit
from stillrobust.runtime import capacity


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """Corruptions that are applied instead of compiled, with a cache of their own."""
    found = []
    monkeypatch.setattr(capacity, "cores", lambda: 1)
    monkeypatch.setattr(compilation, "kernel_cache", lambda: (tmp_path / "cache", "numba 1, cpu"))
    monkeypatch.setattr(
        compilation, "corrupt", lambda image, name, severity, **how: found.append((name, how))
    )
    return found


def test_each_corruption_is_compiled_once(calls, monkeypatch, tmp_path):
    told = []
    names = ("fog", "contrast", "defocus_blur", str(tmp_path / "mine.py"))
    assert compilation.uncompiled(names) == ["defocus_blur", "fog", "contrast"]
    compilation.warm_up(names, progress=lambda *state: told.append(state[:2]))
    assert {name for name, _ in calls} == {"fog", "contrast", "defocus_blur"}
    assert {how["draws"] for _, how in calls} == {"fast"}
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    calls.clear()
    compilation.warm_up(names)
    assert calls == []
    assert compilation.uncompiled(["fog"], "exact") == ["fog"]
    monkeypatch.setattr(compilation, "kernel_cache", lambda: (tmp_path / "cache", "numba 2, cpu"))
    assert compilation.uncompiled(["fog"]) == ["fog"]


def test_a_cache_that_cannot_be_written_costs_only_time(calls, monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file in its place")
    compilation.warm_up(["fog"])
    assert compilation.uncompiled(["fog"]) == ["fog"]


def test_the_slowest_are_corruptions():
    assert set(compilation.SLOWEST) <= set(CORRUPTIONS)


def test_a_changed_kernel_removes_code_and_markers(monkeypatch, tmp_path):
    cache, sources = tmp_path / "cache", tmp_path / "sources"
    for folder in (cache, sources):
        folder.mkdir()
    for name in ("a.nbi", "a.nbc", "fog-fast-1.compiled"):
        (cache / name).touch()
        os.utime(cache / name, (1, 1))
    (cache / "new.compiled").touch()
    os.utime(cache / "new.compiled", (3, 3))
    (sources / "filters.py").touch()
    os.utime(sources / "filters.py", (2, 2))
    monkeypatch.setattr(jit, "cache_folder", lambda: cache)
    jit.remove_stale_cache(sources)
    assert sorted(path.name for path in cache.iterdir()) == ["a.nbc", "new.compiled"]
