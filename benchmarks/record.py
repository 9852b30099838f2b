"""What the benchmarks here have in common: the JSON file of a measurement, and memory."""

import platform
import resource
from pathlib import Path
from typing import Any

from tag2mask.io.files import write_json
from tag2mask.io.records import commit, versions


def write_record(path: Path, figures: dict[str, Any]) -> dict[str, Any]:
    """Write ``figures`` as JSON, and after them what they were measured with; return all of it.

    Args:
        path: the file, replaced if it is there.
        figures: what was measured; a key says its unit where it has one (``cpu_seconds``, ``peak_mb``).

    Returns:
        ``figures``, then ``commit`` (``+changes`` where the source differs from it), ``versions`` by package, and
        ``machine``, the processor's architecture.
    """
    made = {"commit": commit(), "versions": versions(), "machine": platform.machine()}
    record = {**figures, **made}
    write_json(path, record)
    return record


def peak_mb() -> int:
    """Return the most memory that this process has held so far, in MiB (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
