"""What the tests of DeepAugment share: a network whose output is known, and a look at what a change
of weights changed.
"""

import numpy as np
import torch
from torch.nn import functional

from stillrobust.robustify.deepaugment.edsr import EDSR


def enlarging_edsr():
    """An EDSR that repeats every pixel 4 x 4 times: three features are the colours, and nothing
    else does anything.
    """
    network = EDSR().eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "mean" not in name:
                parameter.zero_()
        for colour in range(3):
            network.head[0].weight[colour, colour, 1, 1] = 1
            network.tail[1].weight[colour, colour, 1, 1] = 1
            for layer in (0, 2):
                network.tail[0][layer].weight[4 * colour : 4 * colour + 4, colour, 1, 1] = 1
    return network


def rng(seed=0):
    return np.random.default_rng(seed)


def convolve(state, name, x, padding=1, stride=1):
    return functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride, padding)


def changed_keys(before, after):
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def only(change, state, seed=0):
    """The state after one change, which must leave the tensors that it was given as they were."""
    kept = {name: value.clone() for name, value in state.items()}
    after = dict(state)
    change(after, rng(seed))
    assert all(torch.equal(kept[name], state[name]) for name in state), (
        "the pretrained weights are never written to"
    )
    assert all(after[name].shape == state[name].shape for name in state)
    return after
