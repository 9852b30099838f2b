"""What the files of a folder were made from, so that a stage can tell what has changed since.

Beside ``run.json`` lies ``inputs.csv``: a line for each photograph with what its file, or the training, was made from.
A training has tags and size of each photograph, or the digest of each label; a CAM folder the tags; a label folder the
digest of each CAM file. Together with the configuration they are the *state* of a folder (`state`), which the next
stage keeps in its own record.
"""

import csv
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tag2mask.errors import InputError
from tag2mask.io.files import atomic, read_json
from tag2mask.io.records import RUN_FILE, STEPS, first_difference, made_with

INPUTS_FILE = "inputs.csv"
COLUMNS = ("name", "made_from")
LAST = Path("checkpoints") / "last.ckpt"
"""Where a run folder holds its checkpoint."""

Inputs = Mapping[str, str]
"""Name of a photograph -> what its file was made from, in words and digests."""


def write_inputs(folder: Path, inputs: Inputs) -> None:
    """Write ``inputs.csv`` into a folder."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows(inputs.items())
    with atomic(Path(folder) / INPUTS_FILE) as file:
        file.write(text.getvalue().encode(errors="surrogateescape"))


def read_inputs(folder: Path) -> dict[str, str] | None:
    """Read ``inputs.csv`` of a folder; None where there is none."""
    path = Path(folder) / INPUTS_FILE
    try:
        text = path.read_bytes().decode(errors="surrogateescape")
    except FileNotFoundError:
        return None
    rows = list(csv.reader(io.StringIO(text)))
    if not rows or tuple(rows[0]) != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
        raise InputError(
            f"{path} is damaged; expected {','.join(COLUMNS)}; delete what is in the folder, or restore it"
        )
    return dict(rows[1:])  # type: ignore[arg-type]


def difference(before: Inputs, now: Inputs) -> str | None:
    """Say in words what has changed, with the first photograph that differs; None where nothing has."""
    other = [name for name in before if name in now and before[name] != now[name]]
    gone, new = ([name for name in a if name not in b] for a, b in ((before, now), (now, before)))
    if other:
        first = f"the first {other[0]}: {before[other[0]]}, now {now[other[0]]}"
        return f"{len(other)} of {len(now)} photographs differ, {first}"
    if gone or new:
        found = [
            f"{len(names)} {what}, the first {names[0]}" for names, what in ((gone, "gone"), (new, "new")) if names
        ]
        return f"{len(before)} photographs, now {len(now)}: {'; '.join(found)}"
    return "the same photographs in another order" if list(before) != list(now) else None


def of_photo(image: Path) -> str:
    """Describe a photograph by the size of its file; it is not opened."""
    try:
        return f"{image.stat().st_size} bytes"
    except OSError:
        return "no file"


def of_tags(tags: Sequence[str] | None) -> str:
    """Describe tags; None is untagged."""
    return "untagged" if tags is None else ";".join(tags) or "no tags"


def of_label(path: Path) -> str:
    """Describe a label PNG by the digest of its content."""
    try:
        return f"label {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    except OSError:
        return "no label"


def of_cam(path: Path) -> str:
    """Describe a CAM file by the checksums that it keeps of its arrays; they are not read."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = sorted((part.filename, part.CRC, part.file_size) for part in archive.infolist())
    except (OSError, zipfile.BadZipFile):
        return "no whole CAM file"
    return f"CAM {hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"


def digest(content: Any) -> str:
    """Return the SHA-256 of plain data."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def state(folder: Path) -> str | None:
    """Return a digest of what a folder was made from: configuration and inputs; None where nothing says."""
    made = made_with(folder)
    return None if made is None else digest([made, list((read_inputs(folder) or {}).items())])


def record_of(folder: Path) -> dict[str, Any]:
    """Return the ``run.json`` of a folder; empty where there is none."""
    path = Path(folder) / RUN_FILE
    if not path.is_file():
        return {}
    record = read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        raise InputError(f"{path} is not the record of a run; delete it, and what is beside it if you do not know it")
    return record


def outdated(folder: Path) -> str | None:
    """Say why a folder of CAM files, labels or masks is not of what it was made from any more; None where it is.

    A folder is compared with what its record names, as far as that is still there: CAM files and masks with the run
    of their network, labels with their CAM files, and these with theirs.
    """
    record = record_of(folder)
    config = record.get("config", {})
    if "checkpoint" in record and Path(record["checkpoint"]).name == LAST.name:
        run = Path(record["checkpoint"]).parents[1]
        training = record_of(run)
        if training and training.get("weights", config.get("weights")) != config.get("weights"):
            return f"it was made with an earlier network than the one that {run} holds now"
    if "cams_state" in record:
        cams = Path(config["cams"])
        now = state(cams)
        if now is not None and now != record["cams_state"]:
            return f"it was made from other CAM files than {cams} holds now"
        why = outdated(cams)
        return None if why is None else f"so are its CAM files in {cams}: {why}"
    return None


def require_current(folder: Path, remedy: str) -> None:
    """Raise ``InputError`` where a folder that a stage reads is outdated; ``remedy`` says what to do."""
    why = outdated(folder)
    if why is not None:
        raise InputError(f"{folder} is out of date: {why}; {remedy}")


def vanished(record: Mapping[str, Any]) -> str:
    """Say in words which tags have no pixel in their label, of the record of a folder of labels."""
    by_class = ", ".join(f"{name} {count}" for name, count in record["vanished"].items())
    empty = f", {record['empty']} of them have no class at all" if record["empty"] else ""
    of = f"in {record['lacking']} of {record['labels']} labels a tag has no pixel ({by_class}){empty}"
    return f"{of}; a lower threshold keeps more"


class Redo(NamedTuple):
    """What a stage that makes a file for each photograph finds in its folder.

    Attributes:
        inputs: to be recorded: of this stage, and of files that are not on its list any more.
        stale: names of files that were made from something else than now.
        said: lines for the person.
    """

    inputs: dict[str, str]
    stale: list[str]
    said: list[str]


def redo(folder: Path, now: Inputs, done: Sequence[str], what: str) -> Redo:
    """Tell the files that a stage has made already from those that it must make again.

    Args:
        folder: of the files.
        now: what the files of this stage are made from now.
        done: names of those that are there.
        what: they are, in words.
    """
    before = read_inputs(folder)
    if before is None:
        unknown = f"{len(done)} {what} in {folder} do not say what they were made from; --overwrite makes them again"
        return Redo(dict(now), [], [unknown] if done else [])
    stale = [name for name in done if name in now and before.get(name) != now[name]]
    beyond = [name for name in done if name not in now]
    said = []
    if stale:
        first = f"{stale[0]}: {before.get(stale[0], 'not known')}, now {now[stale[0]]}"
        said.append(f"{len(stale)} {what} in {folder} were made from something else ({first}): they are made again")
    if beyond:
        said.append(
            f"{len(beyond)} {what} in {folder} are of photographs that are not asked for, the first {beyond[0]}"
        )
    return Redo({**before, **now}, stale, said)


RunState = Literal["new", "unfinished", "finished"]


def training_state(
    run: Path, config: Mapping[str, Any], classes: Sequence[str], inputs: Inputs, overwrite: bool = False
) -> RunState:
    """Say whether a training starts anew in a run folder, goes on there, or has been finished there.

    Args:
        run: the run folder.
        config: settings of the training.
        classes: names of its classes.
        inputs: what it is trained on.
        overwrite: start anew whatever is there.

    Raises:
        InputError: the folder holds the training of other settings, or on other data, or has lost its checkpoint.
    """
    if overwrite:
        return "new"
    why = training_difference(run, config, classes, inputs)
    if why is not None:
        raise InputError(
            f"{run} was made with {why}; give --overwrite to replace it, --ckpt_path last to train its network on, or "
            "another folder with --trainer.default_root_dir"
        )
    finished, whole = record_of(run).get("finished"), (run / LAST).is_file()
    if finished and not whole:
        raise InputError(f"{run} was trained to its end, but {LAST} is gone; restore it, or give --overwrite")
    return "finished" if finished else "unfinished" if whole and record_of(run) else "new"


def training_difference(run: Path, config: Mapping[str, Any], classes: Sequence[str], inputs: Inputs) -> str | None:
    """Say in words what a run folder was made with that differs from what is given now; None where nothing does."""
    record = record_of(run)
    if not record:
        return None
    now = json.loads(json.dumps(config, default=str))
    if record["config"] != now:
        return f"another configuration ({first_difference(record['config'], now)})"
    if list(record.get("classes", classes)) != list(classes):
        return f"other classes ({', '.join(record['classes'])}, now {', '.join(classes)})"
    before = read_inputs(run)
    changed = None if before is None else difference(before, inputs)
    return None if changed is None else f"other data ({changed})"


def discard(run: Path) -> None:
    """Delete what a training and its outputs have left in a run folder: nothing of it is of the next network.

    Nothing is done where no training has left its record. Else checkpoints, logs, pictures, scores and report go, and
    CAM files, labels and masks in every folder that has the record of a stage. Other files stay, as do the folders of
    other trainings.
    """
    if "model" not in record_of(run).get("config", {}):
        return
    for name in ("logs", "pictures", "scores"):
        shutil.rmtree(run / name, ignore_errors=True)
    for path in [*run.glob("*_evaluation.json"), *run.glob("masks/*_evaluation.json")]:
        path.unlink()
    for record in [*run.glob(f"*/{RUN_FILE}"), *run.glob(f"*/*/{RUN_FILE}")]:
        if "model" not in record_of(record.parent).get("config", {}):
            _discard_outputs(record.parent)
    pages = (run / f"report.{ending}" for ending in ("html", "md", "json"))
    records = (run / name for name in ("config.yaml", INPUTS_FILE, RUN_FILE))
    for path in [*(run / LAST.parent).glob("*.ckpt"), *pages, *records]:
        path.unlink(missing_ok=True)


def _discard_outputs(folder: Path) -> None:
    """Delete the outputs of a stage, and the folder where nothing else is in it."""
    for name in (STEPS, "soft"):
        shutil.rmtree(folder / name, ignore_errors=True)
    names = (INPUTS_FILE, "predicted_tags.csv", RUN_FILE)
    for path in [*folder.glob("*.npz"), *folder.glob("*.png"), *(folder / name for name in names)]:
        path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
