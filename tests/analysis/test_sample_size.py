import pytest

from stillrobust.analysis.sample_size import sample_size_warnings


@pytest.mark.parametrize(
    ("images", "per_class", "found"),
    [
        (30, (), []),
        (29, (), ["Only 29 images"]),
        (2000, (9, 10, 10, 10), []),  # a quarter of the classes is not too many
        (2000, (9, 9, 10, 10), ["2 of 4 classes occur in fewer than 10 images"]),
        (2000, (0, 0, 0, 10, 10), []),  # absent classes count nowhere
        (20, (3, 3), ["Only 20 images", "2 of 2 classes"]),
    ],
)
def test_warnings(images, per_class, found):
    told = sample_size_warnings(images, per_class)
    assert len(told) == len(found)
    for sentence, start in zip(told, found, strict=True):
        assert sentence.startswith(start)
