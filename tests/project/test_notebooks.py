"""Every notebook runs from top to bottom on small data without a network, and is publishable."""

import re
import shutil
from pathlib import Path

import matplotlib
import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|Users|tmp|mnt|usr|opt)/|site-packages")
MAX_BYTES = 1_500_000
SLOW = {"banana.ipynb", "minimal_code.ipynb"}  # notebooks that take half a minute each
TIMEOUT = 300  # time limit of a cell in seconds


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def empty_machine(tmp_path, monkeypatch) -> Path:
    """A copy of the notebooks, in an environment without caches or a network."""
    variables = {
        "LOSSYLESS_NOTEBOOK_SMALL": "1",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path / "home"),
        "TORCH_HOME": str(tmp_path / "torch"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "MPLCONFIGDIR": matplotlib.get_cachedir(),  # its font cache is slow to build
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        # requests fail at once: no server listens there
        **dict.fromkeys(["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"], "127.0.0.1:9"),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "home").mkdir()
    return Path(shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks"))


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.slow] if path.name in SLOW else [], id=path.name)
        for path in NOTEBOOKS
    ],
)
def test_notebooks_run(path, empty_machine):
    notebook = read(empty_machine / path.name)
    resources = {"metadata": {"path": str(empty_machine)}}
    NotebookClient(notebook, timeout=TIMEOUT, resources=resources).execute()  # raises on errors
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_clean(path):
    """They are small, and contain no errors and no paths of the machine that ran them."""
    text = path.read_text(encoding="utf-8")
    assert len(text) <= MAX_BYTES and not MACHINE_PATH.search(text)
    cells = code_cells(read(path))
    assert all(output.output_type != "error" for cell in cells for output in cell.outputs)
    counts = [cell.execution_count for cell in cells]
    assert counts in (list(range(1, len(counts) + 1)), [None] * len(counts))
