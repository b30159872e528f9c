"""bin/setup.sh: the choice of Python, its errors, and the versions that it installs.

The script runs in a copy, with stubs for the interpreters and uv on an otherwise empty path, so
nothing is downloaded.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from helpers.tiny import ROOT, call
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

SUPPORTED = ["3.11", "3.12", "3.13", "3.14"]
TOOLS = ["awk", "bash", "cp", "dirname", "grep", "mkdir", "mktemp", "rm", "sed", "tail", "tee"]
TOOLS += ["touch", "uname"]
# The Python of the tests, with another version. It lacks the module `lacking`, has its headers in
# `headers`, creates environments that contain copies of itself, and cannot install uv.
PYTHON_STUB = """#!/usr/bin/env bash
if [ "$1" = -c ]; then
  if [[ $2 == *"{lacking}"* ]]; then exit 1; fi
  if [[ $2 == *torch* ]]; then exit; fi
  exec "{python}" -c "
import sys, sysconfig
sys.version_info = ({major}, {minor}, {micro}, 'final', 0)
sysconfig.get_path = lambda name: '{headers}'
sysconfig.get_config_var = lambda name: 'g++ -pthread'
$2"
fi
echo "{major}.{minor} $*" >>"{calls}"
if [ "$2" = venv ]; then mkdir -p "${{@: -1}}/bin" && cp "$0" "${{@: -1}}/bin/python"; fi
if [[ "$*" == *"pip install uv"* ]]; then exit 1; fi
"""
UV_STUB = """#!/usr/bin/env bash
echo "uv $*" >>"{calls}"
mkdir -p .venv/bin && cp "{managed}" .venv/bin/python
"""


class Machine:
    """A copy of the files that setup.sh reads, and a PATH with chosen interpreters and tools."""

    def __init__(self, folder: Path):
        self.project, self.path, self.calls_file = (
            folder / "my projét (1)",
            folder / "bin",
            folder / "calls",
        )
        self.headers = folder / "include"
        self.path.mkdir()
        self.headers.mkdir()
        for tool in TOOLS:
            (self.path / tool).symlink_to(shutil.which(tool))
        self.write(self.path / "df", "#!/usr/bin/env bash\necho\necho x 1 1 99999999\n")
        shutil.copytree(ROOT / "requirements", self.project / "requirements")
        (self.project / "bin").mkdir()
        shutil.copy(ROOT / "bin/setup.sh", self.project / "bin")

    def write(self, file: Path, text: str) -> Path:
        file.write_text(text)
        file.chmod(0o755)
        return file

    def add_python(
        self, version: str, name: str = "", lacking: str = "nothing", where: str = ""
    ) -> Path:
        major, minor, micro = f"{version}.0".split(".")[:3]
        stub = PYTHON_STUB.format(
            python=sys.executable,
            major=major,
            minor=minor,
            micro=micro,
            lacking=lacking,
            headers=self.headers,
            calls=self.calls_file,
        )
        folder = self.path if not where else self.path.parent / where
        folder.mkdir(exist_ok=True)
        return self.write(folder / (name or f"python{version}"), stub)

    def add_compiler(self, headers: bool = True) -> None:
        self.write(self.path / "g++", "#!/usr/bin/env bash\n")
        if headers:
            (self.headers / "Python.h").touch()

    def add_uv(self) -> None:
        managed = self.add_python("3.12", where="managed")
        self.write(self.path / "uv", UV_STUB.format(calls=self.calls_file, managed=managed))

    def set_up(self, *arguments: str, **env: str) -> subprocess.CompletedProcess:
        env = {"PATH": str(self.path), "HOME": str(self.path), "LC_ALL": "C", **env}
        return call("bash", "bin/setup.sh", *arguments, cwd=self.project, env=env)

    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def fails_in_one_line(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 1 and done.stderr.startswith("setup: error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize(
    ("present", "taken"),
    [
        (["3.11", "3.12", "3.13", "3.14"], "3.12"),
        (["3.11", "3.13"], "3.11"),
        (["3.10", "3.13", "3.14"], "3.13"),
        (["3.14.1", "3.14"], "3.14"),
    ],
)
def test_a_python_with_wheels_is_preferred(machine, present, taken):
    machine.add_compiler()
    for version in present:
        machine.add_python(version, "python3" if version == "3.14.1" else "")
    done = machine.set_up()
    assert done.returncode == 0, done.stderr
    assert machine.calls()[0] == f"{taken} -m venv --clear .venv"
    builds = [line for line in machine.calls() if "--no-deps compressai" in line]
    assert len(builds) == (taken in ("3.13", "3.14"))
    assert (machine.project / ".venv/.installed").exists()


def test_python3_is_the_fallback_and_a_missing_venv_package_is_named(machine):
    machine.add_python("3.12", name="python3", lacking="ensurepip")
    assert "apt install python3.12-venv'" in fails_in_one_line(machine.set_up())
    machine.add_python("3.12", name="python3")
    assert machine.set_up("--dev").returncode == 0
    assert any(line.startswith("3.12 -m venv") for line in machine.calls())
    assert any("requirements/dev.txt" in line for line in machine.calls())
    assert (machine.project / ".venv/.installed-dev").exists()


@pytest.mark.parametrize(("version", "reason"), [("3.13", "needs g++"), ("3.8", "too old")])
def test_uv_replaces_an_unusable_python(machine, version, reason):
    machine.add_python(version, name="python3")
    machine.add_uv()
    done = machine.set_up()
    assert done.returncode == 0, done.stderr
    assert any(reason in line and "uv" in line for line in done.stdout.splitlines())
    assert machine.calls()[0].startswith("uv venv") and "3.12" in machine.calls()[0]
    assert not any("--no-deps compressai" in line for line in machine.calls())


@pytest.mark.parametrize(
    ("compiler", "named", "packages"),
    [(False, {}, "g++ python3.14-dev"), (True, {"PYTHON": "python3.14"}, "python3.14-dev")],
)
def test_without_compiler_and_uv_the_error_names_both_remedies(machine, compiler, named, packages):
    machine.add_python("3.14")
    machine.add_python("3.14", name="python3")
    if compiler:
        machine.add_compiler(headers=False)
    error = fails_in_one_line(machine.set_up(**named))
    assert f"apt install {packages}'" in error and "install Python 3.12" in error
    assert not (machine.project / ".venv").exists()


def test_a_chosen_interpreter_is_not_replaced(machine):
    machine.add_python("3.12")
    machine.add_uv()
    old = machine.add_python("3.10")
    assert "3.10" in fails_in_one_line(machine.set_up(PYTHON=str(old)))
    assert "python7" in fails_in_one_line(machine.set_up(PYTHON="python7"))
    assert machine.calls() == []


def test_changing_the_python_of_an_environment_is_an_error(machine):
    machine.add_python("3.11")
    assert machine.set_up().returncode == 0
    machine.add_python("3.12")
    assert "3.11" in fails_in_one_line(machine.set_up(PYTHON="python3.12"))
    assert machine.set_up().returncode == 0  # without PYTHON, .venv is used unchanged


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("WARNING: Retrying after NewConnectionError()", "network"),
        ("error: command 'g++' failed\nERROR: Failed building wheel for compressai", "python3.12"),
        ("ERROR: something else", "setup.log"),
    ],
)
def test_failures_of_pip_are_explained(machine, output, expected):
    machine.add_python("3.12")
    assert machine.set_up().returncode == 0
    pip = machine.project / ".venv/bin/python"
    text = pip.read_text() + f'if [ "$3" = install ]; then echo "{output}"; exit 1; fi\n'
    machine.write(pip, text)
    done = machine.set_up()
    assert done.returncode == 1 and expected in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) <= 6
    assert output in (machine.project / ".venv/setup.log").read_text()
    assert not (machine.project / ".venv/.installed").exists()


def read_requirements(name: str) -> list[Requirement]:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    lines = [re.split(r"(?:^|\s)#", line)[0].strip() for line in lines]
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def pins(python: str) -> dict[str, Requirement]:
    """Map each package to its exact version for this Python."""
    found: dict[str, Requirement] = {}
    for pin in read_requirements("constraints.txt"):
        if pin.marker is None or pin.marker.evaluate({"python_version": python}):
            assert found.setdefault(canonicalize_name(pin.name), pin) is pin  # one version each
    return found


@pytest.mark.parametrize("python", SUPPORTED)
def test_constraints_pin_one_allowed_version_of_each_requirement(python):
    pinned = pins(python)
    for file in ("requirements.txt", "requirements_mini.txt", "dev.txt"):
        for requirement in read_requirements(file):
            (version,) = pinned[canonicalize_name(requirement.name)].specifier
            assert version.operator == "==" and version.version in requirement.specifier


def test_pinned_versions_run_on_the_first_patch_release():  # Debian 12 has Python 3.11.2
    pinned = {python: pins(python) for python in SUPPORTED}
    for distribution in metadata.distributions():
        supported = SpecifierSet(distribution.metadata.get("Requires-Python", ""))
        for python in SUPPORTED:
            pin = pinned[python].get(canonicalize_name(distribution.name))
            if pin and pin.specifier.contains(distribution.version):
                assert f"{python}.0" in supported, pin


def test_the_supported_versions_are_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    classifiers = [c.rsplit(" ", 1)[1] for c in project["classifiers"] if "Python :: 3." in c]
    assert classifiers == SUPPORTED
    assert project["requires-python"] == f">={SUPPORTED[0]}"


def test_docker_and_conda_use_existing_files_and_a_python_with_wheels():
    dockerfile = (ROOT / "requirements/Dockerfile").read_text()
    environment = yaml.safe_load((ROOT / "requirements/environment.yaml").read_text())
    sources = re.findall(r"^COPY --chown=\S+ (.+) \S+$", dockerfile, flags=re.MULTILINE)
    sources += re.findall(r"bash (\S+\.sh)", dockerfile)
    assert len(sources) > 3
    assert all((ROOT / source).exists() for line in sources for source in line.split())
    *packages, pip = environment["dependencies"]
    named = [line.split()[1] for line in pip["pip"]]  # conda: relative to the environment's file
    assert named and all((ROOT / "requirements" / file).is_file() for file in named)
    pythons = re.findall(r"python[:=](3\.\d+)", " ".join([dockerfile, *packages]))
    assert pythons == ["3.12", "3.12"]
