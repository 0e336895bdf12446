"""A small study killed again and again, or begun twice at once: ``python -m tests.killed_study
FOLDER KILLS SEED``.

One process holds the imports and forks a study, which forks its workers: ``spawn`` would spend all
the time on imports, and a kill would rarely hit anything else. Jobs, pool, files and signals are
the real ones. Prints what was seen as JSON.
"""

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import cv2

from stillrobust.corruptions import CORRUPTIONS
from stillrobust.corruptions.compilation import warm_up
from stillrobust.execution.job_queue import ATTEMPTS
from stillrobust.study import Site, select
from stillrobust.study.execute import run_study

STUDY = """
name: small
scenes: {train: 1, val: 1, train_crops: 8, val_crops: 4}
source_set: {train: 1, val: 1, size: 32}
protocols: {short: {corruptions: [gaussian_noise, brightness], severities: [1, 3]}}
runs:
  - {ids: [made], task: classification, data: source, kind: robustify, recipe: source_small,
      technique: gaussian,
     model: "resnet_mini(weights='random')", settings: {resize: 32, crop: 32},
     changes: {steps: 5, batch_size: 8, checkpoint_seconds: 0.0}}
  - task: classification
    data: scenes
    transfer: full_network
    settings: {resize: 32, crop: 32}
    changes: {steps: 5, batch_size: 4, checkpoint_seconds: 0.0}
    axes: {model: ["run:made", "resnet_mini(weights='random')"]}
"""
CELLS = 3 * 5
WORKERS = 2
APART = ("progress.json", ".listing", ".log", "events.out.tfevents")
"""What holds times and is worth less than the work, by a part of its name."""


def begin(folder: Path, file: Path) -> int:
    """Start the study in a process group of its own."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    failures = [("?", "it did not end")]
    try:
        with (folder.parent / "said.txt").open("a") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        failures = run_study(select([str(file)]), Site(folder), WORKERS)
        for failure in failures:
            print(failure, file=sys.stderr, flush=True)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(1 if failures else 0)


def ended(pid: int, seconds: float) -> int | None:
    """The exit status of a study that ends within so many seconds."""
    until = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.002)


def kill(pid: int, chance: random.Random) -> str:
    """All of its processes, the first alone (its workers see that and end), or one worker (the
    study goes on).
    """
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    kind = chance.choice(["all", "all", "first", "worker"])
    if kind == "worker" and workers:
        os.kill(int(chance.choice(workers)), signal.SIGKILL)
        return kind
    if kind == "first":
        os.kill(pid, signal.SIGKILL)
    else:
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "first" if kind == "first" else "all"


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def finished(folder: Path) -> dict[str, tuple[int, int]]:
    """What is finished, with what would change if it were done again."""
    patterns = (
        "results/cells/*/[!.]*.json",
        "runs/*/model.json",
        "runs/*/checkpoint.json",
        "data/**/scenes.json",
    )
    paths = [path for pattern in patterns for path in folder.glob(pattern)]
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in paths
    }


def tree(folder: Path) -> dict[str, bytes]:
    """Every file's bytes, but for times."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part in path.name for part in APART):
            content = path.read_bytes()
            if path.suffix == ".json" and "cells" in path.parts:
                record = json.loads(content)
                assert record.pop("sha256")
                assert record["body"].pop("seconds") >= 0
                content = json.dumps(record).encode()
            found[str(path.relative_to(folder))] = content
    return found


def measured(folder: Path) -> Counter[str]:
    """How often each cell was measured, by the logs."""
    lines = [
        line for log in (folder / "logs").glob("*.log") for line in log.read_text().splitlines()
    ]
    return Counter(line.split("] ", 1)[1].split(",")[0] for line in lines if " images in " in line)


def differences(one: dict[str, bytes], two: dict[str, bytes]) -> list[str]:
    return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))


def undisturbed(root: Path, file: Path) -> tuple[dict[str, bytes], float]:
    """The files that a study ends in, and the seconds that it takes."""
    begun = time.monotonic()
    status = ended(begin(root / "study", file), 600)
    assert status == 0, (root / "said.txt").read_text()
    lasts = time.monotonic() - begun
    whole = tree(root / "study")
    assert len(finished(root / "study")) == CELLS + 3 + 1 + 2, finished(root / "study").keys()
    shutil.rmtree(root / "study")
    return whole, lasts


def killed(root: Path, file: Path, kills: int, chance: random.Random) -> dict[str, object]:
    """Kill studies until there were so many kills; each is begun again until it ends."""
    whole, lasts = undisturbed(root, file)
    kinds: Counter[str] = Counter()
    twice: set[str] = set()
    wrong: list[str] = []
    studies, folder = 0, root / "study"
    while kinds.total() < kills:
        twice |= until_it_ends(folder, file, kills, lasts, kinds, chance)
        before = finished(folder)
        # does nothing, but for what the last killed ones left
        if status := ended(begin(folder, file), 600):
            wrong.append(f"exit status {status}")
        twice |= {name for name, mark in before.items() if finished(folder)[name] != mark}
        twice |= {cell for cell, times in measured(folder).items() if times > 1}
        wrong += differences(whole, tree(folder))
        studies += 1
        shutil.rmtree(folder)
    return {
        "kills": kinds.total(),
        "kinds": dict(kinds),
        "studies": studies,
        "differs": wrong,
        "twice": sorted(twice),
    }


def until_it_ends(
    folder: Path, file: Path, kills: int, lasts: float, kinds: Counter[str], chance: random.Random
) -> set[str]:
    """Kill a study at random moments, as long as there are kills left, and begin it again; returns
    what was done twice.
    """
    before: dict[str, tuple[int, int]] = {}
    twice: set[str] = set()
    groups: set[int] = set()
    pid, workers = begin(folder, file), 0
    while True:
        groups.add(pid)
        left = kinds.total() < kills
        status = ended(pid, chance.uniform(0, lasts / 3) if left else 600)
        assert left or status is not None, "it hangs"
        kind = kill(pid, chance) if status is None else ""
        now = finished(folder)
        twice |= {name for name, mark in before.items() if now.get(name) != mark}
        before |= now
        if kind:
            kinds[kind] += 1
        if kind == "worker":
            workers += 1
        # a job on which so many workers end is given up, and that is said
        elif kind or (status and workers >= ATTEMPTS):
            pid, workers = begin(folder, file), 0
        else:
            break
    while any(alive(group) for group in groups):  # workers whose first process was killed
        time.sleep(0.1)
    return twice | ({f"exit status {status}"} if status else set())


def together(root: Path, file: Path, times: int) -> dict[str, object]:
    """Two processes begin the same study at once, so many times."""
    whole, _ = undisturbed(root, file)
    wrong, counts, shares = [], Counter[int](), []
    for _ in range(times):
        pids = [begin(root / "study", file) for _ in range(2)]
        wrong += [f"exit status {bad}" for bad in [ended(pid, 600) for pid in pids] if bad != 0]
        found = measured(root / "study")
        counts += Counter(found.values())
        processes = {
            line.split("[")[1].split("]")[0]
            for log in (root / "study/logs").glob("*.log")
            for line in log.open()
        }
        shares.append(len(processes))
        wrong += differences(whole, tree(root / "study"))
        shutil.rmtree(root / "study")
    return {"differs": wrong, "counts": dict(counts), "processes": shares}


def main(root: Path, kills: int, seed: int) -> None:
    fork = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: fork  # type: ignore[assignment,misc]
    cv2.setNumThreads(1)  # its threads do not fork
    warm_up(CORRUPTIONS)
    root.mkdir(parents=True, exist_ok=True)
    file = root / "small.yaml"
    file.write_text(STUDY)
    begun = time.monotonic()
    found = killed(root, file, kills, random.Random(seed)) if kills else together(root, file, 2)
    print(json.dumps({**found, "seconds": round(time.monotonic() - begun)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
