"""Evaluations that share their corrupted images: the same folder for all, and the same images for
one model after the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from stillrobust.data.image_cache import ImageCache
from stillrobust.execution import Job

PROTOCOL = 3  # its place in the arguments of an evaluation's job


def sharing(jobs: Sequence[Job], evaluation: Callable[..., Any], shared: ImageCache) -> list[Job]:
    """The jobs, those of ``evaluation`` with ``shared`` and, among themselves, one corruption of
    one data set after the other.

    Models that are ready are then evaluated on the same images at about the same time, so that a
    folder smaller than all corrupted images together still serves them.
    """
    evaluations = [_with(job, shared) for job in jobs if job.function is evaluation]
    evaluations.sort(key=lambda job: (str(job.arguments[1]), job.arguments[PROTOCOL].corruptions))
    following = iter(evaluations)
    return [next(following) if job.function is evaluation else job for job in jobs]


def _with(job: Job, shared: ImageCache) -> Job:
    arguments = list(job.arguments)
    arguments[PROTOCOL] = replace(arguments[PROTOCOL], shared=shared)
    return replace(job, arguments=tuple(arguments))
