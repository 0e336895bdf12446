"""Tiny ONNX files of any names and shapes, which return constants or their input."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


def write_constants(path, outputs, shape=(1, 3, "h", "w"), dtype="float32", **more):
    """Write a file that returns constants.

    Args:
        path: The file.
        outputs: Arrays by name.
        shape: Shape of the input ``images``.
        dtype: Type of the input.
        more: ``inputs``, further ``(name, type, shape)``; ``metadata``, texts by name.
    """
    nodes, values = [], []
    for name, array in outputs.items():
        tensor = numpy_helper.from_array(np.asarray(array), f"{name}_value")
        nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        values.append(
            helper.make_tensor_value_info(name, tensor.data_type, np.asarray(array).shape)
        )
    write_graph(path, nodes, values, shape, dtype, **more)


def write_graph(path, nodes, outputs, shape, dtype="float32", inputs=(), metadata=None):
    """Write a graph of nodes on the input ``images``."""
    taken = [helper.make_tensor_value_info("images", TYPES[dtype], shape)]
    taken += [helper.make_tensor_value_info(*one) for one in inputs]
    graph = helper.make_graph(nodes, "g", taken, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)


def write_identity(path, shape, dtype="float32"):
    """Write a file that returns its input, as ``pixels``."""
    node = helper.make_node("Identity", ["images"], ["pixels"])
    out = helper.make_tensor_value_info("pixels", TYPES[dtype], shape)
    write_graph(path, [node], [out], shape, dtype)
