"""COCO's run-length codes of masks, checked before they are decoded."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pycocotools import mask

CODE = re.compile("([P-o]*[0-O])+")  # a compressed run-length code, each number as in pycocotools' maskApi.c


def compressed(code: Mapping[str, Any], size: Sequence[int]) -> dict[str, Any]:
    """Return a run-length code, ``counts`` text or a list, as pycocotools decodes it.

    Raises:
        ValueError: it is not of a mask of ``size`` (height, width), or does not cover all of its pixels; pycocotools
            would give chance values for one that is too short.
    """
    counts, plain = code.get("counts"), {"size": list(size), "counts": code.get("counts")}
    try:
        if isinstance(counts, str):
            whole = CODE.fullmatch(counts) is not None and mask.encode(mask.decode(plain))["counts"] == counts.encode()
        else:
            runs = list(counts or ())
            whole = all(type(run) is int and run >= 0 for run in runs) and sum(runs) == size[0] * size[1]
    except TypeError:
        whole = False
    if not whole or code.get("size") != plain["size"]:
        raise ValueError(f"no code of size {plain['size']} with counts that add up to all of its pixels")
    return plain if isinstance(counts, str) else mask.frPyObjects(plain, *size)  # type: ignore[no-any-return]
