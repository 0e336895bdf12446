"""A module imports only from its own family and from lower floors; the report never loads torch."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import stillrobust

SOURCE = Path(stillrobust.__file__).parent
FLOORS = {
    "errors": 0, "names": 0, "samples": 0, "store": 0, "robustness": 0, "intervals": 0, "budget": 0, "reference": 0, "progress": 0,
    "downloads": 0, "capacity": 0, "forecast": 0, "listing": 0, "run_log": 0, "scalars": 0, "leases": 0, "own_files": 0,
    "technique_specs": 0, "plain_yaml": 0,
    "corruptions": 1, "metrics": 1, "backbones": 1,
    "data": 2, "resampling": 2, "estimates": 3, "breakdown": 3, "protocol_difference": 2, "robustify": 2, "conformance": 2,
    "others": 2,
    "tasks": 3,
    "launching": 4, "together": 4, "examples": 4, "at_work": 4, "batches": 4, "optimisation": 4, "run_files": 4, "watching": 4,
    "training": 4, "robustifying": 4, "predictors": 4, "loading": 4, "evaluation": 4,
    "execution": 5, "corrupted_sets": 5, "deepaugmented_sets": 5, "study": 5, "paper": 5, "doctor": 5,
    "report": 6,
    "cli": 7, "__main__": 8,
}  # fmt: skip
FLOORS |= {path.stem: 7 for path in SOURCE.glob("cli_*.py")}
LINES = 400


def room(module: str) -> str:
    return [*module.split("."), ""][1]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("stillrobust"):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("stillrobust")}
    return {name for name in found if room(name) in FLOORS}


def files() -> list[Path]:
    return [path for path in sorted(SOURCE.rglob("*.py")) if path != SOURCE / "__init__.py"]


def test_arrows_point_down():
    wrong = []
    for path in files():
        own = path.relative_to(SOURCE).with_suffix("").parts[0]
        for name in imports(path):
            target = room(name)
            # training and evaluation share a floor: a family of single files, whose order is that of their names' story
            if target != own and (
                FLOORS[target] > FLOORS[own]
                or (FLOORS[target] == FLOORS[own] and {own, target} & {"corruptions", "metrics", "backbones"})
            ):
                wrong.append(f"{path.relative_to(SOURCE)} imports {name}")
    assert not wrong


def test_the_readmes_map_is_complete_and_in_the_order_of_the_floors():
    text = (SOURCE.parents[1] / "README.md").read_text()
    rows = re.findall(r"^\| (\d) \| (.+?) \|", text, re.MULTILINE)
    assert [floor for floor, _ in rows] == sorted(floor for floor, _ in rows)
    shown = {name: int(floor) for floor, names in rows for name in re.findall(r"`(\w+)(?:\.py|/)`", names)}
    rooms = {name: floor for name, floor in FLOORS.items() if not name.startswith(("cli_", "__"))}
    assert shown == rooms | {"studies": FLOORS["study"]}


def test_robustify_never_sees_the_test():
    for path in (SOURCE / "robustify").rglob("*.py"):
        assert not any(room(name) == "corruptions" for name in imports(path)), path


def test_every_file_has_a_floor_and_a_page():
    for path in files():
        assert path.relative_to(SOURCE).with_suffix("").parts[0] in FLOORS, path
        assert len(path.read_text().splitlines()) <= LINES, f"{path} has more than {LINES} lines"


def test_light_rooms_load_no_torch():
    code = "import sys, stillrobust.report, stillrobust.corruptions, stillrobust.data; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_corruptions_import_without_their_compiler():
    """numba loads slower than all the rest: it is loaded by the first corruption, not by the import."""
    code = "import sys, stillrobust.corruptions; assert not {'numba', 'torch', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
