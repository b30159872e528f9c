"""bin/setup.sh and what it installs: which Python is taken, what is said, wheels for Python 3.14.

The script runs in a copy with stubs for the interpreters and uv on an otherwise bare path, so that
nothing is downloaded. What the stubs replace was run by hand, except uv's download of a Python.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
import yaml
from helpers.tiny import ROOT, call
from packaging.requirements import Requirement
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

SUPPORTED = ["3.11", "3.12", "3.13", "3.14"]
TOOLS = ["awk", "bash", "cp", "dirname", "grep", "mkdir", "mktemp", "rm", "sed", "tail", "tee"]
TOOLS += ["touch", "uname"]
# The real Python of the tests under another version. It lacks the module `lacking`, has its headers
# in `headers`, makes environments of copies of itself, and cannot install uv.
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
    """A copy of what set-up reads, and a path with the chosen interpreters and tools."""

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


def test_without_a_compiler_uv_installs_python_3_12(machine):
    machine.add_python("3.13")
    machine.add_uv()
    done = machine.set_up()
    assert done.returncode == 0, done.stderr
    assert any("3.13 lacks g++" in line and "uv" in line for line in done.stdout.splitlines())
    assert machine.calls()[0].startswith("uv venv") and "3.12" in machine.calls()[0]
    assert not any("--no-deps compressai" in line for line in machine.calls())


def test_uv_replaces_a_python_that_is_too_old(machine):
    machine.add_python("3.8", name="python3")
    machine.add_uv()
    assert machine.set_up().returncode == 0
    assert machine.calls()[0].startswith("uv venv")


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
    assert machine.set_up().returncode == 0  # without PYTHON, it is used as it is


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
    """Name to exact version for that Python."""
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


def test_the_supported_versions_are_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    classifiers = [c.rsplit(" ", 1)[1] for c in project["classifiers"] if "Python :: 3." in c]
    assert classifiers == SUPPORTED
    assert project["requires-python"] == f">={SUPPORTED[0]}"


def pip_setting(name: str, default: str) -> str:
    done = call(sys.executable, "-m", "pip", "config", "get", f"global.{name}")
    variable = os.environ.get(f"PIP_{name.upper().replace('-', '_')}")
    return variable or done.stdout.strip() or default


def wheels_on_index(names: list[str]) -> list[list[str]]:
    """File names of the wheels that pip's package index has of each project; no wheel is loaded."""
    index = pip_setting("index-url", "https://pypi.org/simple").rstrip("/")
    certificates = pip_setting("cert", "") or True

    def read(name: str) -> list[str]:
        page = requests.get(f"{index}/{name}/", timeout=60, verify=certificates)
        page.raise_for_status()
        return re.findall(r"[\w.+-]+\.whl(?=[\"#<])", page.text.replace("%2B", "+"))

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(read, names))


@pytest.mark.slow
def test_python_3_14_has_wheels_for_all_other_packages():
    """All pinned versions have wheels for it on Linux x86-64, but CompressAI and a pure Python."""
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(5, 35)]
    platforms += ["manylinux1_x86_64", "manylinux2010_x86_64", "manylinux2014_x86_64"]
    usable = {*cpython_tags((3, 14), platforms=platforms)}
    usable |= {*compatible_tags((3, 14), interpreter="cp314", platforms=platforms)}

    pinned = pins("3.14")
    try:
        files = wheels_on_index(list(pinned))
    except requests.ConnectionError as error:
        pytest.skip(f"the package index cannot be reached: {error}")
    missing = []
    for (name, pin), names in zip(pinned.items(), files, strict=True):
        (version,) = pin.specifier
        wheels = [file for file in names if file.split("-")[1] == version.version]
        if not any(parse_wheel_filename(file)[3] & usable for file in wheels):
            missing.append(name)
    assert missing == ["antlr4-python3-runtime", "compressai"]


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
