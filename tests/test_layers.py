"""The arrows of the layer table: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path("src/tag2mask")
LEAVES = {"", "errors", "classes"}
ALLOWED = {
    "errors": set(),
    "classes": set(),
    "progress": set(),
    "accounts": set(),
    "usage": LEAVES,
    "threads": set(),
    "processes": LEAVES,
    "disk": LEAVES,
    "listing": LEAVES,
    "files": LEAVES | {"listing"},
    "provenance": LEAVES | {"files"},
    "losses": LEAVES,
    "counts": LEAVES,
    "metrics": LEAVES | {"counts"},
    "optim": LEAVES,
    "plots": LEAVES,
    "models": LEAVES | {"models"},
    "data": LEAVES | {"listing", "files", "provenance", "disk", "progress", "processes", "data"},
    "tasks": LEAVES | {"models", "losses", "metrics", "optim", "tasks"},
    "callbacks": LEAVES
    | {"counts", "metrics", "plots", "files", "provenance", "disk", "progress", "refine", "callbacks"},
    "refine": LEAVES | {"listing", "models", "files", "provenance", "disk", "threads", "processes", "refine"},
    "evaluate": LEAVES | {"listing", "counts", "files", "progress"},
    "segment": LEAVES | {"listing", "files", "plots", "models", "data", "tasks", "refine"},
    "inspection": LEAVES | {"files", "plots", "counts", "models", "data", "tasks", "refine"},
    "failures": LEAVES,
    "notebook": LEAVES,
    "export": LEAVES | {"files", "data", "tasks", "segment"},
    "voc_archive": LEAVES | {"files", "data", "arguments"},
    "arguments": LEAVES,
    "complaints": LEAVES | {"arguments"},
    "report": LEAVES | {"provenance", "counts", "plots", "files"},
}
TOP = {
    "cli",
    "lightning_cli",
    "prepare_cli",
    "labels_cli",
    "segment_cli",
    "export_cli",
    "evaluate_cli",
    "report_cli",
    "doctor_cli",
    "__main__",
    "__init__",
}
FORBIDDEN = {
    "models": {"lightning", "albumentations", "matplotlib"},
    "losses": {"lightning", "numpy", "timm"},
    "segment": {"matplotlib", "lightning", "timm"},
    "inspection": {"matplotlib", "lightning", "timm"},
    "export": {"matplotlib", "lightning", "timm"},
    "voc_archive": {"matplotlib", "lightning", "timm", "torch"},
    "optim": {"lightning", "numpy", "timm"},
    "data": {"matplotlib", "timm"},
    "tasks": {"matplotlib", "albumentations"},
    "callbacks": {"matplotlib", "timm", "albumentations"},
    "refine": {"matplotlib", "lightning", "timm"},
    "evaluate": {"matplotlib", "lightning", "torchmetrics"},
    "counts": {"matplotlib", "lightning", "torchmetrics"},
    "metrics": {"matplotlib", "lightning"},
    "cli": {"matplotlib", "lightning", "torch", "timm"},
}


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "tag2mask":
            found |= {f"tag2mask.{alias.name}" for alias in node.names if (SOURCE / alias.name).exists()}
            found |= {f"tag2mask.{alias.name}" for alias in node.names if (SOURCE / f"{alias.name}.py").exists()}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def room(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_follow_the_layer_table(path: Path) -> None:
    here = room(path)
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("tag2mask.")}
    assert here in TOP or ours <= ALLOWED[here] | {here}, f"{path} imports {ours - ALLOWED[here]}"
    outside = {name.split(".")[0] for name in imports(path, top_level_only=here == "cli")}
    assert not outside & FORBIDDEN.get(here, set())


def test_every_room_is_in_the_table() -> None:
    assert {room(path) for path in FILES} <= set(ALLOWED) | TOP


def test_nothing_imports_the_command_line_but_itself() -> None:
    importing = {
        room(path) for path in FILES if {f"tag2mask.{name}" for name in TOP if name.endswith("cli")} & imports(path)
    }
    assert importing <= TOP


def test_only_plots_uses_matplotlib() -> None:
    users = {path.name for path in FILES if any(name.startswith("matplotlib") for name in imports(path))}
    assert users == {"plots.py"}


@pytest.mark.parametrize(
    ("verbs", "heavy"),
    [
        (("prepare_cli", "voc_archive", "report_cli", "doctor_cli"), {"torch"}),
        (("evaluate_cli", "labels_cli"), {"lightning", "torchmetrics", "torchvision", "scipy", "torch._dynamo"}),
    ],
)
def test_verbs_load_no_more_than_they_need(verbs: tuple[str, ...], heavy: set[str]) -> None:
    """A new process each: `make demo` calls `evaluate` five times, and processes that paint masks load `prepare`."""
    check = f"import sys, {', '.join(f'tag2mask.{verb}' for verb in verbs)}; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout == "set()\n"
