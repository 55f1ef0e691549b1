"""The layout: what imports what, and sizes that keep files readable."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest
from helpers.cli import ROOT

# From the bottom up; a file may import from its own layer and from those below it.
LAYERS = (
    ("support",),
    ("fast",),
    (
        "music",
        "text",
        "data_sources",
        "generator",
        "discriminator",
        "oracle",
        "rollout",
        "metrics",
        "bleu",
        "data_set",
        "data_loader",
    ),
    ("train_state", "rewards", "updates"),
    ("train", "residual"),
    ("running",),
    ("main", "sample", "judges", "report", "sweep"),
)
LAYER = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}
ROOMS = ("fast", "music", "residual", "running", "support", "text")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in [*ROOT.glob("*.py"), *(file for room in ROOMS for file in ROOT.glob(f"{room}/*.py"))]
}
LOADED_BY_NAME = {"data_loader": {"music.data_set", "text.data_set"}}  # make_data, from the table in data_sources.py


def imports(module):
    """The project's modules that a module imports anywhere in it, also inside functions."""
    named = set(LOADED_BY_NAME.get(module, ()))
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            named |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return (named & MODULES.keys()) - {module}


def test_every_file_has_a_layer():
    assert {module.partition(".")[0] for module in MODULES} == LAYER.keys()


@pytest.mark.parametrize("module", MODULES)
def test_no_import_runs_upward(module):
    own = LAYER[module.partition(".")[0]]
    assert [name for name in imports(module) if LAYER[name.partition(".")[0]] > own] == []


def test_no_import_runs_in_a_circle():
    list(TopologicalSorter({module: imports(module) for module in MODULES}).static_order())  # raises CycleError
    assert imports("train") >= {"updates", "rewards"}  # the reader of imports sees them


def test_music_and_text_import_nothing_of_training():
    for module in (name for name in MODULES if name.startswith(("music", "text"))):
        assert not imports(module) & {"train", "train_state", "rewards", "updates", "rollout", "discriminator"}, module


def functions(path):
    return [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]


@pytest.mark.parametrize("module", MODULES)
def test_functions_and_files_stay_short(module):
    path = MODULES[module]
    assert path.read_text().count("\n") <= 350
    assert [f.name for f in functions(path) if f.end_lineno - f.lineno >= 60] == []


def test_test_files_stay_short_and_share_only_helpers():
    """A test file that imports another one runs its fixtures and module code as well."""
    for path in (ROOT / "tests").rglob("*.py"):
        text = path.read_text()
        assert text.count("\n") <= 350, path
        imported = [n.module or "" for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ImportFrom)]
        assert not [name for name in imported if re.search(r"(^|\.)(test_\w+|conftest)$", name)], path


def test_tests_lie_in_the_folders_of_the_code():
    folders = {path.parent.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders <= {".", *ROOMS, "experiments", "benchmarks"}


def test_only_optional_modules_are_imported_in_functions():
    """make_data loads a data set by name, running/curves.py draws with matplotlib where it is installed."""
    found = [
        (module, f.name)
        for module, path in MODULES.items()
        for f in functions(path)
        if any(isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.walk(f))
    ]
    assert found == [("running.curves", "import_pyplot")]


@pytest.mark.parametrize("absent", ["torch", "tensorboard", "matplotlib"])
def test_the_report_loads_only_what_it_needs(absent):
    code = f"import report, sys; assert {absent!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
