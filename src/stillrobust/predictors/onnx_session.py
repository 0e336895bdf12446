"""Opening of ONNX files: session, metadata, and the hash of the file with its external data."""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillrobust.errors import UserError
from stillrobust.predictors.predictor import prediction_identity
from stillrobust.samples import Array
from stillrobust.storage.files import file_sha256
from stillrobust.untrusted import read_user_file
from stillrobust.user_files import error_summary

LARGEST = 2 << 30  # bytes: protobuf's limit; larger models keep their weights in other files
# StringStringEntryProto of onnx.proto: key (field 1) "location", value (field 2), a path
EXTERNAL_DATA = re.compile(rb"\x0a\x08location\x12([\x00-\x7f]|[\x80-\xff][\x01-\x7f])", re.DOTALL)


@dataclass(frozen=True)
class OnnxFile:
    """An open ONNX file."""

    path: Path
    session: Any
    sha256: str
    """Of the file and its external data."""
    metadata: Mapping[str, Any]
    """What the exporting tool wrote into the file, such as class names; literals are parsed."""

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs, in their order."""
        return [output.name for output in self.session.get_outputs()]

    @property
    def from_ultralytics(self) -> bool:
        """Whether Ultralytics exported the file."""
        return self.metadata.get("author") == "Ultralytics"

    def shape(self, output: str) -> list[Any]:
        """Return the declared shape of an output: numbers, and names of dynamic axes."""
        return next(list(one.shape) for one in self.session.get_outputs() if one.name == output)

    def description(self) -> str:
        """Return inputs and outputs with their types and shapes, for errors."""
        return (
            f"inputs {_listed(self.session.get_inputs())}; outputs"
            f" {_listed(self.session.get_outputs())}"
        )

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs by name, float16 as float32.

        Raises:
            UserError: If the runtime fails on the input.
        """
        try:
            arrays = self.session.run(self.outputs, dict(feeds))
        except Exception as error:  # its errors have no common base class
            shapes = ", ".join(f"{name} {value.shape}" for name, value in feeds.items())
            raise UserError(
                f"ONNX Runtime failed on {self.path.name} with the input {shapes}:"
                f" {error_summary(error)}; give size=(H, W) that the model takes"
            ) from None
        return {
            name: value.astype(np.float32) if value.dtype == np.float16 else value
            for name, value in zip(self.outputs, arrays, strict=True)
        }


def open_onnx(path: Path) -> OnnxFile:
    """Open an ONNX file with ONNX Runtime.

    Args:
        path: The file. Its external data lie in its folder.

    Raises:
        UserError: If the file does not exist or cannot be loaded.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it prints names of the file as they are; errors are raised
    if not path.is_file():
        raise UserError(f"Expected an ONNX file at {path}, but there is none; check the path")
    sha256 = _hash_with_external_data(path)
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=onnxruntime.get_available_providers()
        )
    except Exception as error:  # its errors have no common base class
        raise UserError(
            f"ONNX Runtime cannot load {path}: {error_summary(error)}; export the model again"
        ) from None
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    return OnnxFile(
        path, session, sha256, {key: _literal(value) for key, value in metadata.items()}
    )


def _hash_with_external_data(path: Path) -> str:
    found = set()
    content = read_user_file(path, "an ONNX file", LARGEST)
    for match in EXTERNAL_DATA.finditer(content):
        low, *high = match[1]
        length = (low & 0x7F) | (high[0] << 7 if high else 0)
        found.add(content[match.end() : match.end() + length].decode(errors="replace"))
    hashes = {}
    for name in sorted(found):
        file = path.parent / name
        if not file.resolve().is_relative_to(path.parent.resolve()) or not file.is_file():
            raise UserError(
                f"Expected the external data {name!r} of {path} in its folder, but there is no such"
                " file; copy it there"
            )
        hashes[name] = file_sha256(file)
    return (
        prediction_identity(file_sha256(path), external_data=hashes)
        if hashes
        else (file_sha256(path))
    )


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _listed(values: Any) -> str:
    return ", ".join(
        f"{one.name} {str(one.type).removeprefix('tensor(').removesuffix(')')}"
        f" ({', '.join(map(str, one.shape))})"
        for one in values
    )
