"""The arrows of the layer table: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path("src/tag2mask")
ALLOWED: dict[str, set[str]] = {
    "classes": set(),
    "errors": set(),
    "io": set(),
    "utils": set(),
    "losses": set(),
    "models": set(),
    "viz": set(),
    "metrics": {"io", "utils"},
    "data": {"io", "utils"},
    "refine": {"models", "io", "utils"},
    "tasks": {"models", "losses", "metrics", "io"},
    "callbacks": {"refine", "metrics", "viz", "io", "utils"},
    "inference": {"tasks", "refine", "models", "metrics", "data", "viz", "io"},
    "report": {"metrics", "viz", "io"},
}
"""Who may import whom, besides themselves and `LEAVES`; ``cli`` may import all."""
LEAVES = {"", "classes", "errors"}
TOP = {"cli", "__main__", "__init__"}
FORBIDDEN = {
    "losses": {"lightning", "numpy", "timm"},
    "models": {"lightning", "albumentations", "matplotlib"},
    "viz": {"torch", "lightning"},
    "metrics": {"matplotlib", "lightning"},
    "data": {"matplotlib", "timm"},
    "refine": {"matplotlib", "lightning", "timm"},
    "tasks": {"matplotlib", "albumentations"},
    "callbacks": {"matplotlib", "timm", "albumentations"},
    "inference": {"matplotlib", "lightning", "timm"},
    "report": {"lightning"},
}


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Modules that a file names in its imports; of our packages those of them that are meant."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inside = SOURCE.parent / (node.module or "").replace(".", "/")
            parts = {a.name for a in node.names if (inside / a.name).is_dir() or (inside / f"{a.name}.py").is_file()}
            found |= {f"{node.module}.{part}" for part in parts}
            found |= {node.module or ""} if len(parts) < len(node.names) else set()
    return found


def room(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


FILES = sorted(SOURCE.rglob("*.py"))


def rooms_of(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("tag2mask.")}


def modules() -> dict[str, set[str]]:
    """Module -> the modules that it imports when it is loaded; imports within functions make no circle."""
    names = {".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in FILES}

    def known(name: str) -> str | None:
        inner = name.removeprefix("tag2mask.")
        return next((each for each in (inner, f"{inner}.__init__") if each in names), None)

    return {name: {k for i in imports(path, True) if (k := known(i)) and k != name} for name, path in names.items()}


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Return the names that stand on a circle, by taking away again and again what imports nothing that is left."""
    left = dict(arrows)
    while ends := [name for name, into in left.items() if not into & left.keys()]:
        for name in ends:
            del left[name]
    return sorted(left)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_follow_the_layer_table(path: Path) -> None:
    here = room(path)
    ours = rooms_of(path) - LEAVES
    assert here in TOP or ours <= ALLOWED[here] | {here}, f"{path} imports {ours - ALLOWED[here]}"
    outside = {name.split(".")[0] for name in imports(path)}
    assert not outside & FORBIDDEN.get(here, set())


@pytest.mark.parametrize("words", ["--help", "--version", "fit --help", "labels --help"])
def test_help_loads_no_heavy_packages(words: str) -> None:
    heavy = {"matplotlib", "lightning", "torch", "timm", "numpy", "jsonargparse"}
    check = f"import sys; from tag2mask.cli.main import main; main({words.split()}); print({heavy} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout
    assert told.endswith("\nset()\n")


def test_every_room_is_in_the_table() -> None:
    assert {room(path) for path in FILES} == set(ALLOWED) | TOP


def test_only_packages_and_four_files_stand_at_the_top() -> None:
    files = {"__init__.py", "__main__.py", "classes.py", "errors.py"}
    assert {path.name for path in SOURCE.glob("*.py")} == files


def test_no_circle_of_imports() -> None:
    """Of the rooms in the table, of the rooms as they are, and of modules; each room is drawn with what it imports."""
    rooms = {
        here: {into for path in FILES if room(path) == here for into in rooms_of(path)} for here in (*ALLOWED, "cli")
    }
    rooms = {name: into - LEAVES - {name} for name, into in rooms.items()}
    print("\n".join(f"{name:<10} <- {', '.join(sorted(into)) or '-'}" for name, into in rooms.items()))
    assert circle(ALLOWED) == []
    assert circle(rooms) == []
    assert circle(modules()) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["a", "b", "c"]


def test_only_viz_uses_matplotlib() -> None:
    users = {room(path) for path in FILES if any(name.startswith("matplotlib") for name in imports(path))}
    assert users == {"viz"}


@pytest.mark.parametrize(
    ("verbs", "heavy"),
    [
        (("prepare", "archive", "report", "doctor"), {"torch"}),
        (("evaluate", "labels"), {"lightning", "torchmetrics", "torchvision", "scipy", "torch._dynamo"}),
        (("lightning",), {"timm", "albumentations", "segmentation_models_pytorch", "wandb"}),
    ],
)
def test_verbs_load_no_more_than_they_need(verbs: tuple[str, ...], heavy: set[str]) -> None:
    """A new process each: `make demo` calls `evaluate` five times, and processes that paint masks load `prepare`."""
    check = f"import sys, {', '.join(f'tag2mask.cli.{verb}' for verb in verbs)}; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout == "set()\n"
