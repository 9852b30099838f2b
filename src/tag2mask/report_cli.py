"""The verb ``report``: one page of all runs."""

from pathlib import Path

from tag2mask.arguments import Parser
from tag2mask.report import write_report


def report(words: list[str]) -> int:
    """Put the scores, curves and pictures of runs on one page: report.html, with report.md and report.json."""
    parser = Parser("tag2mask report", description=report.__doc__)
    parser.add_argument("folder", type=Path, help="folder whose subfolders are runs, or one run")
    given = parser.parse_args(words)
    print(write_report(given.folder))
    print(f"written to {given.folder / 'report.html'}, report.md and report.json")
    return 0
