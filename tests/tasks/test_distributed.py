"""Several processes, started by Lightning, by torchrun and as SLURM would, on CPUs with Gloo."""

import csv
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tag2mask.cli.lightning import explain_lost_process
from tag2mask.cli.main import main
from tag2mask.io.cams import read_cam
from tag2mask.io.files import read_json
from tests.commands import SMALL_NET, WANDB, words
from tests.wandb_file import WandbRun

pytestmark = pytest.mark.slow

CAM, AFFINITY = "configs/demo/cam_tuned.yaml", "configs/demo/affinity.yaml"
TWO = {"trainer__devices": "2", "trainer__strategy": "ddp"}
TWO_NODES = {"trainer__devices": "1", "trainer__num_nodes": "2", "trainer__strategy": "ddp"}
FIT = {"trainer__max_epochs": "2", "trainer__log_every_n_steps": "1", "trainer__check_val_every_n_epoch": "1"}
JOINT = {
    **FIT,
    "trainer__precision": "64-true",
    "model__init_args__tiles__contrast__lam": "0.5",
    "model__init_args__optimizer__lr": "0.0005",  # at 0.01 the loss goes from 18 to 1,000, and rounding grows with it
}


@pytest.fixture(scope="module")
def data(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample set with three photographs for validation: two processes have unequal shares."""
    root = Path(shutil.copytree(sample, tmp_path_factory.mktemp("data") / "sample"))
    names = (root / "val.txt").read_text().split()
    (root / "val.txt").write_text("\n".join(names[:3]) + "\n")
    return root


def command(verb: str, config: str, data: Path, run: Path, **settings: str) -> list[str]:
    small = [word for key, value in SMALL_NET.items() for word in (f"--{key}", value)]
    return [*words(verb, config, data, run, **settings), *small]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def start(line: list[str], **variables: str) -> subprocess.Popen[str]:
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), **os.environ, **variables}
    return subprocess.Popen(
        [sys.executable, "-m", *line], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finished(*processes: subprocess.Popen[str]) -> list[str]:
    """Wait for processes; return what they said."""
    try:
        said = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return said


def two_nodes(line: list[str]) -> list[str]:
    """Run a command by torchrun on two nodes, which are both this machine."""
    port = free_port()
    torchrun = ["torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1"]
    torchrun += ["--master-port", port]
    return finished(*(start([*torchrun, "--node-rank", str(node), "-m", "tag2mask", *line]) for node in range(2)))


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


def validations(run: Path) -> list[dict[str, str]]:
    """What the CSV log says of each validation."""
    with open(run / "logs" / "version_0" / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val/cam_miou"]]
    return [{key: value for key, value in row.items() if key.startswith("val/")} for row in rows]


def assert_same_weights(one: Path, other: Path, share: float = 4e-4) -> None:
    """Sums in another order move a weight by 1e-4 of the largest; a gradient that is lost moves it by all of that.

    In double precision, where only the losses are summed in single, they move it by 1e-6.
    """
    theirs = weights(other)
    for name, ours in weights(one).items():
        difference = (
            float((ours - theirs[name]).abs().max())
            if ours.is_floating_point()
            else float((ours != theirs[name]).any())
        )
        assert difference <= share * float(ours.abs().max()) + 1e-12, name


@pytest.fixture(scope="module")
def together(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run folder of two processes that log to W&B, and what they said."""
    run = tmp_path_factory.mktemp("joint") / "two"
    line = command("fit", CAM, data, run, **JOINT, **TWO, trainer__logger=WANDB)
    return run, finished(start(["tag2mask", *line], WANDB_MODE="offline"))[0]


def test_two_processes_learn_what_one_learns_of_the_joint_batch(
    data: Path, together: tuple[Path, str], tmp_path: Path
) -> None:
    one, (two, said) = tmp_path / "one", together
    assert main(command("fit", CAM, data, one, **JOINT, data__init_args__batch_size="4")) == 0
    assert "4 photographs a step (batches of 2 on 2 device(s))" in said
    assert "CFC compares 4 photographs at a time" in said
    assert_same_weights(one, two, 2e-5)
    for ours, theirs in zip(validations(one), validations(two), strict=True):
        assert {key: float(value) for key, value in ours.items()} == pytest.approx(
            {key: float(value) for key, value in theirs.items()}, rel=1e-4, abs=1e-3
        )
    assert len(validations(one)) == 2


def test_of_two_processes_the_first_alone_writes_a_wandb_run_and_its_pictures(
    data: Path, together: tuple[Path, str]
) -> None:
    mine = (data / "val.txt").read_text().split()[::2]  # the first one's share
    run = WandbRun(together[0])  # there is one
    assert run.config["images_at_once"] == 4
    assert {key for key in run.keys if key.startswith(("panel/", "worst/"))} == {
        *(f"panel/{name}" for name in mine),
        *("worst/1", "worst/2"),
    }
    stored = run.folder / "files" / "media" / "images"
    assert [len(list((stored / part).glob("*.jpg"))) for part in ("panel", "heat", "worst", "worst_heat")] == [4] * 4
    for key in ("val/cam_miou", "val_iou/background", "table/classes"):
        assert len(run.values(key)) == 2  # validations


def test_scores_of_two_processes_are_those_of_one(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(command("fit", CAM, data, run, **FIT)) == 0
    capsys.readouterr()
    assert main(command("validate", CAM, data, run)) == 0
    alone = scores(capsys.readouterr().out)
    together = scores(finished(start(["tag2mask", *command("validate", CAM, data, run, **TWO)]))[0])
    assert {"val/cam_miou", "val/loss_cls"} <= set(alone)
    two_roundings = 2 * torch.finfo(torch.float32).eps  # a sum in another order
    for mean in ("val/loss_cls", "val/attention_entropy"):
        assert float(alone.pop(mean)) == pytest.approx(float(together.pop(mean)), rel=two_roundings)
    assert alone == together


def scores(said: str) -> dict[str, str]:
    """Scores in the table that Lightning prints."""
    cells = (line.replace("│", " ").split() for line in said.splitlines())
    return {row[0]: row[1] for row in cells if len(row) == 2 and row[0].startswith("val/")}


def test_predict_on_two_nodes_writes_each_file_once_and_goes_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(command("fit", CAM, data, run, **FIT)) == 0
    settings = {"data__init_args__predict_split": "val"}
    line = command("predict", CAM, data, run, **settings, **TWO_NODES)
    said = two_nodes(line)
    names = (data / "val.txt").read_text().split()
    paths = [run / "cams" / f"{name}.npz" for name in names]
    assert sorted((run / "cams").glob("*.npz")) == sorted(paths)
    assert sum("3 CAM files in" in text for text in said) == 1
    kept = paths[0].stat().st_mtime_ns
    paths[1].unlink()  # nothing is left for the second process
    assert "2 CAM files are in" in "".join(two_nodes(line))
    assert sorted((run / "cams").glob("*.npz")) == sorted(paths)
    assert paths[0].stat().st_mtime_ns == kept
    record = read_json(run / "cams" / "run.json")
    assert (record["finished"], record["files"]) == (True, 3)
    assert main([*command("predict", CAM, data, tmp_path / "alone", **settings), "--ckpt_path", str(last(run))]) == 0
    for path in paths:
        ours, alone = read_cam(path), read_cam(tmp_path / "alone" / "cams" / path.name)
        assert (ours.cam.float() - alone.cam.float()).abs().max() <= 1e-3  # one step of half precision


def last(run: Path) -> Path:
    return run / "checkpoints" / "last.ckpt"


def test_the_edge_network_learns_the_same_as_two_tasks_of_slurm(data: Path, tmp_path: Path) -> None:
    settings = {**FIT, "data__init_args__labels": str(data / "masks"), "trainer__limit_val_batches": "0"}
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(command("fit", AFFINITY, data, one, **settings, data__init_args__batch_size="4")) == 0
    line = ["tag2mask", *command("fit", AFFINITY, data, two, **settings, **TWO_NODES)]
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "fit", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1"}
    slurm |= {"SLURM_NNODES": "2", "SLURM_NODELIST": "127.0.0.1", "SLURM_LOCALID": "0", "MASTER_PORT": free_port()}
    finished(*(start(line, **slurm, SLURM_PROCID=str(rank), SLURM_NODEID=str(rank)) for rank in range(2)))
    assert_same_weights(one, two)


def test_a_killed_process_stops_the_run_with_a_line_and_it_goes_on(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = {**FIT, **TWO, "trainer__max_epochs": "100", "trainer__check_val_every_n_epoch": "100"}
    line = [*command("fit", CAM, data, run, **settings), "--checkpoint.every_n_train_steps", "2"]
    process = start(["tag2mask", *line])
    for _ in range(1200):
        if last(run).exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(children[0]), signal.SIGKILL)
    said, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in said
    assert "another process of this run has ended or cannot be reached" in said
    step = torch.load(last(run), weights_only=True)["global_step"]
    assert step >= 2
    assert main([*line, "--trainer.max_steps", str(step + 2)]) == 2  # the same command only
    process = start(["tag2mask", *line])
    for _ in range(1200):
        if torch.load(last(run), weights_only=True)["global_step"] > step or process.poll() is not None:
            break
        time.sleep(0.1)
    process.terminate()
    said, _ = process.communicate(timeout=60)
    assert "going on with" in said
    assert said.strip().endswith("tag2mask: terminated; the same command goes on where it stopped")
    assert process.returncode == 143


def test_what_the_launcher_says_of_a_lost_process_tells_what_to_do() -> None:
    told = "[rank: 1] Child process with PID 5 terminated with code -9. Forcefully terminating all other processes"
    record = logging.LogRecord("launcher", logging.INFO, "", 0, told, None, None)
    assert explain_lost_process(record)
    assert "another process of this run has ended or cannot be reached (PID 5, status -9)" in record.getMessage()
    other = logging.LogRecord("launcher", logging.INFO, "", 0, "100% of it", None, None)
    assert explain_lost_process(other)
    assert other.getMessage() == "100% of it"


def test_fewer_photographs_than_processes_to_score_are_refused(data: Path, tmp_path: Path) -> None:
    short = Path(shutil.copytree(data, tmp_path / "short"))
    (short / "val.txt").write_text((data / "val.txt").read_text().split()[0] + "\n")
    process = start(["tag2mask", *command("fit", CAM, short, tmp_path / "run", **FIT, **TWO)])
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "1 photographs in the split 'val' for 2 processes" in said
