"""From image tags to segmentation masks: CAMs, pseudo-labels and the networks trained on them."""

from typing import Any

__version__ = "0.1.0"


def run(folder: Any, out: Any = None, until: str = "masks", **settings: Any) -> Any:
    """Do all of `tag2mask run`: return the ``masks`` folder, the ``report`` and the ``network``, three paths.

    Args:
        folder: of photographs, with images/ and tags.csv.
        out: run folder; ``runs/`` and the name of ``folder`` where it is None.
        until: ``cams``, ``labels`` or ``masks``.
        settings: ``budget`` in seconds, ``quick`` and ``overwrite``.

    Raises:
        InputError: what the user can mend.
    """
    from pathlib import Path

    from tag2mask.cli.run import run_folder

    return run_folder(Path(folder), None if out is None else Path(out), until, **settings)[1]
