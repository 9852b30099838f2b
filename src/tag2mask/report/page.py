"""The report as one HTML page that needs no other file, no network and no JavaScript."""

from importlib import resources
from typing import Any

from tag2mask import __version__
from tag2mask.io.records import commit
from tag2mask.report.album import Album
from tag2mask.report.curves import curves
from tag2mask.report.made import made
from tag2mask.report.markup import Markup, el, join, note
from tag2mask.report.panels import by_age, by_run, worst
from tag2mask.report.runs import Run
from tag2mask.report.scores import by_class, headline, stages
from tag2mask.report.summary import Chain, chain


def page(name: str, runs: list[Run], result: dict[str, dict[str, Any]], album: Album | None = None) -> str:
    """Return the page.

    Args:
        name: of the folder that holds the runs.
        runs: what `read_runs` found there.
        result: their `summary`.
        album: the room for pictures.
    """
    album = album or Album()
    parts = _parts(runs, chain(runs), result, album)
    menu = el("nav", *(el("a", title, href=f"#{key}") for key, (title, _) in parts.items()))
    body = [el("section", el("h2", title), content, id=key) for key, (title, content) in parts.items()]
    top = el("header", el("h1", f"Report: {name}"), el("p", _counts(runs)), menu)
    foot = el("footer", f"tag2mask {__version__}, commit {commit()}. Scores are defined in docs/protocol.md.")
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"tag2mask: {name}"),
        el("style", Markup(resources.files("tag2mask.report").joinpath("report.css").read_text(encoding="utf-8"))),
    )
    return f"<!doctype html>\n{el('html', head, el('body', top, el('main', *body), foot), lang='en')}\n"


def _parts(
    runs: list[Run], shown: Chain, result: dict[str, dict[str, Any]], album: Album
) -> dict[str, tuple[str, Markup]]:
    pictures = {
        "worst": ("Worst images", worst(shown, album)),
        "modules": ("CAMs by run", by_run(runs, album)),
        "age": ("CAMs by training age", by_age(runs, shown, album)),
    }
    return {
        "stages": ("From tags to masks", headline(shown)),
        "numbers": ("Numbers of each stage", stages(runs, result)),
        "classes": ("IoU by class", by_class(runs, shown)),
        "curves": ("Training", curves(runs)),
        "modules": pictures["modules"],
        "age": ("CAMs by training age", join(pictures["age"][1], *_left_out(album))),
        "worst": pictures["worst"],
        "made": ("What was run", made(runs)),
    }


def _left_out(album: Album) -> list[Markup]:
    found = []
    if album.left_out:
        found.append(note(f"{album.left_out} pictures of this page were left out, to keep it small enough to send."))
    if album.damaged:
        found.append(note(f"{album.damaged} pictures could not be read."))
    return found


def _counts(runs: list[Run]) -> str:
    scored = sum(len(run.evaluations) for run in runs)
    names = ", ".join(run.name for run in runs)
    runs_of = f"{len(runs)} run{'s' if len(runs) > 1 else ''} ({names})"
    return f"{runs_of}, {scored} folders of predictions scored. Scores are in percent."
