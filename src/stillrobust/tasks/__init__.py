"""Tasks: frozen dataclasses of settings with ``build_model``, ``augment``, ``loss``, ``predict``.

The default settings are those of the paper; the demo uses smaller ones.
"""

from typing import TYPE_CHECKING

from stillrobust.extras import lazy_exports

if TYPE_CHECKING:
    from stillrobust.tasks.classification import Classification
    from stillrobust.tasks.detection import Detection
    from stillrobust.tasks.heads import Photometric
    from stillrobust.tasks.segmentation import Segmentation
    from stillrobust.tasks.task import TASKS, Task, make_task

__all__ = [
    "TASKS",
    "Classification",
    "Detection",
    "Photometric",
    "Segmentation",
    "Task",
    "make_task",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "classification": ("Classification",),
        "detection": ("Detection",),
        "heads": ("Photometric",),
        "segmentation": ("Segmentation",),
        "task": (
            "TASKS",
            "Task",
            "make_task",
        ),
    },
)
