"""Cores, memory and GPUs within the limits of containers: folders as the kernel shows them, made by
hand.
"""

import os

import pytest

from stillrobust.runtime import capacity

GB = 2**30
TOTAL = 64 * GB


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Eight cores, 64 GB of which 40 are free; ``write(file, text)`` makes a file of /proc or of
    the cgroups.
    """
    monkeypatch.setattr(capacity, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(capacity, "PROC", tmp_path / "proc")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": TOTAL // 4096}.get)

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    write(
        "proc/meminfo",
        f"MemTotal: {TOTAL // 1024} kB\nMemFree: 1 kB\nMemAvailable: {40 * GB // 1024} kB",
    )
    return write


def found():
    return capacity.cores(), capacity.memory() / GB, capacity.memory_left() / GB


def test_without_limits(machine):
    assert found() == (8, 64, 40)
    machine("proc/self/cgroup", "0::/user.slice")
    machine("cgroup/user.slice/cpu.max", "max 100000")
    machine("cgroup/user.slice/memory.max", "max")
    assert found() == (8, 64, 40)


def test_in_a_container_the_root_is_its_own(machine):
    machine("proc/self/cgroup", "0::/")
    machine("cgroup/cpu.max", "250000 100000")
    machine("cgroup/memory.max", 10 * GB)
    machine("cgroup/memory.current", 6 * GB)
    machine("cgroup/memory.stat", f"anon {4 * GB}\ninactive_file {2 * GB}")
    assert found() == (2, 10, 6)


def test_the_narrowest_of_all_groups_counts(machine):
    """Slurm puts a step into a group inside the job's: the job's limit holds too."""
    machine("proc/self/cgroup", "0::/slurm/job_7/step_0")
    machine("cgroup/slurm/job_7/cpu.max", "300000 100000")
    machine("cgroup/slurm/job_7/step_0/cpu.max", "max 100000")
    machine("cgroup/slurm/job_7/memory.max", 8 * GB)
    machine("cgroup/slurm/job_7/memory.current", 3 * GB)
    machine("cgroup/slurm/job_7/step_0/memory.max", 9 * GB)
    machine("cgroup/slurm/job_7/step_0/memory.current", 1 * GB)
    assert found() == (3, 8, 5)


def test_the_first_version_of_cgroups(machine):
    machine("proc/self/cgroup", "4:memory:/docker/abc\n3:cpuset:/\n2:cpu,cpuacct:/docker/abc\n0::/")
    machine("cgroup/cpu/docker/abc/cpu.cfs_quota_us", "150000")
    machine("cgroup/cpu/docker/abc/cpu.cfs_period_us", "100000")
    machine("cgroup/memory/memory.limit_in_bytes", 9223372036854771712)
    machine("cgroup/memory/docker/abc/memory.limit_in_bytes", 4 * GB)
    machine("cgroup/memory/docker/abc/memory.usage_in_bytes", 3 * GB)
    machine("cgroup/memory/docker/abc/memory.stat", f"inactive_file 5\ntotal_inactive_file {GB}")
    assert found() == (1, 4, 2)
    machine("cgroup/cpu/docker/abc/cpu.cfs_quota_us", "-1")
    assert capacity.cores() == 8


def test_half_a_core_is_one(machine):
    machine("proc/self/cgroup", "0::/")
    machine("cgroup/cpu.max", "50000 100000")
    assert capacity.cores() == 1


@pytest.mark.parametrize(
    ("visible", "count", "expected"),
    [("", 0, []), ("", 2, ["0", "1"]), ("2, 5", 2, ["2", "5"]), ("GPU-ab,9", 1, ["GPU-ab"])],
)
def test_gpus_are_named_as_they_are_visible(monkeypatch, visible, count, expected):
    import torch

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert capacity.gpus() == expected


def test_gpus_in_groups():
    assert capacity.groups(["0", "1", "2", "3", "4"], 2) == [("0", "1"), ("2", "3")]
    assert capacity.groups([], 1) == []
