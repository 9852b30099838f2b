"""The command line: LightningCLI's fit, validate, test and predict, and the verbs around them."""

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from tag2mask import __version__, classes, files
from tag2mask.errors import InputError

LIGHTNING = ("fit", "validate", "test", "predict")
LAST = Path("checkpoints") / "last.ckpt"

HELP = f"""tag2mask {__version__}: segmentation masks from image tags

  tag2mask prepare voc|sample|folder   fetch, draw or check a data set
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
        print("tag2mask: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    except SystemExit as stop:
        if type(stop).__name__ != "SIGTERMException":  # Lightning's, without a status of its own
            raise
        print("tag2mask: terminated; the same command goes on from the last checkpoint", file=sys.stderr)
        return 143
    except Exception as error:
        mendable = _mendable(error)
        if mendable is None:
            raise
        return _fail(mendable)


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
        if kind == "RuntimeError" and str(error).startswith("DataLoader worker"):
            return f"{' '.join(str(error).split())} The same command goes on from the last checkpoint"
        error = error.__cause__ or error.__context__
    return None


def _dispatch(words: list[str]) -> int:
    verbs: dict[str, Callable[[list[str]], int]]
    verbs = {"prepare": prepare, "labels": labels, "evaluate": evaluate, "report": report}
    verbs |= {"segment": segment, "export": export, "archive": archive}
    if not words or words[0] in ("-h", "--help"):
        print(HELP)
        return 0
    if words[0] == "--version":
        print(__version__)
        return 0
    if words[0] in LIGHTNING:
        return lightning(words)
    if words[0] in verbs:
        return verbs[words[0]](words[1:])
    near = difflib.get_close_matches(words[0], [*LIGHTNING, *verbs], 1)
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
        hint = "; free some space, then give the same command: it goes on from the last checkpoint"
    return f"{error.strerror or error}{where}{hint}"


def lightning(words: list[str]) -> int:
    """Run one of LightningCLI's verbs."""
    _check_yaml(words)
    from tag2mask.lightning_cli import TagsToMasksCLI, quiet

    quiet()
    TagsToMasksCLI(words)
    return 0


def _check_yaml(words: list[str]) -> None:
    """Name a configuration that is no YAML, and the place in it; the parser behind names neither."""
    for option, value in pairwise(words):
        if option in ("--config", "-c"):
            try:
                yaml.safe_load(Path(value).read_text(encoding="utf-8"))
            except yaml.YAMLError as error:
                raise InputError(f"{value} is not YAML: {error}; mend it there") from None
            except FileNotFoundError:
                raise InputError(f"no configuration {value}; configs/ has one for every run") from None


def prepare(words: list[str]) -> int:
    """Fetch, draw or check a data set."""
    from tag2mask.data.prepare import prepare_folder, prepare_voc
    from tag2mask.data.sample import write_sample

    parser = argparse.ArgumentParser("tag2mask prepare", description=prepare.__doc__)
    which = parser.add_subparsers(dest="data", required=True, metavar="voc|sample|folder")
    voc = which.add_parser("voc", help="download VOC 2012 and SBD, derive SegmentationClassAug, check the counts")
    voc.add_argument("--root", type=Path, default=Path("data"), help="folder that receives VOCdevkit (data)")
    voc.add_argument("--sbd", type=Path, help="SBD's folder with cls/*.mat, where it is on disk already")
    voc.add_argument("--no-download", action="store_true", help="only derive and check")
    sample = which.add_parser("sample", help="draw the sample set")
    sample.add_argument("--root", type=Path, default=Path("data/sample"), help="folder to write (data/sample)")
    sample.add_argument("--count", type=int, default=160, help="scenes in all (160)")
    sample.add_argument("--validation", type=int, default=40, help="how many of them for validation (40)")
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument("--overwrite", action="store_true")
    folder = which.add_parser("folder", help="check a folder of one's own photographs")
    folder.add_argument("root", type=Path)
    given = parser.parse_args(words)
    if given.data == "voc":
        print(prepare_voc(given.root, given.sbd, download=not given.no_download))
    elif given.data == "folder":
        print(prepare_folder(given.root))
    elif write_sample(given.root, given.count, given.validation, given.seed, given.overwrite):
        print(f"{given.count} scenes in {given.root}")
    else:
        print(f"{given.root} holds these {given.count} scenes already")
    return 0


def labels(words: list[str]) -> int:
    """Turn CAM files into pseudo-labels."""
    _check_yaml(words)
    from tag2mask.labels_cli import labels as run

    return run(words)


def segment(words: list[str]) -> int:
    """Write masks and overlays of photographs."""
    from tag2mask.segment_cli import segment as run

    return run(words)


def export(words: list[str]) -> int:
    """Write a trained network as ONNX."""
    from tag2mask.export_cli import export as run

    return run(words)


def archive(words: list[str]) -> int:
    """Write or check the archive for VOC's evaluation server."""
    from tag2mask.voc_archive import archive as run

    return run(words)


def evaluate(words: list[str]) -> int:
    """Score folders of CAM files or label PNGs against masks: a table by class for one, a line each for several."""
    parser = argparse.ArgumentParser("tag2mask evaluate", description=evaluate.__doc__)
    parser.add_argument("predictions", type=Path, nargs="+", help="folder of CAM files (.npz) or of label PNGs")
    parser.add_argument("--masks", type=Path, required=True, help="folder of label PNGs with the truth")
    parser.add_argument("--list", type=Path, help="names to score, one a line; without it, all that have a mask")
    parser.add_argument("--classes", help="voc, coco or a classes.txt; without it, those that run.json names, else voc")
    parser.add_argument("--thresholds", type=float, nargs="+", help="background thresholds (0.05 0.10 ... 0.75)")
    parser.add_argument("--threshold", help="a threshold chosen on other images, or the JSON of their evaluation")
    parser.add_argument("--mean-over", help="classes of an extra mean, separated by commas")
    parser.add_argument("--out", type=Path, help="JSON file (FOLDER_evaluation.json beside each FOLDER)")
    given = parser.parse_args(words)
    if given.out and len(given.predictions) > 1:
        raise InputError("--out names one file; with several folders leave it out: each gets a JSON beside it")
    from tag2mask import evaluate as scoring

    with _one_thread():
        results = {folder: _scored(folder, given) for folder in given.predictions}
    print(scoring.table(*results.values()) if len(results) == 1 else scoring.steps_table(results))
    for folder, result in results.items():
        print(f"written to {_write_evaluation(folder, result, given)}")
    return 0


def _scored(predictions: Path, given: argparse.Namespace) -> dict[str, Any]:
    from tag2mask import evaluate as scoring
    from tag2mask.metrics import THRESHOLDS

    names = scoring.read_names(predictions, given.masks, given.list)
    task = scoring.Task(predictions, given.masks, names, _class_names(given.classes, predictions))
    result = scoring.evaluate(task, given.thresholds or THRESHOLDS, _threshold(given.threshold))
    if given.mean_over:
        over = [name.strip() for name in given.mean_over.split(",")]
        for score in (*(result[key] for key in ("best", "fixed") if key in result), *result.get("steps", {}).values()):
            score |= scoring.mean_over(score, over)
    return result


def _write_evaluation(predictions: Path, result: dict[str, Any], given: argparse.Namespace) -> Path:
    out: Path = given.out or predictions.parent / f"{predictions.name}_evaluation.json"
    config = {key: str(value) for key, value in vars(given).items() if value is not None}
    config["predictions"] = str(predictions)
    files.write_json(out, {"config": config, "commit": files.commit(), "versions": files.versions(), **result})
    return out


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute on one thread: for single photographs, several wait for each other most of the time."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _class_names(given: str | None, predictions: Path) -> tuple[str, ...]:
    """Names by mask value, the background first."""
    known = {"voc": classes.VOC, "coco": classes.COCO}
    if given in known:
        return known[given]
    if given is not None:
        try:
            lines = Path(given).read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise InputError(f"--classes {given}: {error.strerror}; expected voc, coco or a file of names") from None
        names = [line.strip() for line in lines if line.strip()]
        return (classes.VOC[0], *(name for name in names if name != classes.VOC[0]))
    record = predictions / files.RUN_FILE
    found = files.read_json(record).get("config", {}).get("classes") if record.is_file() else None
    return (classes.VOC[0], *found) if found else classes.VOC


def _threshold(given: str | None) -> float | None:
    """A number, or the best threshold of an evaluation's JSON."""
    if given is None:
        return None
    try:
        return float(given)
    except ValueError:
        best = files.read_json(Path(given)).get("best", {}).get("threshold")
    if best is None:
        raise InputError(f"--threshold {given}: expected a number or the JSON of an evaluation of CAM files")
    return float(best)


def report(words: list[str]) -> int:
    """Put the scores, curves and pictures of runs on one page: report.html, with report.md and report.json."""
    from tag2mask.report import write_report

    parser = argparse.ArgumentParser("tag2mask report", description=report.__doc__)
    parser.add_argument("folder", type=Path, help="folder whose subfolders are runs, or one run")
    given = parser.parse_args(words)
    print(write_report(given.folder))
    print(f"written to {given.folder / 'report.html'}, report.md and report.json")
    return 0


def offline_unless_logged_in() -> None:
    """Let W&B log into the run folder where nobody is logged in, rather than stop and ask."""
    if "WANDB_MODE" in os.environ or "WANDB_API_KEY" in os.environ:
        return
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    if not (netrc.is_file() and "wandb" in netrc.read_text(errors="ignore")):
        os.environ["WANDB_MODE"] = "offline"
