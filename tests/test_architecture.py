"""The house: which room may import which, no circles, nothing longer than can be read, names that say a role."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOUSE = ("app.py", "model_manager.py", "tabs", "serving", "text2video_zero", "toyland")
LONGEST_FUNCTION, LONGEST_FILE, MOST_FILES = 50, 400, 12
BANNED = ("utils", "helpers", "misc", "common", "process", "handle")
FORBIDDEN = {
    "text2video_zero": {"gradio", "tabs", "serving", "app", "toyland", "model_manager"},
    "model_manager.py": {"gradio", "tabs", "serving", "app", "toyland"},
    "serving": {"gradio", "tabs", "app", "toyland", "torch", "diffusers", "model_manager"},
    "tabs": {"torch", "diffusers", "transformers", "model_manager", "app", "toyland"},
    "app.py": {"torch", "diffusers", "transformers", "gradio", "model_manager", "toyland"},
    "toyland": {"gradio", "tabs", "serving", "app"},
}
# Inside the engine imports go down, or to a neighbour on the same floor.
FLOORS = (
    {"__main__"},
    {"job", "generate", "evaluation", "verification"},
    {"tasks"},
    {"control", "foreground", "sampling"},
    {"attention", "models", "media", "device", "prompts"},
    {"requests", "events"},
    {"errors", "generators", "imports", "text2video_zero"},  # the latter is the package itself, with its version
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def sources(*rooms):
    for room in rooms:
        path = ROOT / room
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


ALL = [str(path.relative_to(ROOT)) for path in sources(*HOUSE)]
ALL_TESTS = [str(path.relative_to(ROOT)) for path in sources("tests")]
TREES = {name: ast.parse((ROOT / name).read_text(encoding="utf-8"), name) for name in (*ALL, *ALL_TESTS)}
MODULES = {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in ALL}


def imported(tree, *, late=True, typing=False):
    """Full names of what a file imports: "package.module" or "package.module.name".

    late: also what functions import when they are called.  typing: also what type annotations alone need.
    """
    left = [*tree.body]
    while left:
        node = left.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            left.extend(node.orelse + (node.body if typing else []))
        elif late or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            left.extend(ast.iter_child_nodes(node))


def packages(name, **which):
    return {full.split(".")[0] for full in imported(TREES[name], **which)}


def module_graph(*, typing):
    """Module -> modules of the house that it imports."""
    graph = {}
    for module, name in MODULES.items():
        found = imported(TREES[name], typing=typing)
        nearest = (full if full in MODULES else full.rpartition(".")[0] for full in found)
        graph[module] = {target for target in nearest if target in MODULES}
    return graph


def room_of(module):
    """Inside the engine its rooms, which the files at its top are too; elsewhere the rooms of the house."""
    parts = module.split(".")
    return parts[1] if parts[0] == "text2video_zero" and len(parts) > 1 else parts[0]


GRAPH = module_graph(typing=False)


def room_graph():
    graph = defaultdict(set)
    for module, targets in GRAPH.items():
        graph[room_of(module)] |= {room_of(target) for target in targets} - {room_of(module)}
    return graph


def circle(graph):
    """A way that leads back to where it begins, None if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " <- ".join(error.args[1])
    return None


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_only_rooms_below_it(room):
    for path in sources(room):
        # The command line stands beside the app: when it runs, it may ask the model manager for a pipeline.
        beside_the_app = path.name == "__main__.py"
        # The app imports gradio and the model manager late, so that the page is up before torch is.
        late = room != "app.py" and not beside_the_app
        found = packages(str(path.relative_to(ROOT)), late=late) & FORBIDDEN[room]
        assert not found, f"{path.relative_to(ROOT)} imports {found}"


def test_every_room_of_the_engine_has_its_floor():
    assert {room_of(module) for module in MODULES if module.split(".")[0] == "text2video_zero"} <= set(FLOOR_OF)


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("text2video_zero")])
def test_inside_the_engine_imports_go_down(module):
    inside = {target for target in GRAPH[module] if room_of(target) in FLOOR_OF}
    upwards = {target for target in inside if FLOOR_OF[room_of(target)] < FLOOR_OF[room_of(module)]}
    assert not upwards


def test_no_modules_import_each_other_in_a_circle():
    found = circle(module_graph(typing=True))
    assert found is None


def test_no_rooms_import_each_other_in_a_circle():
    found = circle(room_graph())
    assert found is None


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) is None
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) is not None


def test_weights_are_loaded_in_the_model_manager_alone():
    for name in ALL:
        if name.startswith(("app", "tabs", "serving", "text2video_zero")):
            called = {node.attr for node in ast.walk(TREES[name]) if isinstance(node, ast.Attribute)}
            assert not called & {"from_pretrained", "from_single_file"}, name


def test_nothing_imports_the_app():
    for name in ALL:
        assert "app" not in packages(name, typing=True), name


def test_no_test_module_is_imported():
    """What several of them share lies beside them: to import one would collect its tests' fixtures, too."""
    for path in ALL_TESTS:
        modules = {node.module or "" for node in ast.walk(TREES[path]) if isinstance(node, ast.ImportFrom)}
        assert not {name for name in modules if name.rsplit(".", 1)[-1].startswith("test_")}, path


@pytest.mark.parametrize("name", ALL)
def test_a_function_fits_on_a_screen_and_a_file_on_a_few(name):
    functions = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {function.name: function.end_lineno - function.lineno + 1 for function in functions}
    assert {function: length for function, length in lengths.items() if length > LONGEST_FUNCTION} == {}
    lines = (ROOT / name).read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST_FILE


def test_a_room_has_a_dozen_files_at_most():
    files = Counter(Path(name).parent for name in ALL if not name.endswith("__init__.py"))
    assert {str(room): count for room, count in files.items() if count > MOST_FILES} == {}


@pytest.mark.parametrize("name", ALL)
def test_names_say_a_role(name):
    functions = [node.name for node in ast.walk(TREES[name]) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    for word in [Path(name).stem, *functions]:
        assert word.strip("_").lower() not in BANNED, f"{name}: {word}"
        assert not word.startswith(("do_", "handle_", "process_")), f"{name}: {word}"
