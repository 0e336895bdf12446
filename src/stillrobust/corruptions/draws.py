"""Sources of random numbers: the reference's generator for exact draws, a key for fast ones.

*Exact*: a ``np.random.RandomState`` over the Mersenne Twister. The functions below give the numbers
of its own methods and leave it in the same state. *Fast*: a :class:`Key` of eight words, from which
every pixel hashes its numbers.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from stillrobust.corruptions import elementary
from stillrobust.corruptions.compiled import Kernels
from stillrobust.errors import UserError
from stillrobust.samples import Array

streams = Kernels("streams")
# Up to this number, numpy's own normals take less time than reading and storing its state.
FEW_NORMALS = 12288


@dataclass(frozen=True)
class Key:
    """Eight 32-bit words: up to four streams, or single numbers."""

    words: tuple[int, ...]

    def stream(self, index: int) -> tuple[np.uint32, np.uint32]:
        """Return the two words that key stream ``index``, 0..3."""
        return np.uint32(self.words[2 * index]), np.uint32(self.words[2 * index + 1])

    def uniform(self, index: int, low: float, high: float) -> float:
        """Return one number in [low, high) from word ``index``, 0..7.

        The word must not belong to a stream that is also used.
        """
        return low + (high - low) * self.words[index] / 2**32


Rng = np.random.RandomState | Key


def image_key(seed: int, corruption: str, severity: int, image_id: str) -> Key:
    """Derive the key of one image under one corruption, by SHA-256.

    It is the same for every model, in any order, on any machine. If the id is a file name, bytes
    that are not UTF-8 count as they are.
    """
    digest = hashlib.sha256(
        f"{seed}/{corruption}/{severity}/{image_id}".encode("utf-8", "surrogateescape")
    ).digest()
    return Key(tuple(np.frombuffer(digest, "<u4").tolist()))


@contextmanager
def stream_of(rng: np.random.RandomState) -> Iterator[dict[str, Any]]:
    """Yield the Twister's state, which may be changed in place, and store it back.

    Raises:
        UserError: If the generator is not a Mersenne Twister.
    """
    state: dict[str, Any] = rng.get_state(legacy=False)
    if state["bit_generator"] != "MT19937":
        got = state["bit_generator"]
        raise UserError(
            f"Expected np.random.RandomState(SEED), over MT19937, but got one over {got}; pass a"
            " Generator instead"
        )
    yield state
    rng.set_state(state)


def uniforms(
    rng: np.random.RandomState, count: int, scale: float = 1.0, offset: float = 0.0
) -> Array:
    """Draw ``rng.random_sample(count) * scale + offset``: float64 (count,)."""
    out = np.empty(count)
    with stream_of(rng) as state:
        state["state"]["pos"] = streams.uniforms(
            state["state"]["key"], state["state"]["pos"], scale, offset, out
        )
    return out


def normals(rng: np.random.RandomState, count: int) -> Array:
    """Draw ``rng.standard_normal(count)``: float64 (count,)."""
    out = np.empty(count)
    with stream_of(rng) as state:
        _fill_normals(state, out)
    return out


def normal_parts(rng: np.random.RandomState, count: int) -> Iterator[tuple[slice, Array]]:
    """Draw the same numbers in parts that fit into the processor's cache.

    Yields:
        The place of each part and its numbers. All parts share one buffer.
    """
    if count <= FEW_NORMALS and str(rng).endswith("(MT19937)"):
        yield slice(0, count), rng.standard_normal(count)
        return
    memory = np.empty(min(count, 16384))
    with stream_of(rng) as state:
        for start in range(0, count, memory.size):
            part = memory[: count - start]
            _fill_normals(state, part)
            yield slice(start, start + part.size), part


def _fill_normals(state: dict[str, Any], out: Array) -> None:
    inner = state["state"]
    place, spare, has_spare = streams.normals(
        inner["key"], inner["pos"], state["gauss"], bool(state["has_gauss"]), out
    )
    inner["pos"], state["gauss"], state["has_gauss"] = place, spare, int(has_spare)


def integers(rng: np.random.RandomState, largest: int, count: int) -> Array:
    """Draw ``rng.randint(0, largest + 1, count)``, ``largest`` below 256: uint8 (count,)."""
    out = np.empty(count, np.uint8)
    with stream_of(rng) as state:
        state["state"]["pos"] = streams.bounded(
            state["state"]["key"], state["state"]["pos"], largest, out
        )
    return out


@lru_cache(maxsize=1)
def quantiles() -> Array:
    """Return the standard normal's quantiles at (i + 1/2) / 65536: float64 (65536,), -4.2..4.2."""
    lower = elementary.normal_quantiles((np.arange(32768) + 0.5) / 65536)
    return np.concatenate([lower, -lower[::-1]])
