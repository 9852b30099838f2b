"""What a W&B run wrote offline: records in a file of LevelDB's log format, a protobuf message each."""

import json
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

HEAD, BLOCK = 7, 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


class WandbRun:
    """The one offline run in a run folder.

    Attributes:
        folder: of its files.
        group: which it belongs to.
        job_type: what it did.
        name: of the run.
        config: its configuration.
        history: what was logged, call by call.
    """

    def __init__(self, run: Path) -> None:
        (self.folder,) = (run / "wandb").glob("offline-run-*")
        (path,) = self.folder.glob("*.wandb")
        self.config: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        for record in finished(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run_ = record.run
                self.group, self.job_type, self.name = run_.run_group, run_.job_type, run_.display_name
            if kind == "config":
                self.config |= nested(record.config.update)
            if kind == "history":
                self.history.append(nested(record.history.item))

    def values(self, key: str) -> list[Any]:
        """What was logged under a key, in time."""
        return [row[key] for row in self.history if key in row]

    @property
    def keys(self) -> set[str]:
        """Of all that was logged."""
        return {key for row in self.history for key in row if not key.startswith("_")}


def finished(path: Path) -> list[Record]:
    """The messages of a run that has ended, once W&B's own process has written the last: on a busy machine it lags."""
    for _ in range(600):
        found = list(records(path))
        if found and found[-1].WhichOneof("record_type") == "exit":
            return found
        time.sleep(0.1)
    raise TimeoutError(f"{path} has no end after a minute")


def nested(items: Iterable[Any]) -> dict[str, Any]:
    """Put keys and values together."""
    found: dict[str, Any] = {}
    for item in items:
        *path, last = item.nested_key or [item.key]
        place = found
        for part in path:
            place = place.setdefault(part, {})
        place[last] = json.loads(item.value_json)
    return found


def records(path: Path) -> Iterator[Record]:
    """Read the messages of a ``.wandb`` file."""
    data, parts, at = path.read_bytes(), b"", HEAD
    assert data.startswith(b":W&B")
    while at + HEAD <= len(data):
        room = BLOCK - at % BLOCK
        if room < HEAD:  # padding
            at += room
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEAD])
        parts = (parts if kind in (MIDDLE, LAST) else b"") + data[at + HEAD : at + HEAD + length]
        at += HEAD + length
        if kind in (FULL, LAST):
            record = Record()
            record.ParseFromString(parts)
            yield record
