"""Example images with predictions, as plain arrays for the report's gallery."""

from collections.abc import Sequence

import numpy as np

from stillrobust.samples import Prediction, Sample

MIN_SCORE = 0.5  # of a detection that is shown, as detectors' demos do


def example_arrays(
    examples: Sequence[tuple[Sample, Prediction]],
) -> dict[str, np.ndarray] | None:
    """Convert images with predictions to the arrays that the store keeps.

    Args:
        examples: Samples and predictions of one task. Images of another size than the first are
            left out.

    Returns:
        Arrays by name, or ``None`` without examples.
    """
    if not examples:
        return None
    size = examples[0][0].image.shape
    samples, predictions = zip(
        *(one for one in examples if one[0].image.shape == size), strict=True
    )
    arrays = {
        "images": np.stack([sample.image for sample in samples]),
        "image_ids": np.array([sample.target.image_id for sample in samples]),
    }
    first = predictions[0]
    if first.probabilities is not None:
        arrays["label"] = np.array([sample.target.label for sample in samples])
        arrays["predicted"] = np.array([one.probabilities.argmax() for one in predictions])
        arrays["score"] = np.array([one.probabilities.max() for one in predictions])
    elif first.label_map is not None:
        arrays["label_map"] = np.stack([one.label_map for one in predictions])
    else:
        confident = [np.flatnonzero(one.scores > MIN_SCORE) for one in predictions]
        counts = [len(found) for found in confident]
        arrays["box_image"] = np.repeat(np.arange(len(counts)), counts)
        for name in ("boxes", "labels", "scores", "masks"):
            if getattr(first, name) is not None:
                parts = zip(predictions, confident, strict=True)
                arrays[name] = np.concatenate([getattr(one, name)[found] for one, found in parts])
    return arrays
