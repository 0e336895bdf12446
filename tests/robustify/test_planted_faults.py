"""The tests of robustification see what they are for: a fault planted in a copy of the sources
fails the test that is named.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


# (source under src/stillrobust, tests): what stands there once, what is planted in its place, the
# test that must fail.
PLANTED = {
    ("robustify/prime", "robustify/test_prime.py"): [
        (
            '"strength": 0.05',
            '"strength": 0.03',
            "test_hyper_parameters_are_those_of_the_official_configurations",
        ),
        (
            'if mix == "dirichlet":',
            "if False:",
            "test_mix_of_the_paper_has_the_identity_among_its_steps",
        ),
        ("lengths <= step", "lengths < step", "test_depth_of_a_chain"),
    ],
    ("robustify/prime_primitives", "robustify/test_prime.py"): [
        ("FILTER_STD = 4.0", "FILTER_STD = 3.2", "test_filter_has_a_strength_of_0_to_4"),
        (
            'if delta == "official"',
            'if delta == "center"',
            "test_filter_without_noise_is_a_shift_or_nothing",
        ),
        (
            "= kernels.to(",
            "= (0.95 * kernels).to(",
            "test_filter_passes_white_noise_with_the_power_of_its_kernel",
        ),
        (
            "first.double()[:, None]",
            "(first + 1).double()[:, None]",
            "test_colour_has_the_variance_of_its_formula",
        ),
        ("highest + 0.5)", "highest)", "test_displacement_is_its_sum"),
        (
            "axis - displacements[:, 0]",
            "axis + displacements[:, 0]",
            "test_warp_is_bilinear_and_keeps_what_is_constant",
        ),
    ],
    ("robustify/augmix", "robustify/test_augmix.py"): [
        ("LOWEST = 0.1", "LOWEST = 0.0", "test_parameters_at_the_papers_severities"),
        (
            "np.less(VALUES",
            "np.less_equal(VALUES",
            "test_operations_are_pillows_to_the_bit[solarize]",
        ),
        ("integers(1, DEEPEST + 1)", "integers(1, DEEPEST)", "test_weights_and_depths"),
        (
            "(1 - mixture.mixed) / 255",
            "mixture.mixed / 255",
            "test_the_clean_image_has_the_rest_of_the_weight",
        ),
    ],
    ("robustify/jsd", "robustify/test_augmix.py"): [
        ("WEIGHT = 12.0", "WEIGHT = 6.0", "test_loss_is_timms"),
        (
            "cross_entropy(logits[0]",
            "cross_entropy(logits[1]",
            "test_only_the_clean_view_meets_the_labels",
        ),
    ],
    ("robustify/ant", "robustify/test_ant.py"): [
        (
            "STORED_GENERATORS = 0.3, 0.1, 2",
            "STORED_GENERATORS = 0.3, 0.1, 4",
            "test_parts_of_the_batch",
        ),
        ("FRESH_LR, LR = 5e-4, 1e-4", "FRESH_LR, LR = 1e-4, 5e-4", "test_rates_of_the_generator"),
        ("* noise).clamp(0, 1)", "* noise)", "test_the_clipped_norm_is_epsilon"),
        (
            "* 0.01",
            "* 0.2",
            "test_generator_begins_as_white_noise",
        ),
    ],
    ("robustify/noise", "robustify/test_noise_training.py"): [
        ("noise.add_(noisy).clamp_(0, 1)", "noise.add_(noisy)", "test_values_are_clipped"),
        (
            "noise.mul_(noisy)",
            "noise.mul_(noisy.square())",
            "test_speckle_is_proportional_to_the_pixel",
        ),
    ],
    ("robustify/noise2net", "robustify/test_noise2net.py"): [
        (
            "[changed, images[count:]]",
            "[images[count:], changed]",
            "test_only_the_first_half_changes",
        ),
    ],
    ("robustify/adversarial", "robustify/test_adversarial.py"): [
        ("dim=(1, 2, 3)", "dim=(2, 3)", "test_equals_foolbox"),
        ("+ 1e-10)", "+ 1e-2)", "test_the_scale_of_the_loss_does_not_matter"),
        (
            "project_to_ball(moved, epsilon)).clamp(0, 1)",
            "project_to_ball(moved, epsilon))",
            "test_stays_in_ball_and_box",
        ),
    ],
    ("robustify/deepaugment/random_tensors", "robustify/test_deepaugment.py"): [
        ("rng.integers(1, 4)", "rng.integers(1, 3)", "test_draws")
    ],
    ("robustify/deepaugment/edsr", "robustify/test_deepaugment.py"): [
        (
            "(2, 3) if rng.random() < 0.5 else (0, 1)",
            "(2, 3)",
            "test_edsr_turns_kernels_or_channels",
        ),
        (
            "state[tensor_name(block, 0)].flip(-1)",
            "state[tensor_name(block, 0)].flip(-2)",
            "test_edsr_weights_closed_forms",
        ),
    ],
    ("robustify/deepaugment/cae", "robustify/test_deepaugment_cae.py"): [
        ("-functional.gelu(values)", "-functional.relu(values)", "test_cae_negative_gelu"),
        (
            "quarter_turns(state[name], rng)",
            "state[name].transpose(2, 3)",
            "test_cae_turns_kernels",
        ),
    ],
    ("tasks/recipes", "tasks/test_recipes.py"): [
        (
            'imagenet.py: from random weights", **_steps(90, 30)',
            'imagenet.py: from random weights", **_steps(90, 50)',
            "test_upstream_recipes_are_the_official_ones",
        ),
    ],
}
FAULTS = [
    (source, right, wrong, f"tests/{file}::{test}")
    for (source, file), faults in PLANTED.items()
    for right, wrong, test in faults
]


def outcome(source: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """The tests in a process of its own that imports the package from ``source``."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", *tests]
    given = os.environ | {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, check=False)


def test_without_a_fault_they_pass():
    result = outcome(ROOT / "src", *dict.fromkeys(test for *_, test in FAULTS))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("source", "right", "wrong", "test"),
    FAULTS,
    ids=[f"{Path(one[0]).name}: {one[2]}" for one in FAULTS],
)
def test_a_planted_fault_is_seen(source, right, wrong, test, tmp_path):
    shutil.copytree(
        ROOT / "src" / "stillrobust",
        tmp_path / "stillrobust",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    path = (tmp_path / "stillrobust" / source).with_suffix(".py")
    text = path.read_text()
    assert text.count(right) == 1, (
        f"{source} no longer has {right!r} once; plant the fault where it is now"
    )
    path.write_text(text.replace(right, wrong))
    result = outcome(tmp_path, test)
    # 0: nothing was seen; above 1: the tests could not be run
    assert result.returncode == 1, result.stdout
    assert f"FAILED {test}" in result.stdout, result.stdout
