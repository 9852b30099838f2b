"""One writer for each folder: who is refused, who waits, and that a lock ends with its process."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tag2mask.cli.main import main
from tag2mask.errors import OccupiedError
from tag2mask.io import locks
from tests.commands import fault

HOLDER = """
import sys, time
from pathlib import Path
from tag2mask.io import locks
sys.argv = ["tag2mask", "labels", "--out", "there"]
locks.take(Path(sys.argv_folder), shared=sys.argv_shared)
print("held", flush=True)
time.sleep(60)
"""


def holder(folder: Path, shared: bool = False) -> "subprocess.Popen[str]":
    """A process that holds a folder."""
    code = HOLDER.replace("sys.argv_folder", repr(str(folder))).replace("sys.argv_shared", repr(shared))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(locks, "PATIENCE", 0.5)
    yield
    locks.release_all()


def test_a_second_writer_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    process = holder(tmp_path / "out")
    with pytest.raises(OccupiedError) as raised:
        locks.take(tmp_path / "out")
    locks.take(tmp_path / "a" / "b")
    locks.release_all()
    assert not (tmp_path / "a").exists()  # nothing was written there
    assert f"process {process.pid} on " in str(raised.value)
    assert "(tag2mask labels --out there ...)" in str(raised.value)
    process.send_signal(signal.SIGKILL)
    process.wait()
    locks.take(tmp_path / "out")  # the lock has ended with its process
    locks.take(tmp_path / "out")  # which one process may hold twice
    assert f"process {os.getpid()}" in (tmp_path / "out" / locks.LOCK).read_text()
    locks.release_all()
    assert not list((tmp_path / "out").iterdir())


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(OccupiedError, match="is a file"):
        locks.take(tmp_path / "x")


def test_shards_share_a_folder_and_nobody_else(tmp_path: Path) -> None:
    process = holder(tmp_path, shared=True)
    locks.take(tmp_path, shared=True)
    locks.release_all()
    assert (tmp_path / locks.LOCK).exists()  # for the other shard
    with pytest.raises(OccupiedError):
        locks.take(tmp_path)
    process.kill()
    process.wait()


def test_a_folder_is_free_when_its_writer_has_ended(tmp_path: Path) -> None:
    locks.take(tmp_path)
    child = os.fork()  # as the processes that load images
    if child == 0:
        signal.pause()
    locks.release_all()
    process = holder(tmp_path)
    process.kill()
    process.wait()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_where_nothing_can_be_written_nothing_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    locks.take(tmp_path)
    assert not (tmp_path / locks.LOCK).exists()


@pytest.mark.parametrize("verb", ["labels", "segment", "fit", "predict", "prepare"])
def test_no_verb_writes_into_a_folder_that_another_process_writes_into(
    verb: str, cams: Path, sample: Path, segmentation_checkpoint: Path, runs: Path, tmp_path: Path
) -> None:
    out = tmp_path / ("cams" if verb == "predict" else "out")
    part = out / ".scene_0000.png.1.part"  # of the one that writes
    trained = runs / "plain" / "checkpoints" / "last.ckpt"
    predicted = ["--config", str(runs / "plain" / "config.yaml")]
    config = ["--config", "configs/demo/cam_plain.yaml", "--data.init_args.root", str(sample)]
    words = {
        "labels": ["--recipe", "PseudoLabels", "--cams", str(cams), "--photos", str(sample), "--out", str(out)],
        "segment": [str(sample / "images"), "--checkpoint", str(segmentation_checkpoint), "--out", str(out)],
        "fit": [*config, "--trainer.default_root_dir", str(out), "--trainer.max_epochs", "1"],
        "predict": [*predicted, "--trainer.default_root_dir", str(out.parent), "--ckpt_path", str(trained)],
        "prepare": ["sample", "--root", str(out), "--count", "4", "--validation", "2"],
    }
    process = holder(out)
    part.touch()
    assert f"{out} is being written by process {process.pid}" in str(fault([verb, *words[verb]]))
    assert part.exists()
    process.kill()
    process.wait()
    if verb == "prepare":
        assert main([verb, *words[verb]]) == 0
        assert not locks._held
