"""The verb ``report``: one page of all runs."""

from pathlib import Path

from tag2mask.cli.options import Parser
from tag2mask.report import write_report

DESCRIPTION = """Put the scores, curves and pictures of runs on one page.

reads   run folders: run.json, logs, pictures, and *_evaluation.json of `tag2mask evaluate`
writes  report.html (one file, to be sent), report.md and report.json into FOLDER"""
EXAMPLE = """example
  tag2mask report runs/demo"""


def report(words: list[str]) -> int:
    """Run the verb."""
    parser = Parser("tag2mask report", description=DESCRIPTION, epilog=EXAMPLE)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="folder whose subfolders are runs, or one run")
    args = parser.parse_args(words)
    print(write_report(args.folder))
    print(f"written to {args.folder / 'report.html'}, report.md and report.json")
    return 0
