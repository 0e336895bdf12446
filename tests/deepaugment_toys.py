"""Networks of DeepAugment whose output is known: weights set by hand."""

import torch

from stillrobust.robustify.deepaugment.edsr import EDSR


def enlarging_edsr():
    """An EDSR that repeats every pixel 4 x 4 times: three features are the colours, and nothing else does anything."""
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
