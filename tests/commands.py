"""Settings that let a real configuration run in seconds."""

import signal
from pathlib import Path

import pytest

from tag2mask.cli.main import dispatch, mendable
from tag2mask.errors import InputError

TINY = {
    "trainer.accelerator": "cpu",
    "trainer.precision": "32-true",
    "trainer.benchmark": "false",
    "trainer.enable_progress_bar": "false",
    "trainer.enable_model_summary": "false",
    "model.init_args.backbone.weights": "none",
    "model.init_args.inference.scales": "[0.5, 1.0]",
    "data.init_args.batch_size": "2",
    "data.init_args.num_workers": "0",
    "data.init_args.preprocessing.long_side": "[48, 80]",
    "data.init_args.preprocessing.crop_size": "64",
}
SMALL_NET = {
    "model.init_args.backbone": "{name: resnet18, output_stride: 16, weights: none, freeze_norm: true, frozen: []}"
}
RSA = {
    "model.init_args.tiles.attention": (
        "{kernel: exp_cosine, temperature: 0.1, layer: bn1, region: tile, detach: false}"
    ),
    "model.init_args.inference.attention.layer": "bn1",
}
"""RSA of the demo's CAM network in training too, on a layer that any network has."""
WANDB = "[{class_path: lightning.pytorch.loggers.WandbLogger, init_args: {project: test}}]"


def words(verb: str, config: Path | str, root: Path, run: Path, **settings: str) -> list[str]:
    """Return the words of a command: a configuration, its data and run folder, and settings over `TINY` and `RSA`.

    Keys of ``settings`` have ``__`` for dots.
    """
    tiny = {key: value for key, value in TINY.items() if "inference" not in key or Path(config).stem.startswith("cam")}
    tiny = tiny | RSA if str(config).endswith("demo/cam_tuned.yaml") else tiny
    over = tiny | {"data.init_args.root": str(root), "trainer.default_root_dir": str(run)}
    over |= {key.replace("__", "."): value for key, value in settings.items()}
    return [verb, "--config", str(config), *(word for key, value in over.items() for word in (f"--{key}", value))]


def line(capsys: pytest.CaptureFixture[str]) -> str:
    """The message that ends the output; nothing like a traceback stands before it."""
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    last = shown.strip().splitlines()[-1]
    assert last.startswith("tag2mask: ")
    return last


def fault(given: list[str]) -> InputError:
    """Run a command that must end in something that the user can mend; return that, of its kind."""
    try:
        status = dispatch(given)
    except Exception as error:
        found = mendable(error)
        if found is None:
            raise
        return found
    raise AssertionError(f"{given[0]} ended with status {status}, without an error")


def hear_ctrl_c() -> None:
    """Let a process hear SIGINT (``preexec_fn``): what a shell starts in the background is deaf, with all it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
