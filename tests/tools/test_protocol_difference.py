import subprocess
import sys

import numpy as np
import pytest
from PIL import Image as Pillow

from stillrobust.errors import UserError
from stillrobust.tools.protocol_difference import compare_protocols, parse_protocol, read_sample


def photo(index=0):
    return np.random.RandomState(index).randint(0, 256, (40, 50, 3)).astype(np.uint8)


def test_protocols_are_read_strictly():
    assert parse_protocol("draws=exact, channel_order=bgr,seed=3") == {
        "draws": "exact",
        "channel_order": "bgr",
        "seed": 3,
    }
    assert parse_protocol("") == {}
    for text, message in (
        ("draws", "KEY=VALUE"),
        ("draws=exct", "exact"),
        ("rgime=cifar", "regime"),
        ("seed=-1", "whole number"),
        ("seed=²", "whole number"),
    ):
        with pytest.raises(UserError, match=message):
            parse_protocol(text)


def test_differences_by_hand():
    rows = {
        row.corruption: row
        for row in compare_protocols({"a": photo()}, {}, {"regime": "imagenet-c"}, [3])
    }
    assert rows["elastic_transform"].mean > 0
    assert all(
        row.largest == 0
        for name, row in rows.items()
        if name not in {"elastic_transform", "pixelate"}
    )
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 255
    rows = {
        row.corruption: row
        for row in compare_protocols(
            {"a": red}, {"channel_order": "rgb"}, {"channel_order": "bgr"}, [1, 5]
        )
    }
    assert rows["contrast"].mean == 0
    assert rows["snow"].mean > 0  # grey is 0.299 of red, 0.114 of blue


def test_the_command_shows_it(tmp_path):
    for index in range(3):
        Pillow.fromarray(photo(index)).save(tmp_path / f"{index}.png")
    assert list(read_sample(tmp_path, 2)) == ["0.png", "1.png"]
    command = [
        sys.executable,
        "-m",
        "stillrobust",
        "corruptions",
        "difference",
        str(tmp_path),
        "--first",
        "",
        "--second",
        "channel_order=bgr",
    ]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "jpeg_compression" in shown.stdout
    refused = subprocess.run(
        [*command[:4], str(tmp_path / "nowhere"), *command[5:]], capture_output=True, text=True
    )
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
