"""The kind of a model that is given without a prefix, from the file, folder or name."""

import zipfile
from pathlib import Path

from stillrobust.backbones.library_names import model_names
from stillrobust.errors import UserError
from stillrobust.names import similar_names

PYTHON_FILE = "write a Python file that runs it (docs/how_to/your_model.md)"
RUNNABLE = {".py": "file", ".onnx": "onnx"}
OTHER_FILES = {
    ".engine": "a TensorRT engine",
    ".tflite": "a TensorFlow Lite file",
    ".mlmodel": "a Core ML model",
    ".mlpackage": "a Core ML model",
    ".xml": "an OpenVINO model",
    ".h5": "a Keras file",
    ".keras": "a Keras file",
    ".pb": "a TensorFlow file",
}
PREDICTIONS = (".json", ".jsonl", ".csv", ".gz")
WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")


def kind_of(name: str) -> str:
    """Return the kind of a model that is given without a prefix.

    Args:
        name: A file, a folder or the name of a model of torchvision.

    Returns:
        A key of ``PREDICTORS``.

    Raises:
        UserError: If it is nothing that can be evaluated; the error says what it is.
    """
    path = Path(name).expanduser()
    suffix = path.suffix.lower()
    if suffix in RUNNABLE and path.exists():
        return RUNNABLE[suffix]
    if path.is_dir():
        return _kind_of_folder(path)
    if suffix in WEIGHTS and path.is_file():
        return _kind_of_weights(path)
    if suffix in (*RUNNABLE, *WEIGHTS, *OTHER_FILES) and not path.exists():
        raise UserError(f"Expected a model at {path}, but there is none; check the path")
    if suffix in OTHER_FILES:
        raise UserError(
            f"Expected a model that can be run here, but {path} is {OTHER_FILES[suffix]}; export it"
            f" to ONNX, or {PYTHON_FILE}"
        )
    if suffix in PREDICTIONS:
        raise UserError(
            f"Expected a model, but {path} looks like a file of predictions; score it with"
            " `stillrobust predictions score` (docs/how_to/predictions.md)"
        )
    known = model_names("torchvision")
    if name in known:
        return "torchvision"
    near = similar_names(name, known)
    hint = f" (did you mean {near}?)" if near else ""
    raise UserError(
        "Expected a model as FILE.py, FILE.onnx, an Ultralytics FILE.pt, a folder of transformers,"
        f" a name of torchvision or KIND:NAME, but got"
        f" {name!r}{hint}; see docs/reference/models.md"
    )


def _kind_of_folder(path: Path) -> str:
    if (path / "config.json").is_file():
        return "transformers"
    if (path / "description.json").is_file() or (path / "model.safetensors").is_file():
        raise UserError(
            f"{path} has weights but no config.json of transformers; give the folder of a run of"
            " stillrobust without --model"
        )
    if (path / "saved_model.pb").is_file():
        raise UserError(
            f"{path} is a SavedModel of TensorFlow; export it to ONNX with tf2onnx, or"
            f" {PYTHON_FILE}"
        )
    raise UserError(
        f"Expected a folder of transformers with config.json, but {path} has none; check the path"
    )


def _kind_of_weights(path: Path) -> str:
    """Tell Ultralytics' checkpoints, TorchScript and plain weights apart. No code is run."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.namelist()
            pickles = [name for name in entries if name.endswith("/data.pkl")]
            content = b"".join(archive.read(name) for name in pickles)
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError):
        entries, content = [], b""
    if any(name.endswith("/constants.pkl") for name in entries):
        raise UserError(
            f"{path} is TorchScript, whose inputs and outputs are not described; export the model"
            f" to ONNX, or {PYTHON_FILE} with torch.jit.load"
        )
    if b"ultralytics" in content:
        return "ultralytics"
    raise UserError(
        f"{path} holds weights without an architecture; name it, such as"
        f" torchvision:resnet50(weights='{path}'), timm:NAME(weights='{path}'), or {PYTHON_FILE}"
    )
