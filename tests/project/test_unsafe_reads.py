"""No code path runs code from a file that it reads: no pickle, `eval`, `exec` or unsafe load.

Hydra's configs are an exception: they name the classes to build (`_target_`), like source code.
"""

import ast

from project.test_imports import ROOT, SOURCES

FORBIDDEN = {"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve"}
# Names of functions and the keyword that makes them safe, or None if nothing does.
UNSAFE = {
    "compile": None,
    "eval": None,
    "exec": None,
    "joblib.load": None,
    "load_from_checkpoint": "weights_only",
    "pickle_load": None,
    "read_pickle": None,
    "torch.hub.load": None,
    "torch.jit.load": None,
    "torch.load": "weights_only",
    "trainer.fit": "weights_only",
    "yaml.full_load": None,
    "yaml.load": None,
    "yaml.unsafe_load": None,
}
# Reviewed: pickle's error for damaged weights; YAML's safe C loader; our own jobs' results.
ALLOWED = {
    ("lossyless/backbones/clip.py", "pickle"),
    ("utils/runs/saved_runs.py", "yaml.load"),
    ("utils/cluster/launcher.py", "pickle_load"),
}


def problems(tree: ast.AST) -> set[str]:
    """Names of modules and calls in a file that could run code from another file."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names} & FORBIDDEN
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module.split(".")[0]} & FORBIDDEN
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            name = next((n for n in (name, name.rpartition(".")[2]) if n in UNSAFE), "")
            is_method = name in ("compile", "eval", "exec") and isinstance(node.func, ast.Attribute)
            given = {word.arg for word in node.keywords}
            is_new = name == "trainer.fit" and "ckpt_path" not in given  # reads no checkpoint
            true = {word.arg for word in node.keywords if ast.unparse(word.value) == "True"}
            if name and not (is_method or is_new) and UNSAFE[name] not in true:
                found.add(name)
            is_read = not ast.unparse(node.func).endswith(".save")
            found |= {"allow_pickle"} & true if is_read else set()
    return found


def test_nothing_that_is_read_from_a_file_is_executed():
    found = set()
    for path in SOURCES:
        name = path.relative_to(ROOT).as_posix()
        found |= {(name, problem) for problem in problems(ast.parse(path.read_text()))}
    assert found == ALLOWED
