import pytest

from stillrobust.errors import UserError
from stillrobust.names import format_count, format_spec, lookup, parse_spec


def test_lookup_says_what_was_meant():
    with pytest.raises(
        UserError, match=r"Unknown corruption 'gausian_noise'\. Did you mean: gaussian_noise\?"
    ):
        lookup("corruption", "gausian_noise", {"gaussian_noise": 1, "fog": 2})
    assert lookup("corruption", "fog", {"fog": 2}) == 2


def test_specs_go_there_and_back():
    assert parse_spec("resnet50") == ("resnet50", {})
    assert parse_spec("resnet50(weights='a b', depth=3)") == (
        "resnet50",
        {"weights": "a b", "depth": 3},
    )
    assert format_spec(*parse_spec("x(b=1, a='q')")) == "x(a='q', b=1)"


@pytest.mark.parametrize(
    "spec",
    [
        "a(__import__('os'))",
        "a(b=open('x'))",
        "a(b",
        "a(**{})",
        "a(b=1).c",
        "a(b=[x])",
        "a(b=1, b=2)",
        "a(b=1)(c=2)",
    ],
)
def test_specs_are_never_evaluated(spec):
    with pytest.raises(UserError, match="spec"):
        parse_spec(spec)


def test_counts_have_the_right_noun():
    found = [format_count(number, "image") for number in (0, 1, 2, 5000)]
    assert found == ["0 images", "1 image", "2 images", "5,000 images"]
    assert [format_count(2, noun) for noun in ("box", "class", "batch")] == [
        "2 boxes",
        "2 classes",
        "2 batches",
    ]
