from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tag2mask.cli import main
from tests.commands import SMALL_NET, words

NOTEBOOKS = sorted(Path("notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_on_the_sample_set(
    path: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = words(
        "fit", "configs/demo/cam.yaml", sample, tmp_path, trainer__max_steps="2", trainer__limit_val_batches="0"
    )
    assert main([*fit, *(word for key, value in SMALL_NET.items() for word in (f"--{key}", value))]) == 0
    monkeypatch.setenv("TAG2MASK_RUN", str(tmp_path))
    monkeypatch.setenv("TAG2MASK_ROOT", str(sample))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = [out for cell in notebook.cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
    assert len(pictures) >= 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_without_outputs(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
