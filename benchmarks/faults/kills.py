"""Commands that are killed, run twice at once, or write on a full disk; whether the same command then ends well.

Every command runs on a few drawn scenes with small networks, in a process of its own.
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tag2mask.io.files import read_json

TAG2MASK = [sys.executable, "-m", "tag2mask"]
BACKBONE = "{name: resnet18, output_stride: 16, weights: none, freeze_norm: true, frozen: []}"
FAST = ["--trainer.accelerator", "cpu", "--trainer.precision", "32-true", "--trainer.benchmark", "false"]
FAST += [
    "--trainer.enable_model_summary",
    "false",
    "--data.init_args.batch_size",
    "2",
    "--data.init_args.num_workers",
    "0",
]
FAST += ["--data.init_args.preprocessing.long_side", "[48, 80]", "--data.init_args.preprocessing.crop_size", "64"]
FAST += ["--model.init_args.backbone", BACKBONE]
ENDINGS = (".png", ".npz", ".jpg", ".csv", ".txt")  # of files that must be the same, byte by byte


@dataclass(frozen=True)
class Stage:
    """A command that writes into the folder ``out``, what must be there before, and how often it is killed of 100."""

    name: str
    words: tuple[str, ...]
    share: int
    compared: Callable[[Path], str]


def files_digest(out: Path) -> str:
    """Return a digest of all files that do not name times."""
    digest = hashlib.sha256()
    for path in sorted(out.rglob("*")):
        if path.suffix in ENDINGS and "logs" not in path.parts and "pictures" not in path.parts:
            digest.update(str(path.relative_to(out)).encode() + path.read_bytes())
    return digest.hexdigest()


def weights_of(out: Path) -> str:
    """Return the digest of the weights of a run folder."""
    return str(read_json(out / "run.json")["weights"])


def exists(out: Path) -> str:
    """Return whether there is a report, which names times."""
    text = (out / "report.html").read_text()
    return str(text.rstrip().endswith("</html>"))


def prepared(base: Path) -> list[Stage]:
    """Make scenes, CAM files, networks; return the stages."""
    base.mkdir(parents=True)
    sample, runs = base / "sample", base / "runs"
    once(["prepare", "sample", "--root", str(sample), "--count", "24", "--validation", "4"])
    data = ["--data.init_args.root", str(sample)]
    cam = ["--config", "configs/demo/cam_plain.yaml", *FAST, *data, "--trainer.limit_val_batches", "0"]
    cam += ["--data.init_args.predict_split", "train", "--model.init_args.inference.scales", "[1.0]"]
    cam += ["--checkpoint.every_n_train_steps", "3"]
    seg = ["--config", "configs/demo/segmentation.yaml", *FAST, *data, "--data.init_args.labels", str(sample / "masks")]
    seg += ["--trainer.limit_val_batches", "0", "--trainer.max_epochs", "1"]
    once(["fit", *cam, "--trainer.max_epochs", "1", "--trainer.default_root_dir", str(runs / "cam")])
    once(["predict", *cam, "--trainer.max_epochs", "1", "--trainer.default_root_dir", str(runs / "cam")])
    once(["fit", *seg, "--trainer.default_root_dir", str(runs / "seg")])
    checkpoint = str(runs / "cam" / "checkpoints" / "last.ckpt")
    labels = ["labels", "--recipe", "PseudoLabels", "--cams", str(runs / "cam" / "cams"), "--photos", str(sample)]
    labels += ["--recipe.init_args.walk", "FeatureWalk", "--recipe.init_args.walk.layer", "layer2", "--soft", "true"]
    segment = ["segment", str(sample / "images"), "--checkpoint", str(runs / "seg" / "checkpoints" / "last.ckpt")]
    scenes = ["prepare", "sample", "--count", "150", "--validation", "20", "--root"]
    to, out = "--trainer.default_root_dir", "{out}"
    return [
        Stage("fit", ("fit", *cam, "--trainer.max_epochs", "4", to, out), 20, weights_of),
        Stage("predict", ("predict", *cam, "--ckpt_path", checkpoint, to, out), 20, files_digest),
        Stage("labels, one worker", (*labels, "--workers", "1", "--steps", "true", "--out", out), 15, files_digest),
        Stage("labels, two workers", (*labels, "--workers", "2", "--out", out), 15, files_digest),
        Stage("segment", (*segment, "--out", out), 15, files_digest),
        Stage("prepare sample", (*scenes, out), 10, files_digest),
        Stage("report", ("report", str(runs), "--out", f"{out}/report.html"), 5, exists),
    ]


def once(words: list[str]) -> None:
    """Run a command that must end well."""
    done = run(words)
    if done.returncode:
        raise RuntimeError(f"{words[0]} ended with {done.returncode}: {done.stderr[-500:]}")


def run(words: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run([*TAG2MASK, *words], capture_output=True, text=True, check=False, env=environment())


def start(words: list[str]) -> "subprocess.Popen[str]":
    """Start a command as the leader of a group of processes."""
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen([*TAG2MASK, *words], text=True, start_new_session=True, env=environment(), **pipes)  # type: ignore[call-overload,no-any-return]


def environment() -> dict[str, str]:
    """One thread a process, no W&B, tracebacks as they come."""
    return os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "TAG2MASK_TRACEBACK": "0"}


def filled(stage: Stage, out: Path) -> list[str]:
    """Return the words of a stage that writes into ``out``."""
    return [word.replace("{out}", str(out)) for word in stage.words]


def reference(stage: Stage, out: Path) -> tuple[str, float]:
    """Run a stage unbroken; return what it has made, and how many seconds it took."""
    begin = time.monotonic()
    once(filled(stage, out))
    return stage.compared(out), time.monotonic() - begin


def killed(stage: Stage, out: Path, expected: str, seconds: float, rng: random.Random) -> str | None:
    """Kill a stage, all of its processes, at a random moment, and give the command again; return what went wrong."""
    process = start(filled(stage, out))
    moment = rng.uniform(0.3, 1.0) * seconds
    time.sleep(moment)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return _ends(stage, out, expected, f"killed after {moment:.2f} s of {seconds:.2f}")


def twice(stage: Stage, out: Path, expected: str) -> str | None:
    """Give a command twice at once; one may be refused, the files must be those of one."""
    both = [start(filled(stage, out)) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    for process, error in zip(both, errors, strict=True):
        refused = process.returncode == 2 and "is being written by" in error
        if (process.returncode and not refused) or "Traceback" in error:
            return f"twice at once: status {process.returncode}, {error[-300:]}"
    return _ends(stage, out, expected, "twice at once")


def _ends(stage: Stage, out: Path, expected: str, what: str) -> str | None:
    done = run(filled(stage, out))
    if done.returncode or "Traceback" in done.stderr:
        return f"{what}: status {done.returncode}, {done.stderr[-300:]}"
    left = [path.name for path in out.rglob("*.part")]
    if left:
        return f"{what}: {left[0]} is left"
    return None if stage.compared(out) == expected else f"{what}: other files than those of an unbroken run"


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[bool]:
    """Mount a disk of some kB; False where that is not allowed."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    allowed = (
        shutil.which("mount") is not None and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    )
    try:
        yield allowed
    finally:
        if allowed:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def on_small_disk(stage: Stage, disk: Path, expected: str) -> str | None:
    """Run a stage on a disk that may be too small; return what went wrong with the end of that."""
    done = run(filled(stage, disk / "out"))
    if done.returncode == 0 and stage.compared(disk / "out") == expected:
        return None  # it was large enough
    lines = [line for line in done.stderr.splitlines() if line.startswith("tag2mask: ")]
    if done.returncode == 0 or "Traceback" in done.stderr or not lines:
        return f"small disk: status {done.returncode}, {done.stderr[-300:]}"
    if left := [path.name for path in disk.rglob("*.part")]:
        return f"small disk: {left[0]} is left"
    return None
