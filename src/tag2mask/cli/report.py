"""Put the scores, curves and pictures of runs on one page.

reads   run folders: run.json, logs, pictures, and *_evaluation.json of `tag2mask evaluate`
writes  report.html (one file, to be sent), report.md and report.json into FOLDER

Example:
  tag2mask report runs/demo
"""

from pathlib import Path

from tag2mask.cli.options import Parser
from tag2mask.report import write_report


def report(words: list[str]) -> None:
    """Run the verb."""
    parser = Parser("tag2mask report", __doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="folder whose subfolders are runs, or one run")
    folder = parser.parse_args(words).folder
    print(f"{write_report(folder)}\nwritten to {folder / 'report.html'}, report.md and report.json")
