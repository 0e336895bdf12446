"""Models trained by stillrobust."""

from pathlib import Path

from stillrobust.predictors.folding import fold_batch_norm
from stillrobust.predictors.outputs import default_device
from stillrobust.predictors.predictor import Predictor
from stillrobust.samples import Image, Prediction
from stillrobust.training import load_model


def load_run_predictor(folder: Path) -> Predictor:
    """Load the model of a finished run, onto the GPU if there is one.

    Args:
        folder: Folder of the run.

    Raises:
        UserError: If the run is not finished or damaged.
    """
    task, model, description = load_model(folder)
    model = model.to(default_device())
    plan = description["plan"]

    def predict(images: list[Image]) -> list[Prediction]:
        return task.predict(model, images)

    fold_batch_norm(model, predict)
    made_by = {"made_by": plan["made_by"]} if plan.get("made_by") else {}
    return Predictor(
        task=task.name,
        model=plan["display_name"],
        predict=predict,
        weights=description["sha256"],
        classes=tuple(description["info"]["classes"]),
        masks=bool(description["info"]["has_masks"]),
        kind=plan["kind"],
        transfer=plan["transfer"],
        about={
            "training": description["identity"],
            **made_by,
            "overlaps_test": plan["overlaps_test"],
            "loaded": description["loaded"],
        },
    )
