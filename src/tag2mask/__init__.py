"""From image tags to segmentation masks: CAMs, pseudo-labels and the networks trained on them."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tag2mask.cli.run import Results

__version__ = "0.1.0"


def run(
    folder: str | Path,
    out: str | Path | None = None,
    until: str = "masks",
    time: str | None = None,
    quick: bool = False,
    overwrite: bool = False,
) -> "Results":
    """Do what `tag2mask run` does; return ``masks``, ``report`` and ``network``, three paths.

    What is not made is None. Photographs that were skipped are named on standard error.

    Args:
        folder: of photographs, with images/ and tags.csv.
        out: run folder; ``runs/`` and the name of ``folder`` where it is None.
        until: ``cams``, ``labels`` or ``masks``.
        time: that it may take, such as ``10m``.
        quick: do about half of the work.
        overwrite: choose anew, and replace what is there.

    Raises:
        InputError: what the user can mend.
    """
    from tag2mask.cli.run import run_folder

    return run_folder(Path(folder), None if out is None else Path(out), until, time, quick, overwrite)[1]
