"""``inputs.csv`` beside ``run.json``: what each file of a folder was made from, and what has changed since.

It has a line for each photograph. The line of a CAM file has the tags and the size of the photograph, the line of a
label PNG has the digest of the CAM file. A training is recorded likewise: by tags and sizes, or by digests of labels.
The *state* of a folder is one digest of its configuration and its inputs; the next stage keeps it in its ``run.json``.
"""

import csv
import hashlib
import io
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tag2mask.errors import DamagedError, MismatchError, MissingError
from tag2mask.io.files import TEXT, atomic, decoding
from tag2mask.io.names import checked
from tag2mask.io.records import (
    EDGES,
    ROUNDS,
    RUN_FILE,
    SOFT,
    STEPS,
    changed_setting,
    digest_of_data,
    digest_of_file,
    made_with,
)
from tag2mask.io.records import record_of as record_of  # other rooms take it from here

INPUTS_FILE, COLUMNS = "inputs.csv", ["name", "made_from"]
LAST = Path("checkpoints") / "last.ckpt"  # where a run folder holds its checkpoint
Inputs = Mapping[str, str]  # name of a photograph -> what its file was made from, in words and digests
RunState = Literal["new", "unfinished", "finished"]


def write_inputs(folder: Path, inputs: Inputs) -> None:
    """Write ``inputs.csv`` into a folder."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *inputs.items()])
    with atomic(folder / INPUTS_FILE) as file:
        file.write(text.getvalue().encode(errors="surrogateescape"))


def read_inputs(folder: Path) -> dict[str, str] | None:
    """Read ``inputs.csv`` of a folder; None where there is none, ``DamagedError`` where it is another table."""
    path = folder / INPUTS_FILE
    if not path.is_file():
        return None
    with decoding(path, "a table", "delete what is in the folder, or restore it", TEXT):
        rows = list(csv.reader(io.StringIO(path.read_bytes().decode(errors="surrogateescape"))))
    if rows[:1] != [COLUMNS] or any(len(row) != len(COLUMNS) for row in rows):
        raise DamagedError(
            f"{path} is damaged; expected {','.join(COLUMNS)}; delete what is in the folder, or restore it"
        )
    return {checked(name, path): made for name, made in rows[1:]}


def of_photo(image: Path) -> str:
    """Describe a photograph by the size of its file, which is not opened."""
    return f"{image.stat().st_size} bytes" if image.is_file() else "no file"


def of_tags(tags: Sequence[str] | None) -> str:
    """Describe the tags of a photograph; None is untagged."""
    return "untagged" if tags is None else ";".join(tags) or "no tags"


def of_label(path: Path) -> str:
    """Describe a label PNG by the digest of its file."""
    try:
        return f"label {digest_of_file(path)[:16]}"
    except OSError:
        return "no label"


def of_cam(path: Path) -> str:
    """Describe a CAM file by the checksums that it keeps of its arrays; the arrays are not read."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = sorted((part.filename, part.CRC, part.file_size) for part in archive.infolist())
    except Exception:  # zipfile and zlib raise half a dozen kinds for a damaged file
        return "no whole CAM file"
    return f"CAM {hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"


def state(folder: Path) -> str | None:
    """Return the digest of the configuration and the inputs of a folder; None where it has no ``run.json``."""
    made = made_with(folder)
    return None if made is None else digest_of_data([made, list((read_inputs(folder) or {}).items())])


def outdated(folder: Path) -> str | None:
    """Say why a folder of CAM files, labels or masks is out of date; None where it is not.

    CAM files and masks are where the run of their network holds other weights now; labels are where their CAM files
    have changed or are out of date. What is not there any more is not compared.
    """
    record = record_of(folder)
    config, checkpoint = record.get("config", {}), Path(record.get("checkpoint", ""))
    if checkpoint.parts[-2:] == LAST.parts:
        run, weights = checkpoint.parents[1], config.get("weights")
        if record_of(run).get("weights", weights) != weights:
            return f"it was made with an earlier network than the one that {run} holds now"
    if "cams_state" in record:
        cams = Path(config["cams"])
        if state(cams) not in (None, record["cams_state"]):
            return f"it was made from other CAM files than {cams} holds now"
        if reason := outdated(cams):
            return f"its CAM files in {cams} are out of date too: {reason}"
    return None


def require_current(folder: Path, remedy: str) -> None:
    """Raise ``MismatchError`` where a folder that a stage reads is out of date; ``remedy`` says what to do."""
    if reason := outdated(folder):
        raise MismatchError(f"{folder} is out of date: {reason}; {remedy}")


def vanished(record: Mapping[str, Any]) -> str:
    """Say which tags have no pixel in their label, from the record of a folder of labels."""
    by_class = ", ".join(f"{name} {count}" for name, count in record["vanished"].items())
    empty = f", {record['empty']} of them have no class at all" if record["empty"] else ""
    labels = f"{record['lacking']} of {record['labels']} labels"
    return f"in {labels} a tag has no pixel ({by_class}){empty}; a lower threshold keeps more"


def redo(folder: Path, now: Inputs, done: Sequence[str], files: str) -> tuple[dict[str, str], list[str], list[str]]:
    """Find the files of a folder that a stage must make again, since they were made from other inputs than ``now``.

    The arguments ``now`` and ``done`` are the inputs of each photograph on the list and the names of the files that are
    there; ``files`` is what messages call the files. Returned are the inputs to record (files that are not on the list
    keep theirs), the names of the files to make again, and lines for the user.
    """
    before, there = read_inputs(folder), f"{files} in {folder}"
    if before is None:
        unknown = f"{len(done)} {there} do not say what they were made from; --overwrite makes them again"
        return dict(now), [], [unknown] if done else []
    messages = []
    if stale := [name for name in done if name in now and before.get(name) != now[name]]:
        first = f"{stale[0]}: {before.get(stale[0], 'not known')}, now {now[stale[0]]}"
        messages.append(f"{len(stale)} {there} had other inputs ({first}): they are made again")
    if others := [name for name in done if name not in now]:
        messages.append(f"{len(others)} {there} are not on the list, the first {others[0]}: they are kept")
    return {**before, **now}, stale, messages


def training_state(
    run: Path, config: Mapping[str, Any], classes: Sequence[str], inputs: Inputs, overwrite: bool = False
) -> RunState:
    """Say whether a training starts anew in a run folder, goes on there, or is finished there.

    Without ``overwrite``, a training with other settings or on other data there is a ``MismatchError``, and a finished
    one without its checkpoint a ``MissingError``.
    """
    if overwrite:
        return "new"
    if difference := training_difference(run, config, classes, inputs):
        raise MismatchError(
            f"{run} was made with {difference}; give --overwrite to replace it, --ckpt_path last to train its network "
            "on, or another folder with --trainer.default_root_dir"
        )
    record, there = record_of(run), (run / LAST).is_file()
    if record.get("finished") and not there:
        raise MissingError(f"{run} was trained to its end, but {LAST} is gone; restore it, or give --overwrite")
    if not record or not there:
        return "new"
    return "finished" if record.get("finished") else "unfinished"


def training_difference(run: Path, config: Mapping[str, Any], classes: Sequence[str], inputs: Inputs) -> str | None:
    """Say what a run folder was made with that differs from this training; None where nothing does."""
    record = record_of(run)
    if not record:
        return None
    if setting := changed_setting(record, config):
        return f"another configuration ({setting})"
    if list(record.get("classes", classes)) != list(classes):
        return f"other classes ({', '.join(record['classes'])}, now {', '.join(classes)})"
    before = read_inputs(run)
    changed = None if before is None else changed_input(before, inputs)
    return f"other data ({changed})" if changed else None


def changed_input(before: Inputs, now: Inputs) -> str | None:
    """Say which inputs have changed, and name the first; None where they are the same, in the same order."""
    if other := [name for name in before if name in now and before[name] != now[name]]:
        first = f"{other[0]}: {before[other[0]]}, now {now[other[0]]}"
        return f"{len(other)} of {len(now)} photographs differ, the first {first}"
    groups = {"gone": [name for name in before if name not in now], "new": [name for name in now if name not in before]}
    if counts := [f"{len(names)} {word}, the first {names[0]}" for word, names in groups.items() if names]:
        return f"{len(before)} photographs, now {len(now)}: {'; '.join(counts)}"
    return None if list(before) == list(now) else "the same photographs in another order"


def discard(run: Path) -> None:
    """Delete what a training and the stages after it left in a run folder: nothing of it is of the next network.

    A folder without the record of a training, other files and the folders of other trainings stay. Checkpoints, logs,
    pictures, scores and the report go, and CAM files, labels and masks in folders with the record of a stage.
    """

    def is_training(folder: Path) -> bool:
        return "model" in record_of(folder).get("config", {})

    def delete(folder: Path, *patterns: str) -> None:
        for path in [path for pattern in patterns for path in folder.glob(pattern)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    if not is_training(run):
        return
    delete(run, "logs", "pictures", "scores", "*_evaluation.json", "masks/*_evaluation.json")
    delete(run, "report.html", "report.md", "report.json")
    for folder in [record.parent for depth in ("*/*", "*") for record in run.glob(f"{depth}/{RUN_FILE}")]:
        if not is_training(folder):
            delete(folder, STEPS, SOFT, EDGES, ROUNDS, "*.npz", "*.png", "predicted_tags.csv", INPUTS_FILE, RUN_FILE)
            if not any(folder.iterdir()):
                folder.rmdir()
    delete(run, "checkpoints/*.ckpt", "config.yaml", INPUTS_FILE, RUN_FILE)
