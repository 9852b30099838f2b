import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tag2mask.cli.main import main
from tests.commands import SMALL_NET, WANDB, words

pytestmark = pytest.mark.slow

CONFIG = "configs/demo/cam_tuned.yaml"
LAST = Path("checkpoints/last.ckpt")


def fit(sample: Path, run: Path, **settings: str) -> list[str]:
    over = {"trainer__max_epochs": "3", "trainer__limit_val_batches": "0", "checkpoint__every_n_train_steps": "3"}
    command = words("fit", CONFIG, sample, run, **(over | settings))
    return [*command, *(word for key, value in SMALL_NET.items() for word in (f"--{key}", value))]


def weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(run / LAST, weights_only=True)
    assert checkpoint["global_step"] == 12  # 8 scenes, batches of 2, 3 epochs
    return dict(checkpoint["state_dict"])


@pytest.fixture(scope="module")
def unbroken(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    run = tmp_path_factory.mktemp("unbroken")
    assert main(fit(sample, run)) == 0
    return weights(run)


def assert_equal(run: Path, expected: dict[str, torch.Tensor]) -> None:
    found = weights(run)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def until_step(step: int, program: str, words: list[str], run: Path) -> subprocess.Popen[bytes]:
    """Start a program with words of the command line, and wait until its checkpoint is of a step."""
    process = subprocess.Popen([sys.executable, "-c", program, *words], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if (run / LAST).is_file() and torch.load(run / LAST, weights_only=True)["global_step"] == step:
            break
        time.sleep(0.2)
    return process


@pytest.mark.parametrize(
    ("stop", "pause", "status", "again"),
    [(signal.SIGKILL, 60, -9, ()), (signal.SIGTERM, 3, 143, ("--ckpt_path", "last"))],
    ids=["killed", "terminated"],
)
def test_a_run_stopped_in_mid_epoch_ends_with_the_weights_of_an_unbroken_one(
    sample: Path,
    tmp_path: Path,
    unbroken: dict[str, torch.Tensor],
    stop: signal.Signals,
    pause: int,
    status: int,
    again: tuple[str, ...],
) -> None:
    slow = "import time, tag2mask.tasks.cam as c; s = c.CAMTask.training_step\n"
    slow += f"def wait(self, *a):\n    time.sleep({pause} * (self.global_step >= 7)); return s(self, *a)\n"
    slow += "c.CAMTask.training_step = wait; from tag2mask.cli.main import main; import sys; sys.exit(main())"
    process = until_step(6, slow, fit(sample, tmp_path), tmp_path)
    os.kill(process.pid, stop)
    assert process.wait(60) == status
    assert torch.load(tmp_path / LAST, weights_only=True)["global_step"] == 6  # the second of 4 steps of an epoch
    assert main([*fit(sample, tmp_path), *again]) == 0
    assert_equal(tmp_path, unbroken)


def test_a_run_killed_at_the_end_of_an_epoch_and_again_in_the_next_ends_as_an_unbroken_one(
    sample: Path, tmp_path: Path, unbroken: dict[str, torch.Tensor]
) -> None:
    """Steps 4 and 6: the last of the first epoch, the second of the second."""
    command = fit(sample, tmp_path, checkpoint__every_n_train_steps="2")
    for step in (4, 6):
        killed = "import os, tag2mask.callbacks.runs as c; s = c.LastCheckpoint._save_last_checkpoint\n"
        killed += f"def save(self, t, m):\n    s(self, t, m); t.global_step == {step} and os._exit(9)\n"
        killed += "c.LastCheckpoint._save_last_checkpoint = save\n"
        killed += "from tag2mask.cli.main import main; import sys; sys.exit(main())"
        done = subprocess.run([sys.executable, "-c", killed, *command], stderr=subprocess.DEVNULL, check=False)
        assert done.returncode == 9
        assert torch.load(tmp_path / LAST, weights_only=True)["global_step"] == step
    assert main(command) == 0
    assert_equal(tmp_path, unbroken)


def test_a_run_killed_at_its_last_checkpoint_ends_as_an_unbroken_one_and_then_stays(
    sample: Path, tmp_path: Path, unbroken: dict[str, torch.Tensor]
) -> None:
    """Step 12 is the last of an epoch and of the run, and a multiple of 3, so that it was written before the end."""
    slow = "import time, tag2mask.callbacks.runs as c\n"
    slow += "c.LastCheckpoint.on_train_end = lambda *a: time.sleep(60)\n"
    slow += "from tag2mask.cli.main import main; import sys; sys.exit(main())"
    process = until_step(12, slow, fit(sample, tmp_path), tmp_path)
    process.kill()
    process.wait(60)
    assert not json.loads((tmp_path / "run.json").read_text())["finished"]
    assert main(fit(sample, tmp_path)) == 0
    assert_equal(tmp_path, unbroken)
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["finished"], record["steps"]) == (True, 12)
    before = (tmp_path / LAST).read_bytes()
    assert main(fit(sample, tmp_path)) == 0
    assert (tmp_path / LAST).read_bytes() == before


def test_wandb_goes_on_with_the_run_of_an_interrupted_training(sample: Path, tmp_path: Path) -> None:
    run = fit(sample, tmp_path, trainer__logger=WANDB, trainer__max_steps="3")
    assert main(run) == 0
    first = json.loads((tmp_path / "run.json").read_text())["wandb_id"]
    (tmp_path / "run.json").write_text(
        (tmp_path / "run.json").read_text().replace('"finished": true', '"finished": false')
    )
    assert main(run) == 0
    assert json.loads((tmp_path / "run.json").read_text())["wandb_id"] == first
    folders = [path.name for path in (tmp_path / "wandb").glob("offline-run-*")]
    assert len(folders) == 2
    assert all(name.endswith(f"-{first}") for name in folders)
    assert main([*run, "--overwrite"]) == 0
    assert json.loads((tmp_path / "run.json").read_text())["wandb_id"] != first


def test_what_was_logged_before_a_checkpoint_outlives_a_kill(sample: Path, tmp_path: Path) -> None:
    """Rows go into the file every 50 steps; a checkpoint comes after 3."""
    slow = "import time, tag2mask.tasks.cam as c; s = c.CAMTask.training_step\n"
    slow += "def wait(self, *a):\n    time.sleep(60 * (self.global_step >= 4)); return s(self, *a)\n"
    slow += "c.CAMTask.training_step = wait; from tag2mask.cli.main import main; import sys; sys.exit(main())"
    process = until_step(3, slow, fit(sample, tmp_path, trainer__log_every_n_steps="1"), tmp_path)
    process.kill()
    process.wait(60)
    (log,) = tmp_path.glob("logs/*/metrics.csv")
    assert len(log.read_text().splitlines()) >= 1 + 3


def test_a_finished_run_is_not_run_again(sample: Path, tmp_path: Path, unbroken: dict[str, torch.Tensor]) -> None:
    assert main(fit(sample, tmp_path)) == 0
    assert main(fit(sample, tmp_path)) == 0
    assert_equal(tmp_path, unbroken)


def test_another_configuration_stops_and_says_what_differs(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"trainer__max_epochs": "1"}
    assert main(fit(sample, tmp_path, **settings)) == 0
    before = (tmp_path / LAST).read_bytes()
    assert main(fit(sample, tmp_path, model__init_args__optimizer__lr="0.5", **settings)) == 2
    assert "model.init_args.optimizer.lr: 0.01, now 0.5" in capsys.readouterr().err
    assert (tmp_path / LAST).read_bytes() == before
    assert main([*fit(sample, tmp_path, model__init_args__optimizer__lr="0.5", **settings), "--overwrite"]) == 0
    assert (tmp_path / LAST).read_bytes() != before


def test_a_loss_that_is_not_finite_names_step_images_and_terms(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(fit(sample, tmp_path, model__init_args__optimizer__lr="1e30")) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("tag2mask: the loss is not finite at step ")
    assert "loss_cls" in message
    assert "loss_cfc" in message
    assert "scene_00" in message
