"""What a model returns is copied, converted and validated once: a number or one sentence."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stillrobust.errors import UserError
from stillrobust.evaluation import Protocol, evaluate
from stillrobust.predictors import Predictor, validated_predictor
from stillrobust.predictors.validation import FIELDS
from stillrobust.samples import Prediction
from stillrobust.storage.store import Store
from tests.toys import Toys

SIZE = (6, 8)
IMAGE = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(*SIZE, 3)
BOXES = [[1, 2, 5, 6], [0, 0, 8, 6]]
FULL = {
    "probabilities": [0.25, 0.75],
    "boxes": BOXES,
    "labels": [1, 0],
    "scores": [0.5, 0.25],
    "masks": np.eye(6, 8)[None].repeat(2, 0).tolist(),
    "label_map": np.eye(6, 8).tolist(),
    "confidence": np.full(SIZE, 0.5).tolist(),
}
DTYPES = {"labels": np.int64, "masks": np.bool_, "label_map": np.uint8}


def validated(prediction, task, images=1):
    predictor = Predictor(task, "mine", lambda images: [prediction] * len(images), "0")
    return validated_predictor(predictor, 2, True)([IMAGE] * images, ["a.png"] * images)[0]


def integral(name):
    return name in DTYPES


@pytest.mark.parametrize("task", FIELDS)
@pytest.mark.parametrize(
    "convert",
    [
        lambda name, value: value,
        lambda name, value: tuple(value),
        lambda name, value: np.array(value),
        lambda name, value: np.asfortranarray(np.array(value, np.float32)),
        lambda name, value: np.array(value, ">f8"),
        lambda name, value: np.array(value, np.longdouble),
        lambda name, value: np.array(value, np.int16 if integral(name) else np.float16),
        lambda name, value: [np.array(row) for row in value],
        lambda name, value: torch.tensor(value),
        lambda name, value: torch.tensor(value, dtype=torch.float64, requires_grad=True) * 1,
        lambda name, value: torch.tensor(value, dtype=torch.bfloat16),
        lambda name, value: torch.tensor(value).to_sparse(),
        lambda name, value: list(torch.tensor(value)),
        lambda name, value: torch.stack([torch.tensor(value)] * 2, -1)[..., 0],
    ],
)
def test_arrays_tensors_and_lists_are_equal(task, convert):
    """Every value is exact in every type, so all of them give the same plain arrays."""
    given_ = Prediction(**{name: convert(name, FULL[name]) for name in FIELDS[task]})
    found = validated(given_, task)
    for name in FIELDS[task]:
        value = getattr(found, name)
        assert type(value) is np.ndarray, name
        assert value.flags.c_contiguous, name
        assert value.flags.owndata or value.base is not getattr(given_, name)
        assert value.dtype == DTYPES.get(name, value.dtype), name
        assert value.dtype.isnative, name
        assert value.tolist() == np.array(FULL[name], value.dtype).tolist(), name


@pytest.mark.parametrize("nothing", [[], np.zeros((0, 4)), torch.zeros(0, 4)])
def test_nothing_found_is_a_prediction(nothing):
    found = validated(Prediction(boxes=nothing, labels=[], scores=[], masks=[]), "detection")
    assert found.boxes.shape == (0, 4)
    assert found.masks.shape == (0, *SIZE)


@pytest.mark.parametrize(
    ("task", "fields", "message"),
    [
        ("segmentation", {"label_map": np.ma.masked_equal(np.eye(6, 8), 1)}, "masked array"),
        ("segmentation", {"label_map": list(np.ma.masked_equal(np.eye(6, 8), 1))}, "masked array"),
        ("segmentation", {"label_map": np.zeros((1, 6, 8), int)}, r"int64 \(1, 6, 8\)"),
        ("segmentation", {"label_map": np.full(SIZE, -1)}, "from -1 to -1"),
        ("segmentation", {"label_map": np.full(SIZE, np.nan)}, "NaN"),
        ("segmentation", {"label_map": np.zeros(SIZE), "confidence": np.full(SIZE, 91)}, "91"),
        ("classification", {"probabilities": np.array([1 + 0j, 0])}, "complex128"),
        ("classification", {"probabilities": torch.tensor([1 + 0j, 0])}, "complex64"),
        ("classification", {"probabilities": np.array([0.5, None])}, "object"),
        ("classification", {"probabilities": ["0.5", "0.5"]}, "got str"),
        ("classification", {"probabilities": [[0.5], [0.2, 0.3]]}, "cannot be converted"),
        ("classification", {"probabilities": [2**70, 0]}, "object"),
        ("classification", {"probabilities": np.longdouble(10) ** [400, 0]}, "inf"),
        ("classification", {"probabilities": torch.zeros(2, device="meta")}, "cannot be converted"),
        ("classification", {"probabilities": [1.5, -0.5]}, "-0.5"),
        ("detection", {"masks": np.full((2, *SIZE), 0.7)}, "apply a threshold"),
        ("detection", {"labels": [1e30, 0]}, "1e"),
        ("detection", {"labels": np.array([2**64 - 1, 0], np.uint64)}, "integer labels"),
        ("detection", {"labels": 1}, r"int64 \(\)"),
        ("detection", {"boxes": 1}, r"int64 \(\)"),
        ("detection", {"labels": [[1, 0]], "scores": [[0.5, 0.2]]}, r"\(1, 2\)"),
    ],
)
def test_what_is_refused(task, fields, message):
    plain = {name: FULL[name] for name in FIELDS[task]}
    with pytest.raises(UserError, match=message) as caught:
        validated(Prediction(**{**plain, **fields}), task)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["array", "tensor", "list"])
def test_a_model_that_reuses_its_output_buffer_gets_the_right_score(tmp_path, kind):
    """Also within a batch, where all predictions hold the last image's label map."""
    data = Toys("segmentation", 6)
    buffers = {}

    def threshold(image):
        return (image[..., 0] > 128).astype(np.int64)

    def reuse(image):
        found = threshold(image)
        made = {"array": found, "tensor": torch.from_numpy(found), "list": found.tolist()}[kind]
        buffer = buffers.setdefault(image.shape, made)
        buffer[:] = made
        return buffer

    few = Protocol(("fog",), (2, 3), batch_size=4, examples=2)
    scores = {}
    for name, label_map in (("fresh", threshold), ("reused", reuse)):

        def predict(images, label_map=label_map):
            return [Prediction(label_map=label_map(image)) for image in images]

        evaluate(Predictor("segmentation", name, predict, name), data, tmp_path, few)
        scores[name] = [one.value for one in Store(tmp_path).measurements(name)]
    assert scores["fresh"] == scores["reused"]
    assert len(set(scores["fresh"])) > 1


def test_a_model_may_write_into_its_images():
    def predict(images):
        for image in images:
            image[:] = 0
        return [Prediction(probabilities=[0.5, 0.5]) for _ in images]

    image = IMAGE.copy()
    image.flags.writeable = False  # as images from a cache are
    predictor = Predictor("classification", "m", predict, "0")
    validated_predictor(predictor, 2, True)([image], ["a"])
    assert np.array_equal(image, IMAGE)


class Hostile:
    """An object whose every use fails."""

    def _fail(self, *_):
        raise OSError("line one\nline two")

    __array__ = __len__ = __iter__ = __getitem__ = __bool__ = __str__ = __repr__ = __eq__ = _fail
    __hash__ = None


class SilentError(Exception):
    def __str__(self):
        raise RuntimeError


ITSELF: list = []
ITSELF.append(ITSELF)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.builds(Hostile),
    st.sampled_from(
        [np.ma.masked, np.datetime64("NaT"), ITSELF, range(10**12), object, Prediction]
    ),
    arrays.arrays(arrays.scalar_dtypes(), arrays.array_shapes(min_dims=0, max_side=8)),
    arrays.arrays(np.float32, st.sampled_from([(2,), (2, 4), SIZE, (2, *SIZE)])),
    arrays.arrays(np.int64, st.sampled_from([(2,), SIZE]), elements=st.integers(-1, 3)),
    st.sampled_from([torch.zeros(2), torch.eye(6, 8), torch.zeros(2, device="meta")]),
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=2), inner, max_size=2),
        st.builds(Prediction, **dict.fromkeys(FULL, inner)),
    ),
    max_leaves=4,
)


@given(task=st.sampled_from(sorted(FIELDS)), answer=ANYTHING, fields=st.data())
@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_object_is_a_prediction_or_one_sentence(task, answer, fields):
    chosen = {
        name: fields.draw(st.one_of(st.just(FULL[name]), ANYTHING), label=name)
        for name in FIELDS[task]
    }
    for returned in (answer, [answer, answer], [Prediction(**chosen)] * 2):
        predictor = Predictor(task, "mine", lambda images, made=returned: made, "0")
        sentence, found = "", []
        try:
            found = validated_predictor(predictor, 2, True)([IMAGE, IMAGE], ["a", "b"])
        except UserError as error:
            sentence = str(error)
        assert bool(sentence) != bool(found)
        assert "\n" not in sentence
        for one in found:
            assert type(one) is Prediction
            for name in FIELDS[task]:
                value = getattr(one, name)
                assert value is None or np.isfinite(value).all()


def test_an_exception_without_a_message_is_one_sentence():
    def predict(images):
        raise SilentError

    with pytest.raises(UserError, match="SilentError: without a message"):
        validated_predictor(Predictor("classification", "m", predict, "0"), 2, True)([IMAGE], ["a"])


class Endless(list):
    def __iter__(self):
        while True:
            yield self[0]


class Cancelled(BaseException):
    """As asyncio's, no ``Exception``."""


def cancel(images):
    raise Cancelled


def view(*shape):
    return np.broadcast_to(np.float32(1), shape)


@pytest.mark.parametrize(
    ("task", "predict", "message"),
    [
        ("classification", lambda images: Endless([Prediction()]), "got more than 1"),
        ("classification", cancel, "Cancelled"),
        ("classification", lambda images: [Prediction(probabilities=view(1 << 40))], "fewer"),
        ("detection", lambda images: [Prediction(boxes=view(1 << 38, 4))], "fewer"),
        (
            "segmentation",
            lambda images: [Prediction(label_map=torch.ones(1).expand(1 << 40))],
            "fewer",
        ),
    ],
)
def test_what_never_ends_or_fills_the_memory(task, predict, message):
    with pytest.raises(UserError, match=message):
        validated_predictor(Predictor(task, "m", predict, "0"), 2, True)([IMAGE], ["a"])
