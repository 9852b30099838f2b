"""The arrays in tests/reference, see the README there."""

from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent / "reference"


def reference(name: str) -> dict[str, torch.Tensor]:
    """Return the arrays of one file as tensors."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as data:
        return {key: torch.as_tensor(data[key]) for key in data.files}
