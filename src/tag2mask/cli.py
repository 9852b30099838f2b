"""The command line: LightningCLI's fit, validate, test and predict, and the verbs around them."""

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from tag2mask import __version__
from tag2mask.arguments import check_yaml
from tag2mask.errors import InputError

LIGHTNING = ("fit", "validate", "test", "predict")
VERBS = {
    "prepare": "prepare_cli",
    "labels": "labels_cli",
    "segment": "segment_cli",
    "export": "export_cli",
    "archive": "voc_archive",
    "evaluate": "evaluate_cli",
    "report": "report_cli",
}
"""The modules of the other verbs; each is imported when it is called, and has a function of the verb's name."""
LOST = ("DistBackendError", "DistNetworkError", "DistStoreError")
"""What torch raises where another process is gone, besides a RuntimeError of Gloo's."""
LOST_PROCESS = (
    "another process of this run has ended or cannot be reached ({}); look for its own message, then give the same "
    "command: it goes on where it stopped"
)
LAST = Path("checkpoints") / "last.ckpt"

HELP = f"""tag2mask {__version__}: segmentation masks from image tags

  tag2mask prepare DATA                voc, coco, sample or folder: fetch, draw or check a data set
  tag2mask fit --config FILE           train a network; the run folder holds checkpoints, logs, pictures
  tag2mask predict --config FILE       write CAM files, or masks, with the trained network
  tag2mask validate --config FILE      score it on the validation split
  tag2mask labels --config FILE        turn CAM files into pseudo-labels: random walk, dense CRF
  tag2mask segment PHOTO...            masks and overlays for photographs, with a trained segmentation network
  tag2mask export --checkpoint CKPT    the network as one ONNX file, checked with onnxruntime
  tag2mask archive write|check         the archive of masks that VOC's evaluation server takes
  tag2mask evaluate FOLDER --masks M   score a folder of CAM files or label PNGs
  tag2mask report FOLDER               put scores, curves and pictures of the runs in a folder on one page

`tag2mask VERB --help` lists the options of a verb; configs/ has a ready file for every run."""


def main(args: Sequence[str] | None = None) -> int:
    """Run ``tag2mask`` with ``args`` (those of the process by default); return the exit status.

    What the user can mend ends in one line on standard error and status 2.
    """
    words = list(sys.argv[1:] if args is None else args)
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        print("tag2mask: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    except (Exception, SystemExit) as error:
        if _terminated(error):
            print("tag2mask: terminated; the same command goes on where it stopped", file=sys.stderr)
            return 143
        mendable = None if isinstance(error, SystemExit) else _mendable(error)
        if mendable is None:
            raise
        return _fail(mendable)


def _terminated(error: BaseException | None) -> bool:
    """Whether Lightning was asked to end, also where that broke the writing of a file."""
    while error is not None:
        if type(error).__name__ == "SIGTERMException":
            return True
        error = error.__context__
    return False


def _mendable(error: BaseException | None) -> str | None:
    """The message where the user can mend it, also where jsonargparse or a loader's process has wrapped it."""
    while error is not None:
        if isinstance(error, InputError):
            return _message(error)
        if isinstance(error, OSError):
            return _system_message(error)
        if isinstance(error, argparse.ArgumentError):
            return _parser_message(str(error))
        kind = type(error).__name__  # by name: torch and lightning need not be imported to say so
        if kind == "MisconfigurationException":
            return " ".join(str(error).split())
        if kind == "OutOfMemoryError":
            return (
                "the GPU's memory is full; lower --data.init_args.batch_size (with --trainer.accumulate_grad_batches)"
            )
        if kind in LOST or (kind == "RuntimeError" and "gloo/transport" in str(error)):
            reason = re.sub(r"^\[/[^]]*\] ", "", " ".join(str(error).split())).split(". This is typically")[0]
            return LOST_PROCESS.format(reason)
        if kind == "RuntimeError" and str(error).startswith("DataLoader worker"):
            return f"{' '.join(str(error).split())} The same command goes on from the last checkpoint"
        error = error.__cause__ or error.__context__
    return None


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(HELP)
        return 0
    if words[0] == "--version":
        print(__version__)
        return 0
    if words[0] in LIGHTNING:
        return lightning(words)
    if words[0] in VERBS:
        run: Callable[[list[str]], int] = getattr(import_module(f"tag2mask.{VERBS[words[0]]}"), words[0])
        return run(words[1:])
    near = difflib.get_close_matches(words[0], [*LIGHTNING, *VERBS], 1)
    raise InputError(
        f"no verb {words[0]!r}; " + (f"did you mean {near[0]!r}?" if near else "`tag2mask --help` lists them")
    )


def _fail(message: str) -> int:
    print(f"tag2mask: {message}", file=sys.stderr)
    return 2


def _message(error: Exception) -> str:
    """The message alone, also where a loader's process has wrapped it in its traceback."""
    text = str(error).strip()
    if text.startswith("Caught "):
        text = text.splitlines()[-1].split("InputError: ", 1)[-1]
    return " ".join(text.split())


def _parser_message(text: str) -> str:
    """What jsonargparse found wrong with the settings, without its account of every type that it tried."""
    noise = ("Does not validate", "Subtypes:", "Errors:", "- Expected a <class 'NoneType'>", "Given value")
    lines = (line.strip() for line in text.splitlines())
    told = " ".join(line.removeprefix("- ") for line in lines if line and not line.startswith(noise))
    return f"{told}; mend the configuration, or see `tag2mask VERB --help`"


def _system_message(error: OSError) -> str:
    where = f" {error.filename}" if error.filename else ""
    hint = {
        "PermissionError": "; check who owns it, or write elsewhere with --trainer.default_root_dir or --out",
    }.get(type(error).__name__, "")
    if error.errno == 28:
        hint = "; free some space, then give the same command: it goes on where it stopped"
    return f"{error.strerror or error}{where}{hint}"


def lightning(words: list[str]) -> int:
    """Run one of LightningCLI's verbs."""
    check_yaml(words)
    from tag2mask.lightning_cli import TagsToMasksCLI, follow_parent, quiet

    quiet()
    follow_parent()
    TagsToMasksCLI(words)
    return 0
