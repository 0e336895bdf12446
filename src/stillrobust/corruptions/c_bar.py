"""The ten corruptions of ImageNet-C-bar, far from the 15 common ones in feature space.

Mintun, Kirillov & Xie, "On Interaction Between Augmentations and Corruptions in Natural Corruption
Robustness", NeurIPS 2021. Exact draws give the pixels of the authors' code for square images
(facebookresearch/augmentation-corruption, commit ba4d5a5, imagenet_c_bar/corrupt.py; MIT). For
other images, positions lie within height and width, and lengths scale with sqrt(H * W).

The names keep the original's spelling. The numbers in the tables are parameters computed from the
magnitudes of imagenet_c_bar.csv and cifar10_c_bar.csv. The benchmark has no magnitudes of CIFAR for
five of the ten; in that regime they are refused.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stillrobust.corruptions.arithmetic import EXACT, FAST, Arithmetic
from stillrobust.corruptions.corruption import Corruption, Severities
from stillrobust.corruptions.draws import Key, Rng, quantiles
from stillrobust.corruptions.filters import gaussian_filter
from stillrobust.corruptions.spectral_noise import spectral_noise
from stillrobust.samples import Array, Image

Twister = np.random.RandomState
Size = tuple[int, int]


def _source(rng: Rng) -> tuple[Twister, Arithmetic]:
    """Return the generator and the functions; both kinds of draws take numbers in one order."""
    if isinstance(rng, Key):
        return Twister(np.array(rng.words, np.uint32)), FAST
    return rng, EXACT


def _child(rng: Twister) -> Twister:
    return Twister(rng.randint(0, 2**32, dtype=np.int64))


def _normals(rng: Twister, count: int, functions: Arithmetic) -> Array:
    """Draw normal numbers; numpy's own take a logarithm, whose last bit depends on the machine."""
    if functions is EXACT:
        return rng.randn(count)
    return quantiles()[rng.randint(0, 65536, count)]


def _grid(size: Size) -> tuple[Array, Array]:
    """Rows float64 (H, 1) and columns float64 (1, W)."""
    return np.arange(size[0], dtype=np.float64)[:, None], np.arange(size[1], dtype=np.float64)[None]


def _side(size: Size) -> float:
    return float(size[0]) if size[0] == size[1] else math.sqrt(size[0] * size[1])


def _to_uint8(values: Array) -> Image:
    """Truncate, as the original. Its NaN become 0 on x86."""
    clipped = np.clip(values, 0, 255)
    return np.where(np.isnan(clipped), 0, clipped).astype(np.uint8)


def single_frequency_greyscale(image: Image, rng: Rng, intensity: float) -> Image:
    """Add one plane wave. Draws: two frequencies, their order, a phase."""
    rng, functions = _source(rng)
    first = rng.uniform(-np.pi, np.pi)
    second = rng.uniform(-abs(first), abs(first))
    across, down = np.array([first, second])[rng.permutation(2)]
    phase = rng.uniform(0, 2 * np.pi)
    rows, columns = _grid(image.shape[:2])
    wave = functions.sin(columns * across + rows * down + phase)
    return _to_uint8(image + (intensity * wave)[..., None])


def cocentric_sine_waves(image: Image, rng: Rng, intensity: float) -> Image:
    """Add rings whose radius oscillates. Draws: a centre, a frequency, an amplitude, a width."""
    rng, functions = _source(rng)
    size = image.shape[:2]
    side = _side(size)
    centre = rng.uniform(0, 1), rng.uniform(0, 1)
    frequency = rng.uniform(0, 10)
    amplitude, width = rng.uniform(0, side / 10), rng.uniform(0, side / 10)
    rows, columns = _grid(size)
    x, y = columns - centre[0] * size[1], rows - centre[1] * size[0]
    angles = functions.arctan2(x, y) * frequency
    distances = functions.hypot(x, y) + functions.sin(angles) * amplitude
    rings = (distances % width) / width - 0.5
    return _to_uint8(image + (intensity * rings)[..., None])


def plasma_noise(image: Image, rng: Rng, intensity: float) -> Image:
    """Blend with swirls of colour. Draws: a time, a number of steps, a growth, a scale."""
    rng, functions = _source(rng)
    time = rng.uniform(0, 6 * np.pi)
    steps = rng.randint(4, 7)
    growth = rng.uniform(0.5, 1)
    scale = rng.uniform(0.075, 0.2) * _side(image.shape[:2])
    rows, columns = _grid(image.shape[:2])
    x, y = np.broadcast_arrays(columns / scale, rows / scale)
    frequency = slowness = damping = 1.0
    for _ in range(steps):
        across = functions.cos(y * frequency + time / slowness) / damping
        down = functions.sin(x * frequency + time / slowness) / damping
        x, y = x + (across - down * 0.3), y + (down + across * 0.3)
        frequency, slowness, damping = (
            frequency * 1.93,
            slowness * 1.15,
            damping * (2.25 - growth),
        )
    wobble = functions.sin(np.array(time))
    waves = [x - time, (x + y + wobble) / 2, y + time]
    noise = np.stack([functions.sin(wave) for wave in waves], axis=-1)
    return _to_uint8((1 - intensity / 255) * image + intensity * noise)


def _star(
    size: Size, centre: Array, lengths: Array, exponent: float, functions: Arithmetic
) -> Array:
    """The weight of a star with a ray of each length, float64 (H, W) from 0 to 1."""
    rows, columns = _grid(size)
    y, x = rows - centre[0], columns - centre[1]
    count = len(lengths)
    places = (functions.arctan2(x, y) + np.pi) / (2 * np.pi) * count
    first = np.floor(places).astype(np.int64)
    between = places - first
    near, far = lengths[first % count], lengths[(first + 1) % count]
    reach = near + between * (far - near)
    glow = reach**2 / (y**2 + x**2 + 1e-4)
    if exponent != 1:
        glow = functions.power(glow, exponent)
    weights: Array = np.clip((1 - (between - 0.5) ** 2) * glow, 0, 1)
    return weights


def sparkles(image: Image, rng: Rng, radius: float) -> Image:
    """Draw five white stars. Draws: centres, numbers of rays, and normal lengths."""
    rng, functions = _source(rng)
    size = image.shape[:2]
    radius = radius * _side(size)
    centres = rng.uniform(0, 1, (5, 2)) * size
    child = _child(rng)
    counts = [rng.randint(50, 200) for _ in range(5)]
    rays = [
        np.maximum(1, radius + 0.25 * radius * _normals(child, count, functions))
        for count in counts
    ]
    values: Array = image
    for centre, lengths in zip(centres, rays, strict=True):
        weights = _star(size, centre, lengths, 1, functions)[..., None]
        values = values.astype(np.float32).astype(np.float64)
        values = values + weights * (255 - values)
    return _to_uint8(values)


def inverse_sparkles(image: Image, rng: Rng, exponent: float) -> Image:
    """Keep the image inside one star, on white. Draws: a centre, a number of rays, lengths."""
    rng, functions = _source(rng)
    size = image.shape[:2]
    centre = rng.uniform(0.25, 0.75, 2) * size
    child = _child(rng)
    count = rng.randint(50, 200)
    radius = 0.25 * _side(size)
    lengths = radius + 0.25 * radius * _normals(child, count, functions)
    weights = _star(size, centre, lengths, exponent, functions)[..., None]
    return _to_uint8(255 + weights * (image.astype(np.float64) - 255))


def _perlin_tables(rng: Twister, keeps_nan: bool) -> tuple[Array, Array]:
    """Draw the 256 gradients, float64 (256, 2), and the permutation, int64 (512,).

    The original draws 514 gradients and reads 256. A gradient (0, 0) becomes NaN there.
    """
    words = rng.randint(0, 2**32, 2 * 514 + 256, dtype=np.int64) & 0x7FFFFFFF
    gradients = (words[: 2 * 256].reshape(256, 2) % 512 - 256) / 256
    lengths = np.sqrt(gradients[:, 0] ** 2 + gradients[:, 1] ** 2)
    if not keeps_nan:
        lengths = np.where(lengths > 0, lengths, 1)
    with np.errstate(invalid="ignore"):
        gradients = gradients / lengths[:, None]
    table = list(range(256))
    for place, word in zip(range(255, -1, -1), words[2 * 514 :].tolist(), strict=True):
        table[place], table[word % 256] = table[word % 256], table[place]
    return gradients, np.array(table * 2)


def _perlin(rows: Array, columns: Array, gradients: Array, table: Array) -> Array:
    """Classic gradient noise (Perlin 1985) at rows (H, 1) and columns (1, W)."""
    cells, parts, eased = [], [], []
    for places in (rows, columns):
        shifted = places + 4096
        whole = shifted.astype(np.int64)
        part = shifted - whole
        cells.append(whole % 256)
        parts.append(part)
        eased.append(part * part * (3 - 2 * part))

    def corner(down: int, across: int) -> Array:
        index = table[table[(cells[0] + down) % 256] + (cells[1] + across) % 256]
        gradient = gradients[index]
        value: Array = gradient[..., 0] * (parts[0] - down) + gradient[..., 1] * (parts[1] - across)
        return value

    above_left, above_right = corner(0, 0), corner(0, 1)
    left = above_left + eased[0] * (corner(1, 0) - above_left)
    right = above_right + eased[0] * (corner(1, 1) - above_right)
    noise: Array = left + eased[1] * (right - left)
    return noise * 1.5


def perlin_noise(image: Image, rng: Rng, share: float) -> Image:
    """Blend with grey turbulence of five octaves. Draws: gradients and a permutation."""
    rng, functions = _source(rng)
    gradients, table = _perlin_tables(_child(rng), functions is EXACT)
    rows, columns = _grid(image.shape[:2])
    scale = 1 / (32 * _side(image.shape[:2]) / 224)
    turbulence = np.zeros(image.shape[:2])
    for octave in (1, 2, 4, 8, 16):
        noise = _perlin(rows * scale * octave, columns * scale * octave, gradients, table)
        turbulence += np.abs(noise) / octave
    grey = np.clip(0.5 * turbulence + 0.5, 0, 1)[..., None]
    return _to_uint8(np.float32(1 - share) * image.astype(np.float32) + 255 * share * grey)


def blue_noise_sample(image: Image, rng: Rng, threshold: float) -> Image:
    """Black out pixels where blue noise is low. Draws: one field of phases."""
    rng, functions = _source(rng)
    noise = spectral_noise(image.shape[:2], _child(rng), np.sqrt, functions is EXACT)
    return np.where((noise > threshold)[..., None], image, 0).astype(np.uint8)


def brownish_noise(image: Image, rng: Rng, intensity: float) -> Image:
    """Add smooth coloured noise. Draws: three fields of phases."""
    rng, functions = _source(rng)
    child = _child(rng)
    fields = [
        spectral_noise(image.shape[:2], child, lambda square: 1 / (square + 1), functions is EXACT)
        for _ in range(3)
    ]
    return _to_uint8(image + intensity * np.stack(fields, axis=-1))


def checkerboard_cutout(image: Image, rng: Rng, fraction: float) -> Image:
    """Turn some cells of a turned checkerboard grey. Draws: an angle, a size, the cells."""
    rng, functions = _source(rng)
    size = image.shape[:2]
    side = _side(size)
    angle = np.array(rng.uniform(0, 2 * np.pi))
    cell = max(rng.uniform(0.1, 0.25) * side, 1)
    child = _child(rng)
    count = int(4 * side // cell)
    grey = child.uniform(size=(count, count)) < fraction
    rows, columns = _grid(size)
    cosine, sine = functions.cos(angle), functions.sin(angle)
    first = (cosine * rows + sine * columns) / cell
    second = (-sine * rows + cosine * columns) / cell
    same = (first % 2).astype(np.int64) == (second % 2).astype(np.int64)
    chosen = grey[first.astype(np.int64) % count, second.astype(np.int64) % count]
    out = image.copy()
    out[same & chosen] = 128
    return out


def _caustics(size: Size, rng: Twister, functions: Arithmetic) -> tuple[Array, Array]:
    """Draw the light on the floor of a pool and return its slopes, down and across.

    Draws: a time and a scale.
    """
    time = rng.uniform(0.5, 2)
    scale = rng.uniform(0.75, 1.25) * _side(size)
    rows, columns = _grid(size)
    p, q = ((places / scale % 1) * 6.28318530718 - 250 for places in (rows, columns))
    down, across = np.broadcast_arrays(p, q)
    light = np.ones(size)
    for step in range(5):
        t = time * (1 - 3.5 / (step + 1))
        down, across = (
            p + (functions.cos(t - down) + functions.sin(t + across)),
            q + (functions.sin(t - across) + functions.cos(t + down)),
        )
        # a table's sine can be 0
        with np.errstate(divide="ignore"):
            first = p / (functions.sin(down + t) / 0.005)
            second = q / (functions.cos(across + t) / 0.005)
        light = light + 1 / np.sqrt(first**2 + second**2)
    bent = 1.17 - functions.power(light / 5, 1.4)
    field = np.clip(functions.power(np.abs(bent), 8), 0, 1)
    field = np.pad(gaussian_filter(field, 1.0, functions is EXACT, border="symmetric"), 1)
    return field[2:, 1:-1] - field[:-2, 1:-1], field[1:-1, 2:] - field[1:-1, :-2]


def _refraction(slopes: tuple[Array, Array], lens: float, exact: bool) -> tuple[Array, Array]:
    """The shift down and across, in pixels, where light is bent by a medium of index 4."""
    down, across = slopes
    steepness = down**2 + across**2
    cosine = 1 / np.sqrt(steepness + 1)
    if exact:
        theta = np.arccos(cosine)
        bend = np.sin(theta - np.arcsin(np.sin(theta) / 4))
        bent = np.cos(theta) < 0.999
    else:
        sine = np.sqrt(steepness) * cosine
        bend = sine * np.sqrt(1 - sine * sine / 16) - cosine * sine / 4
        bent = cosine < 0.999
    length = np.where(steepness > 0, np.sqrt(steepness), 1.0)
    shift = [np.where(bent, lens * bend * slope / length, 0.0) for slope in slopes]
    down, across = (np.rint(1000 * one) / 1000 for one in shift)
    return down, across


def _linear_taps(places: Array, size: int) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Index and float32 weight of both neighbours; 0 outside the image."""
    low = np.floor(places)
    taps = []
    for index, weight in ((low, (1 - places) + low), (low + 1, (1 - (low + 1)) + places)):
        inside = (index >= 0) & (index < size)
        taps.append(
            (
                np.clip(index, 0, size - 1).astype(np.int64),
                np.where(inside, weight, 0).astype(np.float32),
            )
        )
    return taps[0], taps[1]


def caustic_refraction(image: Image, rng: Rng, lens: float, light: float) -> Image:
    """Look through moving water. Draws: a time and a scale."""
    rng, functions = _source(rng)
    size = image.shape[:2]
    slopes = _caustics(size, rng, functions)
    down, across = _refraction(slopes, lens * _side(size), functions is EXACT)
    rows, columns = _grid(size)
    values = image.astype(np.float32) / np.float32(255)
    by_row, by_column = _linear_taps(rows + down, size[0]), _linear_taps(columns + across, size[1])
    mixed = []
    for row, _ in by_row:
        (left, near), (right, far) = by_column
        mixed.append(values[row, left] * near[..., None] + values[row, right] * far[..., None])
    values = mixed[0] * by_row[0][1][..., None] + mixed[1] * by_row[1][1][..., None]
    values = values + (-slopes[1] * light).astype(np.float32)[..., None]
    values = values + (slopes[0] * light).astype(np.float32)[..., None]
    return _to_uint8(np.clip(values, 0, 1).astype(np.float64) * 255)


def _caustic_displacement(size: Size, rng: Rng, lens: float, light: float) -> Array:
    rng, functions = _source(rng)
    slopes = _caustics(size, rng, functions)
    field = np.stack(_refraction(slopes, lens * _side(size), functions is EXACT), axis=-1)
    return field.astype(np.float32)


def _table(
    parameters: Callable[[float], Any], imagenet: Sequence[float], cifar: Sequence[float] = ()
) -> dict[str, Severities | None]:
    """Return the parameters of every regime from the magnitudes of the two files."""
    return {
        "imagenet": tuple(parameters(magnitude) for magnitude in imagenet),
        "cifar": tuple(parameters(magnitude) for magnitude in cifar) or None,
    }


# The magnitudes are those of imagenet_c_bar.csv and cifar10_c_bar.csv, lines 1-10; the formulas are
# those of corrupt.py and transform_finder.py.
C_BAR = {
    "blue_noise_sample": Corruption(
        blue_noise_sample,
        _table(lambda m: 3 * m / 10 - 2.5, (0.8, 1.6, 2.4, 4, 5.6), (0.7, 1.4, 2.1, 3.5, 4.2)),
    ),
    "plasma_noise": Corruption(
        plasma_noise, _table(lambda m: 64 * m / 10, (4.75, 7, 8.5, 9.25, 10))
    ),
    "checkerboard_cutout": Corruption(
        checkerboard_cutout, _table(lambda m: m / 10, (2, 3, 4, 5, 6), (1, 2, 3, 4, 5))
    ),
    "cocentric_sine_waves": Corruption(
        cocentric_sine_waves, _table(lambda m: 128 * m / 10, (3, 5, 8, 9, 10))
    ),
    "single_frequency_greyscale": Corruption(
        single_frequency_greyscale, _table(lambda m: 196 * m / 10, (1, 1.5, 2, 4.5, 5))
    ),
    "brownish_noise": Corruption(
        brownish_noise,
        _table(lambda m: 64 * m / 10, (1, 2, 3, 4, 5), (2.5, 4, 5.5, 6.5, 7)),
    ),
    "perlin_noise": Corruption(
        perlin_noise, _table(lambda m: 0.5 * m / 10, (4.6, 5.2, 5.8, 7.6, 8.8))
    ),
    "sparkles": Corruption(
        sparkles, _table(lambda m: 0.1 * m / 10, (1, 2, 3, 5, 6), (0.7, 3.5, 5.6, 6.3, 7))
    ),
    "inverse_sparkles": Corruption(
        inverse_sparkles,
        _table(lambda m: (100 - (100 - 65 * m / 10)) / 50, (1, 2, 4, 9, 10), (1, 1.5, 2.5, 4.5, 5)),
    ),
    "caustic_refraction": Corruption(
        caustic_refraction,
        _table(lambda m: (0.5 * m / 10, 2 * m / 10), (2.35, 3.2, 4.9, 6.6, 9.15)),
        displacement=_caustic_displacement,
    ),
}
