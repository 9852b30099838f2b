"""The command line: LightningCLI's fit, validate, test and predict, and the verbs around them."""

import argparse
import errno
import gc
import os
import re
import select
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from types import ModuleType

from tag2mask import __version__
from tag2mask.cli import help
from tag2mask.cli.configs import with_paths
from tag2mask.cli.help import LIGHTNING
from tag2mask.cli.options import chain, did_you_mean, explain
from tag2mask.errors import (
    DamagedError,
    InputError,
    MismatchError,
    MissingError,
    SettingError,
    SpaceError,
    UnreachableError,
)
from tag2mask.io import locks
from tag2mask.utils.progress import warn

VERBS = ("run", "prepare", "configs", "labels", "segment", "export", "archive", "evaluate", "report", "doctor")
"""The other verbs. Each has a module of its name here, imported when it is called, with a function of that name."""
LOST_PROCESS = "another process of this run has ended or cannot be reached ({}); see its message, repeat the command"


def main(args: Sequence[str] | None = None) -> int:
    """Run ``tag2mask`` with ``args`` (those of the process by default); return the exit status.

    What the user can mend ends in one line on standard error and status 2; with ``TAG2MASK_TRACEBACK=1`` the traceback
    stands before it. Where nobody reads the output any more (``tag2mask evaluate ... | head -1``), it ends in silence.
    """
    try:
        try:
            return _status(list(sys.argv[1:] if args is None else args))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _unread():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still prints at its end
        return 141  # as a shell has it for a program that writes into a closed pipe


def dispatch(words: list[str]) -> int:
    """Run a verb and return its status, or raise what is wrong; `main` catches that and puts it into one line."""
    verb = words[0] if words else "--help"
    asked = words if verb in help.VERBS else [verb]
    if not {"-h", "--help", "--version"}.isdisjoint(asked):
        print(__version__ if verb == "--version" else help.VERBS.get(verb, help.MAIN))
        return 0
    if verb not in (*LIGHTNING, *VERBS):
        near = did_you_mean(verb, (*LIGHTNING, *VERBS))
        raise SettingError(f"no verb {verb!r}{near or '; `tag2mask --help` lists them'}")
    if verb in help.VERBS:
        words = with_paths(["--help" if word == "--help-all" else word for word in words])
    name = "lightning" if verb in LIGHTNING else verb
    run: Callable[[list[str]], int | None] = getattr(_loaded(f"tag2mask.cli.{name}"), name)
    try:
        return run(words if verb in LIGHTNING else words[1:]) or 0
    finally:
        locks.release_all()


def _loaded(name: str) -> ModuleType:
    """Import a module without a search for garbage meanwhile, nor later in what was imported.

    Half a million objects are made, all are kept, and each full search walks through them.
    """
    if name in sys.modules:
        return sys.modules[name]
    gc.disable()
    try:
        return import_module(name)
    finally:
        gc.freeze()
        gc.enable()


def _status(words: list[str]) -> int:
    try:
        return dispatch(words)
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, BrokenPipeError) and _unread():
            raise
        kinds = {type(each).__name__ for each in chain(error, "__context__")}
        for kind, word, status in (("KeyboardInterrupt", "interrupted", 130), ("SIGTERMException", "terminated", 143)):
            if kind in kinds:  # Lightning answers KeyboardInterrupt with SystemExit(1)
                warn(f"{word}; the same command goes on where it stopped")
                return status
        known = mendable(error)
        if known is None:
            raise
        if os.environ.get("TAG2MASK_TRACEBACK", "0") not in ("", "0"):
            traceback.print_exc()
        warn(str(known))
        return 2


def _unread() -> bool:
    """Whether standard output is a pipe that nobody reads from any more."""
    with suppress(OSError, ValueError):  # it is no file
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    return False


def mendable(error: BaseException) -> InputError | None:
    """Return what the user can mend as an `InputError`: the error, or its cause where something has wrapped it."""
    return next(filter(None, map(_translated, chain(error, "__cause__"))), None)


def _translated(error: BaseException) -> InputError | None:
    """The `InputError` for one error; kinds of torch and lightning by name, so that these need not be imported."""
    kind, text = type(error).__name__, " ".join(str(error).split())
    if isinstance(error, InputError):  # a loader's process puts "Caught ..." and its traceback before the message
        last = str(error).strip().splitlines()[-1].split("Error: ", 1)[-1]
        return type(error)(last if text.startswith("Caught ") else text)
    if isinstance(error, argparse.ArgumentError):
        return SettingError(explain(error))
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("tag2mask"):
        return MissingError(f"the package {error.name} is not installed; `tag2mask doctor` says what else is missing")
    if kind == "MisconfigurationException":
        return SettingError(text)
    if kind == "RuntimeError" and (found := re.match(r"Error\(s\) in loading state_dict for \w+: (.{1,120})", text)):
        remedy = "give the configuration that it was trained with, or another checkpoint"
        return MismatchError(
            f"the checkpoint is of another network than the configuration's ({found[1]} ...); {remedy}"
        )
    if kind == "OutOfMemoryError":
        return SpaceError("the GPU's memory is full; lower --data.init_args.batch_size and accumulate gradients")
    lost = ("DistBackendError", "DistNetworkError", "DistStoreError")  # of torch, where another process is gone
    if kind in lost or (kind == "RuntimeError" and "gloo/transport" in text):
        reason = re.sub(r"^\[/[^]]*\] ", "", text).split(". This is typically")[0]
        return UnreachableError(LOST_PROCESS.format(reason))
    if kind == "RuntimeError" and text.startswith("DataLoader worker"):
        return UnreachableError(f"{text} The same command goes on from the last checkpoint")
    if not isinstance(error, OSError):
        return None
    text = f"{error.strerror or error}{f' {error.filename}' if error.filename else ''}"
    if error.errno == errno.ENOSPC:
        return SpaceError(f"{text}; free some space, then give the same command: it goes on where it stopped")
    if isinstance(error, PermissionError):
        text += "; check who owns it, or write elsewhere with --trainer.default_root_dir or --out"
    if isinstance(error, ConnectionError):
        return UnreachableError(text)
    return MissingError(text) if isinstance(error, FileNotFoundError) else DamagedError(text)
