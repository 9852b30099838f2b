"""The command line: LightningCLI's fit, validate, test and predict, and the verbs around them."""

import argparse
import errno
import os
import re
import select
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module

from tag2mask import __version__
from tag2mask.cli import help
from tag2mask.cli.complaints import explain
from tag2mask.cli.options import check_yaml, did_you_mean
from tag2mask.errors import InputError, MissingError, SettingError, SpaceError, UnreachableError

TRACEBACK = "TAG2MASK_TRACEBACK"
CLOSED = 141
"""The status that a shell gives a program which writes into a closed pipe."""
HELP = ("-h", "--help")
LIGHTNING = ("fit", "validate", "test", "predict")
VERBS = ("prepare", "labels", "segment", "export", "archive", "evaluate", "report", "doctor")
"""The other verbs. Each has a module of its name here, imported when it is called, with a function of that name."""
LOST = ("DistBackendError", "DistNetworkError", "DistStoreError")
"""What torch raises where another process is gone, besides a RuntimeError of Gloo's."""
LOST_PROCESS = (
    "another process of this run has ended or cannot be reached ({}); look for its own message, then give the same "
    "command: it goes on where it stopped"
)


def main(args: Sequence[str] | None = None) -> int:
    """Run ``tag2mask`` with ``args`` (those of the process by default); return the exit status.

    What the user can mend ends in one line on standard error and status 2; with ``TAG2MASK_TRACEBACK=1`` the traceback
    stands before it. Where nobody reads what is printed any more (``tag2mask evaluate ... | head -1``), it ends in
    silence.
    """
    words = list(sys.argv[1:] if args is None else args)
    try:
        try:
            return _status(words)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _unread():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still prints at its end
        return CLOSED


def _status(words: list[str]) -> int:
    try:
        return dispatch(words)
    except KeyboardInterrupt:
        return _interrupted()
    except (Exception, SystemExit) as error:
        if isinstance(error, BrokenPipeError) and _unread():
            raise
        if _in_context(error, "KeyboardInterrupt"):  # Lightning exits with 1
            return _interrupted()
        if _in_context(error, "SIGTERMException"):
            print("tag2mask: terminated; the same command goes on where it stopped", file=sys.stderr)
            return 143
        known = None if isinstance(error, SystemExit) else mendable(error)
        if known is None:
            raise
        if os.environ.get(TRACEBACK, "0") not in ("", "0"):
            traceback.print_exc()
        return _fail(str(known))


def _interrupted() -> int:
    print("tag2mask: interrupted; the same command goes on where it stopped", file=sys.stderr)
    return 130


def _unread() -> bool:
    """Whether standard output is a pipe that nobody reads from any more."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (OSError, ValueError):  # it is no file
        return False


def _in_context(error: BaseException | None, kind: str) -> bool:
    """Whether somebody asked for the end, also where that broke the writing of a file or was answered by another."""
    while error is not None:
        if type(error).__name__ == kind:
            return True
        error = error.__context__
    return False


def mendable(error: BaseException | None) -> InputError | None:
    """Return what the user can mend as an `InputError`, also where jsonargparse or a loader's process has wrapped it.

    Causes alone are followed: what was raised while another error was being handled is a fault of its own.
    """
    while error is not None:
        if isinstance(error, InputError):
            return type(error)(_message(error))
        if isinstance(error, OSError):
            return _of_system(error)
        if isinstance(error, argparse.ArgumentError):
            return SettingError(explain(str(error)))
        if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("tag2mask"):
            return MissingError(
                f"the package {error.name} is not installed; `tag2mask doctor` says what else is missing"
            )
        kind = type(error).__name__  # by name: torch and lightning need not be imported to say so
        if kind == "MisconfigurationException":
            return SettingError(" ".join(str(error).split()))
        if kind == "OutOfMemoryError":
            return SpaceError(
                "the GPU's memory is full; lower --data.init_args.batch_size (with --trainer.accumulate_grad_batches)"
            )
        if kind in LOST or (kind == "RuntimeError" and "gloo/transport" in str(error)):
            reason = re.sub(r"^\[/[^]]*\] ", "", " ".join(str(error).split())).split(". This is typically")[0]
            return UnreachableError(LOST_PROCESS.format(reason))
        if kind == "RuntimeError" and str(error).startswith("DataLoader worker"):
            return UnreachableError(f"{' '.join(str(error).split())} The same command goes on from the last checkpoint")
        error = error.__cause__
    return None


def dispatch(words: list[str]) -> int:
    """Run a verb, or raise what is wrong; `main` catches that and puts it into one line."""
    if not words or words[0] in HELP:
        print(help.MAIN)
        return 0
    if words[0] == "--version":
        print(__version__)
        return 0
    if words[0] in help.VERBS and set(HELP) & set(words[1:]):
        print(help.VERBS[words[0]])
        return 0
    words = ["--help" if word == "--help-all" else word for word in words]
    if words[0] in LIGHTNING:
        return lightning(words)
    if words[0] in VERBS:
        run: Callable[[list[str]], int] = getattr(import_module(f"tag2mask.cli.{words[0]}"), words[0])
        return run(words[1:])
    near = did_you_mean(words[0], (*LIGHTNING, *VERBS))
    raise SettingError(f"no verb {words[0]!r}{near or '; `tag2mask --help` lists them'}")


def _fail(message: str) -> int:
    print(f"tag2mask: {message}", file=sys.stderr)
    return 2


def _message(error: Exception) -> str:
    """The message alone, also where a loader's process has wrapped it in its traceback."""
    text = str(error).strip()
    if text.startswith("Caught "):
        text = text.splitlines()[-1].split("InputError: ", 1)[-1]
    return " ".join(text.split())


def _of_system(error: OSError) -> InputError:
    where = f" {error.filename}" if error.filename else ""
    said = f"{error.strerror or error}{where}"
    if error.errno == errno.ENOSPC:
        return SpaceError(f"{said}; free some space, then give the same command: it goes on where it stopped")
    if isinstance(error, PermissionError):
        said += "; check who owns it, or write elsewhere with --trainer.default_root_dir or --out"
    return MissingError(said) if isinstance(error, FileNotFoundError) else InputError(said)


def lightning(words: list[str]) -> int:
    """Run one of LightningCLI's verbs."""
    check_yaml(words)
    from tag2mask.cli.lightning import TagsToMasksCLI, follow_parent, quiet

    quiet()
    follow_parent()
    TagsToMasksCLI(words)
    return 0
