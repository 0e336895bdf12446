"""Plain forms of what `robustify/` does in a faster way: the oracles of its tests and the other
side of its benchmark.

Written from the formulas, without regard to speed: every sine computed, every primitive evaluated
on every image and masked, a sort where the source sorts.
"""

import math

import torch
from torch.nn import functional


def curves(images, first, amplitudes):
    """clip(c + sum_j b_j sin(pi (first + j) c)), sine by sine, in the dtype of ``images``."""
    out = images.clone()
    for j in range(amplitudes.shape[2]):
        angle = math.pi * (first + j).to(images.dtype).view(-1, 1, 1, 1) * images
        out += amplitudes[:, :, j, None, None].to(images.dtype) * torch.sin(angle)
    return out.clamp(0, 1)


def colour(images, generator, largest=500, strength=0.05, bandwidth=20):
    cut = 1 + int(torch.rand(1, generator=generator) * largest)
    variance = strength * float(torch.rand(1, generator=generator))
    first = 1 + int(torch.rand(1, generator=generator) * cut)
    frequencies = torch.arange(first, min(first + bandwidth, cut + 1))
    amplitudes = math.sqrt(variance) * torch.randn(
        len(images), 3, len(frequencies), generator=generator
    )
    # (N, 3, F, H, W) at once, as the source has it
    waves = torch.sin(math.pi * frequencies.view(-1, 1, 1) * images[:, :, None])
    return (images + (amplitudes[..., None, None] * waves).sum(2)).clamp(0, 1)


def random_filter(images, generator):
    std = 4 * float(torch.rand(1, generator=generator))
    out = []
    for image in images:
        kernel = std * torch.randn(3, 3, generator=generator)
        kernel[2, 2] += 1
        out.append(functional.conv2d(image[:, None], kernel[None, None], padding=1)[:, 0])
    return torch.stack(out).clamp(0, 1)


def bilinear(images, displacements):
    """images (N, 3, S, S) sampled at (x - u, y - v), coordinates held inside the border."""
    size = images.shape[-1]
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    x = (columns - displacements[:, 0]).clamp(0, size - 1)
    y = (rows - displacements[:, 1]).clamp(0, size - 1)
    left, top = x.floor().long(), y.floor().long()
    right, bottom = (left + 1).clamp(max=size - 1), (top + 1).clamp(max=size - 1)
    a, b = (x - left)[:, None], (y - top)[:, None]
    n = torch.arange(len(images))[:, None, None]
    at = lambda j, i: images.permute(0, 2, 3, 1)[n, j, i].permute(0, 3, 1, 2)  # noqa: E731
    return (1 - b) * ((1 - a) * at(top, left) + a * at(top, right)) + b * (
        (1 - a) * at(bottom, left) + a * at(bottom, right)
    )


def beta_half(generator):
    return math.sin(math.pi / 2 * float(torch.rand(1, generator=generator))) ** 2


def field(cut, temperature, size, generator):
    """Displacements (2, size, size) in pixels."""
    axis = torch.linspace(0, 1, size)
    orders = torch.arange(1, cut + 1).float()
    radius = (orders[:, None] ** 2 + orders**2).sqrt()
    envelope = torch.where(radius <= cut + 0.5, 1 / radius, 0)
    waves = torch.sin(math.pi * axis * orders[:, None])
    coefficients = (
        size * math.sqrt(temperature) * envelope * torch.randn(2, cut, cut, generator=generator)
    )
    return torch.einsum("dij,iy,jx->dyx", coefficients, waves, waves)


def diffeomorphism(images, generator, largest=500):
    size = images.shape[-1]
    cut_max = 3 + int(torch.rand(1, generator=generator) * (largest - 2))
    cut = int(2 + beta_half(generator) * (cut_max - 1))
    low = 1 / (math.pi * size**2 * math.log(cut + 1e-6))
    high = max(low, 4 / (math.pi**3 * (cut + 1e-6) ** 2 * math.log(cut + 1e-6)))
    displacement = field(cut, low + beta_half(generator) * (high - low), size, generator)
    return bilinear(images, displacement.expand(len(images), -1, -1, -1))


def prime(images, generator, geometry=True):
    """Every primitive on all 3 B images, nine times, and a mask, as the source has it."""
    primitives = [colour, random_filter, *([diffeomorphism] if geometry else [])]
    chains = images.repeat(3, 1, 1, 1)
    lengths = torch.randint(1, 4, (len(chains),), generator=generator)
    for step in range(3):
        drawn = torch.randint(len(primitives), (len(chains),), generator=generator)
        results = torch.stack([primitive(chains, generator) for primitive in primitives])
        chosen = results[drawn, torch.arange(len(chains))]
        chains = torch.where((lengths > step).view(-1, 1, 1, 1), chosen, chains)
    weights = torch.distributions.Dirichlet(torch.ones(3)).sample((len(images),))
    share = torch.rand(len(images), 1, 1, 1, generator=generator)
    mixed = torch.einsum("bm,mbchw->bchw", weights, chains.view(3, *images.shape))
    return (1 - share) * images + share * mixed


def project_by_sort(images, noise, epsilon):
    """Adversarial noise's size, as the source finds it: sort by where each pixel meets its wall,
    then a cumulative sum.
    """
    scaled = []
    for image, one in zip(images, noise, strict=True):
        wall = torch.where(one >= 0, 1 - image, image).flatten()
        size = one.flatten().abs().clamp_min(1e-30)
        ratio = (wall / size) ** 2  # t = eta^2 at which this pixel meets its wall
        order = ratio.argsort()
        # of those that have met theirs
        before = torch.cat([torch.zeros(1, dtype=image.dtype), (wall[order] ** 2).cumsum(0)])
        squares = size[order] ** 2
        after = torch.cat([squares.flip(0).cumsum(0).flip(0), torch.zeros(1, dtype=image.dtype)])
        met = before[:-1] + ratio[order] * after[:-1]  # squared norm when this pixel meets its wall
        index = int((met < epsilon**2).sum())
        t = (epsilon**2 - before[index]) / after[index] if index < len(order) else ratio.max()
        scaled.append((image + t.sqrt() * one).clamp(0, 1))
    return torch.stack(scaled)


def norm_by_bisection(image, noise, epsilon):
    """eta >= 0 with ||clip(image + eta noise) - image|| = epsilon, float64, one image."""
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        reached = float(((image + middle * noise).clamp(0, 1) - image).norm())
        low, high = (middle, high) if reached < epsilon else (low, middle)
    return (low + high) / 2
