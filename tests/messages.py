"""The messages of ``InputError`` and its kinds in the source, with … for what is filled in."""

import ast
from pathlib import Path

from tag2mask import errors

SOURCE = Path("src/tag2mask")
KINDS = {name for name in vars(errors) if name.endswith("Error")}


def messages() -> dict[str, str]:
    """Return message -> the file that raises it."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in KINDS and node.args:
                found[text(node.args[0])] = str(path.relative_to(SOURCE))
    return {message: path for message, path in found.items() if message.strip("… ")}


def text(node: ast.expr) -> str:
    """The constant parts of a message."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return text(node.left) + text(node.right)
    return "…"


def head(message: str) -> str:
    """What was found: the part before the advice, as docs/troubleshooting.md has it."""
    return message.split(";")[0].strip().rstrip(":").replace("`", "").replace("|", "/")
