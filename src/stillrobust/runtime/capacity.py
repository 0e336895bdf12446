"""Cores, memory and GPUs available to this process, within its container's limits (cgroup 1, 2)."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
PROC = Path("/proc")
NO_LIMIT = 2**60  # cgroup 1 reports a number above this for "no limit"


def cores() -> int:
    """Return the number of usable cores, at least 1: CPU affinity and the container's CPU quota."""
    count = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    for folder in _groups("cpu"):
        quota, period = _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us") + _words(
            folder / "cpu.cfs_period_us"
        )
        if quota.isdigit() and period.isdigit():  # else "max", or -1
            count = min(count, int(quota) // int(period))
    return max(1, count)


def memory() -> int:
    """Return the total memory of the machine or container in bytes; 0 if unknown."""
    total = (
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    )
    return min([total, *(limit for limit, _ in _memory_limits())])


def memory_left() -> int:
    """Return the available memory in bytes, including file caches; 0 if unknown."""
    free = [
        1024 * int(line.split()[1])
        for line in _lines(PROC / "meminfo")
        if line.startswith("MemAvailable:")
    ]
    return max(0, min([*(free or [memory()]), *(limit - used for limit, used in _memory_limits())]))


def gpus() -> list[str]:
    """Return the visible GPUs as CUDA_VISIBLE_DEVICES names them; none without torch."""
    try:
        import torch
    except ModuleNotFoundError:  # the core is installed without it
        return []
    count = torch.cuda.device_count()  # of the visible ones; starts nothing on them
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in visible.split(",") if name.strip()] or [
        str(number) for number in range(count)
    ]
    return names[:count]


def groups(devices: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Split devices into groups of ``size``, one per worker. An incomplete group is dropped."""
    return [
        tuple(devices[first : first + size]) for first in range(0, len(devices) - size + 1, size)
    ]


def _memory_limits() -> Iterator[tuple[int, int]]:
    """Yield (limit, used without file caches) in bytes of every control group with a limit."""
    for folder in _groups("memory"):
        (limit,) = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
        (used,) = (
            _words(folder / "memory.current") or _words(folder / "memory.usage_in_bytes") or ["0"]
        )
        if limit.isdigit() and int(limit) < NO_LIMIT:
            kept = [line.split() for line in _lines(folder / "memory.stat")]
            files = {name: int(value) for name, value in kept}
            yield (
                int(limit),
                int(used) - files.get("total_inactive_file", files.get("inactive_file", 0)),
            )


def _groups(controller: str) -> Iterator[Path]:
    """Yield this process's control groups that limit ``controller``, innermost first."""
    file = {
        "cpu": ("cpu.max", "cpu.cfs_quota_us"),
        "memory": ("memory.max", "memory.limit_in_bytes"),
    }[controller]
    for line in _lines(PROC / "self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUP / controller if controllers else CGROUP
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):
            if any((folder / name).is_file() for name in file):
                yield folder
            if folder == root:
                break


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    return [word for line in _lines(path) for word in line.split()]
