"""Imports flow one way: lossyless <- utils <- main.py, aggregate.py."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXPERIMENT_SIDE = {"hydra", "omegaconf", "wandb", "pandas", "utils", "main", "aggregate", "hubconf"}
SOURCES = sorted([*ROOT.glob("*.py"), *ROOT.glob("lossyless/**/*.py"), *ROOT.glob("utils/**/*.py")])


def imported(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: import by the full name"
            is_package = node.module == "utils"  # `from utils import search`
            names |= {f"utils.{a.name}" for a in node.names} if is_package else {node.module}
    return names


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def offenders(pattern: str, forbidden: set[str]) -> dict[str, list[str]]:
    """Files with forbidden imports, and the imports themselves."""
    found = {path: packages(path) & forbidden for path in ROOT.glob(pattern)}
    return {str(p.relative_to(ROOT)): sorted(names) for p, names in found.items() if names}


def test_imports_between_library_utils_and_entry_points_flow_one_way():
    assert "torch" in packages(ROOT / "lossyless" / "compressors.py")  # modules are found
    assert offenders("lossyless/**/*.py", EXPERIMENT_SIDE) == {}
    assert offenders("utils/**/*.py", {"main", "aggregate", "hubconf"}) == {}
    assert offenders("*.py", {"main"}) == {}
    assert offenders("hubconf.py", EXPERIMENT_SIDE - {"hubconf"}) == {}


# The folders of utils, and the folders that each may import.
BELOW: dict[str, set[str]] = {"configs": set(), "runs": {"configs"}}
BELOW["data"] = BELOW["search"] = {"configs", "runs"}
BELOW["plots"] = BELOW["evaluation"] = {"configs", "runs", "data"}
BELOW["training"] = {*BELOW["plots"], "plots", "evaluation"}
BELOW["cluster"] = {*BELOW["training"], "training", "search"}
BELOW["aggregation"] = {*BELOW["cluster"], "cluster"}


def test_the_rooms_of_utils_import_those_below_them():
    for room, below in BELOW.items():
        for path in ROOT.glob(f"utils/{room}/**/*.py"):
            names = [name.split(".") for name in imported(path) if name.startswith("utils.")]
            above = {parts[1] for parts in names} - below - {room}
            assert not above, (path, above)


def test_windows_can_import_every_module():
    posix = {"fcntl", "grp", "pwd", "resource", "termios"}
    for path in SOURCES:
        top = ast.parse(path.read_text()).body  # neither in `try` nor in a function
        imports = [node for node in top if isinstance(node, ast.Import)]
        assert not {alias.name for node in imports for alias in node.names} & posix, path


def test_every_import_of_the_project_exists():
    for path in SOURCES:
        for name in imported(path):
            if name.split(".")[0] in ("lossyless", "utils"):
                module = ROOT / name.replace(".", "/")
                assert module.is_dir() or module.with_suffix(".py").is_file(), (path, name)
