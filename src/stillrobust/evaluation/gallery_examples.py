"""A few images with what a model said of them, as plain arrays: what the store keeps for the
report's gallery.
"""

from collections.abc import Sequence

import numpy as np

from stillrobust.samples import Prediction, Sample


def as_arrays(shown: Sequence[tuple[Sample, Prediction]]) -> dict[str, np.ndarray]:
    """Images with predictions as plain arrays, for the gallery; images of other sizes than the
    first are left out.
    """
    size = shown[0][0].image.shape
    shown = [(sample, prediction) for sample, prediction in shown if sample.image.shape == size]
    samples, predictions = zip(*shown, strict=True)
    arrays = {
        "images": np.stack([sample.image for sample in samples]),
        "image_ids": np.array([sample.target.image_id for sample in samples]),
    }
    first = predictions[0]
    if first.probabilities is not None:
        arrays["label"] = np.array([sample.target.label for sample in samples])
        arrays["predicted"] = np.array(
            [prediction.probabilities.argmax() for prediction in predictions]
        )
        arrays["score"] = np.array([prediction.probabilities.max() for prediction in predictions])
    elif first.label_map is not None:
        arrays["label_map"] = np.stack([prediction.label_map for prediction in predictions])
    else:
        # as detectors are shown
        confident = [np.flatnonzero(prediction.scores > 0.5) for prediction in predictions]
        arrays["box_image"] = np.repeat(
            np.arange(len(confident)), [len(found) for found in confident]
        )
        for name in ("boxes", "labels", "scores", "masks"):
            if getattr(first, name) is not None:
                parts = [
                    getattr(p, name)[found] for p, found in zip(predictions, confident, strict=True)
                ]
                arrays[name] = np.concatenate(parts)
    return arrays
