"""The same pixels on every processor: fast draws against stored digests, exact ones against the
reference.

numpy, OpenCV and numba choose their code by what the processor can do. Each process here runs
without some of that.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.corruptions.pixel_digests import digests, picture

HERE = Path(__file__).parent
DIGESTS = HERE.parent / "fixtures" / "pixel_digests.json"
"""Written by ``python tests/corruptions/pixel_digests.py >
tests/fixtures/pixel_digests.json``, with a higher ``VERSION``.
"""

OPENCV = {"OPENCV_CPU_DISABLE": "AVX,AVX2,FMA3,FP16,AVX512-SKX", "OPENCV_IPP": "disabled"}


def run(arguments, environment):
    plain = {
        key: value
        for key, value in os.environ.items()
        if key not in {"NPY_DISABLE_CPU_FEATURES", *OPENCV}
    }
    path = os.pathsep.join([str(HERE.parents[1] / "src"), str(HERE.parents[1])])
    environment = {**plain, **environment, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def numpys_features():
    """What numpy has more than one code for, and this processor can do.

    A process of its own tells, because the variables may disable some of it in this one.
    """
    code = (
        "from numpy._core import _multiarray_umath as n;"
        "print(*(name for name in n.__cpu_dispatch__ if n.__cpu_features__.get(name)))"
    )
    return run(["-c", code], {}).split()


def without(*features):
    return {"NPY_DISABLE_CPU_FEATURES": " ".join(features)} if features else {}


def avx512(names):
    return [name for name in names if "512" in name or name == "X86_V4"]


PROCESSORS = {
    "numpy without AVX-512": without(*avx512(numpys_features())),
    "numpy at its plainest": without(*numpys_features()),
    "OpenCV at its plainest": OPENCV,
    "all at their plainest": {**without(*numpys_features()), **OPENCV},
}


def unlike(found):
    expected = json.loads(DIGESTS.read_text())
    assert len(found) == len(expected)
    return [case for case in expected if found[case] != expected[case]]


def test_fast_draws_here():
    assert unlike(digests()) == []


@pytest.mark.parametrize("processor", PROCESSORS)
def test_fast_draws_on_another_processor(processor):
    assert unlike(json.loads(run([str(HERE / "pixel_digests.py")], PROCESSORS[processor]))) == []


@pytest.mark.slow
def test_fast_draws_from_kernels_compiled_for_any_processor(tmp_path):
    """Everything compiled without vectors wider than SSE2's, and no libraries' code for this
    processor.
    """
    plainest = {
        **PROCESSORS["all at their plainest"],
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
    }
    found = json.loads(
        run([str(HERE / "pixel_digests.py")], {**plainest, "NUMBA_CACHE_DIR": str(tmp_path)})
    )
    assert unlike(found) == []


def test_exact_draws_follow_the_reference_on_another_processor():
    """The reference's own pixels change there; ours change with them."""
    pytest.importorskip("imagecorruptions.corruptions")
    arguments = [
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-n",
        "0",
        "-k",
        "every_pixel",
        str(HERE / "test_corruption_parity.py"),
    ]
    assert " passed" in run(arguments, PROCESSORS["all at their plainest"])


def test_the_tests_above_see_a_library_that_depends_on_the_processor():
    """cv2.resize in the frost of exact draws, or numpy's exp, would do; where both are alike
    everywhere nothing can be seen.
    """
    code = (
        "import numpy as np, hashlib;x = np.linspace(-20, 20,"
        " 100001);print(hashlib.sha256(b''.join(f(x).tobytes() for f in (np.exp, np.sin, np.cos,"
        " np.tan))).hexdigest())"
    )
    if not avx512(numpys_features()):
        pytest.skip("this processor has no AVX-512, whose code in numpy has other last bits")
    assert run(["-c", code], {}) != run(["-c", code], PROCESSORS["numpy at its plainest"])


def test_pictures_hold_what_decides():
    """Flat areas, ramps and noise: the digests would see a change of rounding."""
    image = picture(224, 224)
    assert len(np.unique(image)) > 200
    alike = cv2.erode(image, np.ones((9, 9))) == cv2.dilate(image, np.ones((9, 9)))
    assert 0.02 < alike.mean() < 0.5
