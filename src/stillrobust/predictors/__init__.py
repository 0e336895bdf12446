"""Models of any make, ready to be measured: runs of ours, a Python file of yours, and what other libraries have."""

from pathlib import Path

from stillrobust.predictors.predictor import Predict, Predictor, checked
from stillrobust.predictors.python_file import predictor_of_file
from stillrobust.training import load_model

__all__ = ["Predict", "Predictor", "checked", "predictor_of_file", "predictor_of_run"]


def predictor_of_run(folder: Path) -> Predictor:
    """The finished run in ``folder``, on the GPU where there is one."""
    import torch

    task, model, description = load_model(folder)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    plan = description["plan"]
    return Predictor(
        task=task.name,
        model=plan["backbone"],
        predict=lambda images: task.predict(model, images),
        weights=description["sha256"],
        classes=tuple(description["info"]["classes"]),
        masks=bool(description["info"]["has_masks"]),
        transfer=plan["transfer"],
        about={"training": description["identity"], "loaded": description["loaded"]},
    )
