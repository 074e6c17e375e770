"""The arrows between the rooms: app -> tabs -> serving -> model_manager -> text2video_zero."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("app.py", "model_manager.py", "tabs", "serving", "text2video_zero", "toyland")
LONGEST_FUNCTION = 50
BANNED = ("utils", "helpers", "misc", "common", "process", "handle")
FORBIDDEN = {
    "text2video_zero": {"gradio", "tabs", "serving", "app", "toyland", "model_manager"},
    "model_manager.py": {"gradio", "tabs", "serving", "app", "toyland"},
    "serving": {"gradio", "tabs", "app", "toyland", "torch", "diffusers", "model_manager"},
    "tabs": {"torch", "diffusers", "transformers", "model_manager", "app", "toyland"},
    "app.py": {"torch", "diffusers", "transformers", "gradio", "model_manager", "toyland"},
    "toyland": {"gradio", "tabs", "serving", "app"},
}


def sources(*rooms):
    for room in rooms:
        path = ROOT / room
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


ALL = [str(path.relative_to(ROOT)) for path in sources(*ROOMS)]


def parsed(name):
    return ast.parse((ROOT / name).read_text(encoding="utf-8"), name)


def imports(tree, *, at_import_alone):
    """Names of imported modules' rooms; those under TYPE_CHECKING never count, those in functions may."""
    left = [*tree.body]
    while left:
        node = left.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            left.extend(node.orelse)
        elif not (at_import_alone and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            left.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_only_rooms_below_it(room):
    for path in sources(room):
        # The command line stands beside the app: when it runs, it may ask the model manager for a pipeline.
        beside_the_app = path.name == "__main__.py"
        # The app imports gradio and the model manager late, so that the page is up before torch is.
        late = room == "app.py" or beside_the_app
        found = set(imports(parsed(path.relative_to(ROOT)), at_import_alone=late)) & FORBIDDEN[room]
        assert not found, f"{path.relative_to(ROOT)} imports {found}"


def imported_modules(name):
    """The files of this house that a file imports, for types alone or in a function too."""
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.ImportFrom):
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from {f"{module.replace('.', '/')}.py" for module in modules} & set(ALL)


@pytest.mark.parametrize("room", ["tabs", "serving"])
def test_no_files_of_a_room_import_each_other_in_a_circle(room):
    files = [name for name in ALL if name.startswith(f"{room}/")]
    graph = {name: {other for other in imported_modules(name) if other in files} for name in files}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_weights_are_loaded_in_the_model_manager_alone():
    for path in sources("app.py", "tabs", "serving", "text2video_zero"):
        called = {node.attr for node in ast.walk(parsed(path.relative_to(ROOT))) if isinstance(node, ast.Attribute)}
        assert not called & {"from_pretrained", "from_single_file"}, path


def test_nothing_imports_the_app():
    for name in ALL:
        assert "app" not in set(imports(parsed(name), at_import_alone=False)), name


@pytest.mark.parametrize("name", ALL)
def test_no_function_is_longer_than_a_screen(name):
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{name}: {node.name} has {length} lines"


@pytest.mark.parametrize("name", ALL)
def test_names_say_a_role(name):
    functions = [node.name for node in ast.walk(parsed(name)) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    for word in [Path(name).stem, *functions]:
        assert word.strip("_").lower() not in BANNED, f"{name}: {word}"
        assert not word.startswith(("do_", "handle_", "process_")), f"{name}: {word}"
