"""The report of a folder of runs: numbers, curves and pictures as HTML, Markdown and JSON."""

from pathlib import Path

from tag2mask.io.files import atomic, write_json
from tag2mask.report.page import page, scores
from tag2mask.report.runs import read_runs
from tag2mask.report.summary import Summary


def write_report(folder: Path) -> str:
    """Write ``report.html``, ``report.md`` and ``report.json`` into ``folder``; return the scores as text.

    ``folder`` holds runs as subfolders, or is one run itself. An error in what they hold leaves the old report.
    """
    summary = Summary(read_runs(folder))
    result = summary.json()
    texts = {"report.html": page(folder.resolve().name, summary), "report.md": scores(summary, "md")}
    write_json(folder / "report.json", result)
    for name, text in texts.items():
        with atomic(folder / name) as file:
            file.write(text.encode())
    return scores(summary, "txt").rstrip("\n")
