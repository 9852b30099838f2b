"""The part of the page that says how everything was made."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import yaml

from tag2mask.report.markup import Markup, el, join, note
from tag2mask.report.runs import Evaluation, Run

WHAT = {"": "training", "cams": "CAMs", "seeds": "confident labels", "labels": "pseudo-labels", "masks": "masks"}
FACTS = ("command", "commit", "seed", "time")


def made(runs: list[Run]) -> Markup:
    """Return what each run did: commands, commits, seeds, versions, times, configurations."""
    return join(*(_run(run) for run in runs))


def _run(run: Run) -> Markup:
    parts = [_record(WHAT.get(name, name), record) for name, record in run.records.items()]
    parts += [_scored(name, evaluation) for name, evaluation in run.evaluations.items()]
    if "" not in run.records:
        parts.insert(0, note("No run.json of a training in this folder."))
    when = run.records.get("", {}).get("time")
    title = el("summary", el("b", run.name), f" {when}" if when else None)
    return el("details", title, *parts)


def _record(what: str, record: Mapping[str, Any]) -> Markup:
    facts = {name: _command(record[name]) if name == "command" else record[name] for name in FACTS if name in record}
    lacking = [name for name in ("command", "commit", "time") if name not in record]
    if what == "training" and "seed" not in record:
        lacking.append("seed")
    versions = record.get("versions")
    if isinstance(versions, Mapping):
        facts["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    config = yaml.safe_dump(record.get("config", {}), sort_keys=False, allow_unicode=True, width=110)
    return join(
        el("h4", what),
        _facts(facts),
        note(f"Not recorded: {', '.join(lacking)}.") if lacking else None,
        el("details", el("summary", "configuration"), el("pre", config)),
    )


def _command(command: Any) -> str:
    """The command without the folder of its program."""
    program, space, rest = str(command).partition(" ")
    return f"{PurePath(program).name}{space}{rest}"


def _scored(name: str, evaluation: Evaluation) -> Markup:
    options = {key: value for key, value in evaluation.config.items() if key != "predictions"}
    facts = {"commit": evaluation.commit or "not recorded", "images": evaluation.images, **options}
    return join(el("h4", f"scores of {name}"), _facts(facts))


def _facts(facts: Mapping[str, Any]) -> Markup:
    return el("dl", *(join(el("dt", name), el("dd", str(value))) for name, value in facts.items()))
