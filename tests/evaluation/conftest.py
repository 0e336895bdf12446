from types import SimpleNamespace

import pytest

from stillrobust.data import write_coco
from stillrobust.data.reading import write_image
from stillrobust.tools import prediction_export
from stillrobust.tools.prediction_export import export_images
from tests.evaluation.exports import FORMATS, IMAGES, PROTOCOL, run_in_this_process
from tests.toys import Toys


@pytest.fixture(scope="module", params=sorted(FORMATS))
def exported(request, tmp_path_factory):
    """A dataset on disk with its export."""
    task, root = request.param, tmp_path_factory.mktemp(request.param)
    toys = Toys(task, IMAGES)
    samples = [toys[index] for index in range(IMAGES)]
    folders = {"segmentation": ("maps/images/val", "maps/labels/val")}.get(task, ())
    for folder in (*folders, *(f"folders/val/{name}" for name in toys.info.classes)):
        (root / folder).mkdir(parents=True)
    for sample in samples:
        name, target = sample.target.image_id, sample.target
        if task == "classification":
            place = root / "folders" / "val" / toys.info.classes[target.label]
            write_image(place / name, sample.image)
        if task == "segmentation":
            write_image(root / "maps/images/val" / name, sample.image)
            write_image(root / "maps/labels/val" / name, target.label_map)
    if task == "detection":
        write_coco(root / "coco", "val", samples, toys.info.classes)
    else:
        (root / "maps").mkdir(exist_ok=True)
        (root / "maps/classes.txt").write_text("\n".join(toys.info.classes))
    data = f"{FORMATS[task]}:{root / FORMATS[task]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction_export, "run_jobs", run_in_this_process)
        export_images(data, root / "export", PROTOCOL)
    return SimpleNamespace(task=task, data=data, root=root / "export", folder=root)
