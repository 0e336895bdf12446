"""The layout table of CONTRIBUTING.md is true: arrows point up in it, there are no cycles, and no
import loads torch.
"""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import stillrobust

SOURCE = Path(stillrobust.__file__).parent
TABLE = SOURCE.parents[1] / "CONTRIBUTING.md"
LINES = 500  # of a file
MODULES = 9  # at the top level, outside packages


def layout() -> list[list[str]]:
    """What the rows of the table name, in their order."""
    text = TABLE.read_text(encoding="utf-8").partition("## Layout")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ((?:`\w+(?:\.py|/)` ?)+)\|.*\| (?:no|on use) \|$", text, re.MULTILINE)
    return [re.findall(r"`(\w+)", names) for names in rows]


ORDER = {name: row for row, names in enumerate(layout()) for name in names}
DOORS = ("stillrobust", "stillrobust.__main__")  # import anything, lazily


def modules(source: Path) -> dict[str, Path]:
    """Module -> its file; a package is its ``__init__``."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = ["stillrobust", *path.relative_to(source).with_suffix("").parts]
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of ours that a file imports anywhere: at its top, in functions, for the type
    checker alone.
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relative to itself"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in known else str(node.module) for name in names}
    return {name for name in found if name.partition(".")[0] == "stillrobust"}


def package(module: str) -> str:
    return module.split(".")[1]


def wrong_arrows(source: Path) -> list[str]:
    """Imports of what stands further down in the table."""
    known = modules(source)
    return [
        f"{module} imports {target}"
        for module, path in known.items()
        if module not in DOORS
        for target in sorted(imports(path, known) - {"stillrobust"})
        if ORDER[package(target)] > ORDER[package(module)]
    ]


def cycles(source: Path) -> list[list[str]]:
    """Groups of modules that import each other, directly or by way of others."""
    known = modules(source)
    arrows = {module: imports(path, known) - {module} for module, path in known.items()}
    for module, targets in arrows.items():
        # a module runs the __init__ of the packages that it is in, unless we are in them too
        for target in list(targets):
            parents = {target.rsplit(".", depth)[0] for depth in range(1, target.count("."))}
            targets |= {parent for parent in parents if not module.startswith(f"{parent}.")} - {
                module
            }
    reached = {module: reachable(module, arrows) for module in arrows}
    groups = {
        tuple(sorted({module} | {one for one in found if module in reached[one]}))
        for module, found in reached.items()
    }
    return [list(group) for group in sorted(groups) if len(group) > 1]


def reachable(module: str, arrows: dict[str, set[str]]) -> set[str]:
    found, left = set(), [module]
    while left:
        new = arrows[left.pop()] - found
        found |= new
        left += new
    return found


def test_arrows_point_up_in_the_table():
    assert not wrong_arrows(SOURCE)


def test_there_are_no_cycles():
    assert not cycles(SOURCE)


def test_the_table_is_complete():
    names = {
        path.name.removesuffix(".py")
        for path in SOURCE.iterdir()
        if not path.name.startswith("__") and path.name != "py.typed"
    }
    assert names == set(ORDER)


def test_few_modules_are_outside_packages():
    assert len(list(SOURCE.glob("*.py"))) <= MODULES


def test_files_are_short():
    assert not [
        path
        for path in modules(SOURCE).values()
        if len(path.read_text(encoding="utf-8").splitlines()) > LINES
    ]


def test_robustify_never_sees_the_test():
    known = modules(SOURCE)
    for path in (SOURCE / "robustify").rglob("*.py"):
        assert not any(
            f"{name}.".startswith("stillrobust.corruptions.") for name in imports(path, known)
        ), path


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("metrics/recompute.py", "def later():\n    from stillrobust.training import Plan"),
        ("grid.py", "if TYPE_CHECKING:\n    import stillrobust.cli.study"),
        ("robustify/ant.py", "from stillrobust import tasks"),
        # within a package, and fine
        ("corruptions/__init__.py", "from stillrobust.corruptions.compiled import Kernels"),
    ],
)
def test_an_arrow_that_points_down_is_found(file, line, tmp_path):
    copied(tmp_path, file, line)
    assert len(wrong_arrows(tmp_path)) == (file != "corruptions/__init__.py")


@pytest.mark.parametrize(
    ("file", "line"),
    [
        (
            "metrics/image_ids.py",
            "def later():\n    from stillrobust.metrics.detection import AveragePrecision",
        ),
        (
            "data/formats/masks.py",
            "if TYPE_CHECKING:\n    from stillrobust.data import open_dataset",
        ),
    ],
)
def test_a_cycle_is_found(file, line, tmp_path):
    copied(tmp_path, file, line)
    assert any(
        "stillrobust." + file.removesuffix(".py").replace("/", ".") in group
        for group in cycles(tmp_path)
    )


def copied(folder: Path, changed: str, line: str) -> None:
    """The sources, with a line more at the end of one of them."""
    for path in modules(SOURCE).values():
        target = folder / path.relative_to(SOURCE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(
            path.read_text(encoding="utf-8")
            + (f"\n{line}\n" if target == folder / changed else ""),
            encoding="utf-8",
        )


@pytest.mark.parametrize("name", sorted({*ORDER} - {"studies", "importers"}))
def test_no_import_of_a_package_loads_torch(name):
    code = f"import sys, stillrobust.{name}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["backbones", "robustify", "tasks", "training"])
def test_every_export_exists(name):
    package = importlib.import_module(f"stillrobust.{name}")
    for export in package.__all__:
        assert getattr(package, export) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = package.nothing


def test_corruptions_import_without_their_compiler():
    """numba loads slower than all the rest: it is loaded by the first corruption, not by the
    import.
    """
    code = (
        "import sys, stillrobust.corruptions; assert not {'numba', 'torch', 'scipy'} &"
        " set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
