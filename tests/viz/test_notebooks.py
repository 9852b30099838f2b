"""The notebooks run on the sample set as they are stored, one after the other in one kernel that imports torch once."""

import base64
import io
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from tests.commands import SMALL_NET, TINY

NOTEBOOKS = sorted(Path("notebooks").glob("*.ipynb"))
PICTURES = {"cams_to_labels": 8, "failure_analysis": 6, "inspect_cams": 9, "own_photographs": 7}
CHECKS = {"own_photographs": "assert len(list((out / 'masks').glob('*.png'))) == len(photos) == 12"}
LINES = 10
TRAINING = {**TINY, **SMALL_NET, "trainer.max_steps": "2", "trainer.limit_val_batches": "0"}


@pytest.fixture(scope="module")
def kernel(runs: Path, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelManager]:
    """A kernel in the folder of the notebooks that knows where runs and photographs are."""
    places = {"TAG2MASK_RUNS": str(runs), "TAG2MASK_ROOT": str(sample)}
    places["TAG2MASK_OUT"] = str(tmp_path_factory.mktemp("own"))
    places["TAG2MASK_ARGS"] = shlex.join(word for key, value in TRAINING.items() for word in (f"--{key}", value))
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd="notebooks", env={**os.environ, **places})
    yield manager
    manager.shutdown_kernel(now=True)


def execute(kernel: KernelManager, cells: list[nbformat.NotebookNode]) -> list[np.ndarray]:
    """Run cells where no name of another notebook is left; return the pictures that they show."""
    fresh = new_code_cell("%reset -f")
    NotebookClient(new_notebook(cells=[fresh, *cells]), km=kernel, timeout=120).execute()
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data["image/png"]))))
        for data in outputs
        if "image/png" in data
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_on_the_sample_set(path: Path, kernel: KernelManager) -> None:
    checks = [new_code_cell(CHECKS[path.stem])] if path.stem in CHECKS else []
    pictures = execute(kernel, [*nbformat.read(path, as_version=4).cells, *checks])
    assert len(pictures) == PICTURES[path.stem]
    assert all(picture.std() > 5 for picture in pictures)  # none is blank
    assert max(picture.shape[1] for picture in pictures) < 1600  # pixels; fits a page


CONTROL = """import numpy as np
from tag2mask.viz.notebook import Slider, explore
draw = lambda level, more: np.full((2, 2, 3), level + more, np.uint8)
controls = explore(draw, {'level': Slider(0, 255, 10), 'more': [1, 2]})"""


def test_a_control_draws_its_picture_anew(kernel: KernelManager) -> None:
    moves = new_code_cell("controls['level'].value, controls['more'].value = 100, 2")
    (moved,) = execute(kernel, [new_code_cell(CONTROL), moves])
    assert (moved == 102).all()


def test_without_ipywidgets_the_first_picture_stands(kernel: KernelManager) -> None:
    without = new_code_cell("import sys\nkept, sys.modules['ipywidgets'] = sys.modules.get('ipywidgets'), None")
    after = new_code_cell("assert controls == {}\nsys.modules['ipywidgets'] = kept")
    (still,) = execute(kernel, [without, new_code_cell(CONTROL), after])
    assert (still == 11).all()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_plainly(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    sources = [cell.source for cell in cells if cell.cell_type == "code"]
    assert [source for source in sources if len(source.splitlines()) > LINES] == []
    assert [source for source in sources if re.search(r"(\.|import )_\w", source)] == []  # public names only
    assert [line for source in sources for line in source.splitlines() if len(line) > 120] == []
