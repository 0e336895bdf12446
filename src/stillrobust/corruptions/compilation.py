"""Compile the kernels of corruptions ahead, on all cores, so that later processes only read them.

numba keeps machine code in a cache on disk. A marker beside it stands for each corruption that was
compiled there, so that a second call takes no time.
"""

import hashlib
import logging
import multiprocessing
import signal
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path

import numpy as np

from stillrobust.corruptions import CORRUPTIONS, corrupt
from stillrobust.corruptions.compiled import kernel_cache
from stillrobust.runtime import capacity
from stillrobust.runtime.progress import ProgressCallback, no_progress

# Those whose kernels take longest, in this order (2 to 5 s on a core of 2023); the others take
# about a second each. A process starts with these.
SLOWEST = ("defocus_blur", "spatter", "jpeg_compression", "elastic_transform", "fog")


def uncompiled(names: Iterable[str], draws: str = "fast") -> list[str]:
    """Return the corruptions whose kernels this machine has not compiled, slowest first.

    Args:
        names: Corruptions. Files of users have no kernels.
        draws: ``fast`` or ``exact``, which have kernels of their own.
    """
    missing = [name for name in names if name in CORRUPTIONS and not _marker(name, draws).is_file()]
    return sorted(missing, key=lambda name: (*SLOWEST, name).index(name))


def warm_up(
    names: Iterable[str], draws: str = "fast", progress: ProgressCallback = no_progress
) -> None:
    """Compile the kernels that are missing in the cache, with a process for each core.

    Args:
        names: Corruptions.
        draws: ``fast`` or ``exact``.
        progress: Called as corruptions are compiled.
    """
    missing = uncompiled(names, draws)
    if not missing:
        return
    text = "compiling corruption kernels, once on this machine"
    progress(0, len(missing), text)
    processes = min(capacity.cores(), len(missing))
    if processes == 1:
        for done, name in enumerate(missing, 1):
            _compile(draws, name)
            progress(done, len(missing), text)
        return
    with ProcessPoolExecutor(
        processes,
        multiprocessing.get_context("spawn"),
        initializer=_prepare_process,
    ) as pool:
        jobs = [pool.submit(_compile, draws, name) for name in missing]
        try:
            for done, job in enumerate(as_completed(jobs), 1):
                job.result()
                progress(done, len(missing), text)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _prepare_process() -> None:
    """Leave Ctrl-C and messages to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("stillrobust").setLevel(logging.ERROR)


def _compile(draws: str, name: str) -> None:
    """Compile the kernels of a corruption, or read them from the cache, and write its marker."""
    image = np.random.RandomState(0).randint(0, 256, (40, 48, 3)).astype(np.uint8)
    for severity in (1, 5):
        corrupt(image, name, severity, seed=0, image_id="warm up", draws=draws)
    marker = _marker(name, draws)
    with suppress(OSError):  # a cache that cannot be written only costs time
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()


def _marker(name: str, draws: str) -> Path:
    """The file that says that a corruption was compiled for this processor by this numba."""
    folder, compiler = kernel_cache()
    key = hashlib.sha256(f"{sys.implementation.cache_tag} {compiler}".encode()).hexdigest()[:12]
    return folder / f"{name}-{draws}-{key}.compiled"
