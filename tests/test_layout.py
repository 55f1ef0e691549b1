"""The layout: what imports what, and sizes that keep files readable."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest
from helpers.cli import ROOT

# From the bottom up; a file may import from its own layer and from those below it.
LAYERS = (
    ("support",),
    ("fast",),
    ("music", "data_sources", "generator", "discriminator", "oracle", "rollout", "metrics", "bleu", "data_set", "data_loader"),
    ("train_state", "rewards", "updates"),
    ("train",),
    ("running",),
    ("main", "sample", "report"),
)
LAYER = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}
ROOMS = ("fast", "music", "running", "support")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in [*ROOT.glob("*.py"), *(file for room in ROOMS for file in ROOT.glob(f"{room}/*.py"))]
}
LOADED_BY_NAME = {"data_loader": {"music.data_set"}}  # make_data, from the table in data_sources.py


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


def test_music_knows_nothing_of_training():
    for module in (name for name in MODULES if name.startswith("music")):
        assert not imports(module) & {"train", "train_state", "rewards", "updates", "rollout", "discriminator"}, module


def functions(path):
    return [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]


@pytest.mark.parametrize("module", MODULES)
def test_functions_and_files_stay_short(module):
    path = MODULES[module]
    assert path.read_text().count("\n") <= 350
    assert [f.name for f in functions(path) if f.end_lineno - f.lineno >= 60] == []


def test_functions_import_nothing_but_what_is_optional():
    """make_data loads a data set by name, report.py draws with matplotlib where it is installed."""
    found = [
        (module, f.name)
        for module, path in MODULES.items()
        for f in functions(path)
        if any(isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.walk(f))
    ]
    assert found == [("report", "import_pyplot")]


@pytest.mark.parametrize(
    ("command", "absent"), [("report", "torch"), ("report", "tensorboard"), ("main", "pretty_midi"), ("main", "matplotlib")]
)
def test_commands_load_only_what_they_need(command, absent):
    code = f"import {command}, sys; assert {absent!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
