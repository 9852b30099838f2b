"""Words of the command line, with complaints of one line that name what was meant."""

import argparse
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import yaml

from tag2mask.errors import InputError

WIDTH = 100
"""Columns of a help text."""


class Parser(argparse.ArgumentParser):
    """``ArgumentParser`` that raises ``InputError`` where it would print its usage and exit.

    Its help keeps the lines of description and epilog, and is `WIDTH` columns wide.
    """

    def __init__(self, *words: Any, **named: Any) -> None:
        shape = partial(argparse.RawDescriptionHelpFormatter, width=WIDTH, max_help_position=32)
        super().__init__(*words, **{"formatter_class": shape, **named})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Complain of an unknown option first: a required one that is missing is most often that one, misspelt."""
        if args is not None and not self._subparsers:
            check_options(args, self._option_string_actions, self.prog)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the words."""
        choice = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        near = did_you_mean(choice[1], re.findall(r"[^\s,']+", choice[2])) if choice else ""
        raise InputError(f"{message}{near or f'; `{self.prog} --help` lists the options'}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question that names the known word nearest to ``word``, empty where none is near."""
    near = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def check_options(
    words: Sequence[str], known: Iterable[str], prog: str, meant: Mapping[str, str] | None = None
) -> None:
    """Raise ``InputError`` for the first option that is none, with the one that may have been meant.

    Settings of a class, such as ``--data.init_args.root`` where ``--data`` names one, are for jsonargparse to check.

    Args:
        words: of the command line.
        known: options; a word may be the beginning of one.
        prog: the command, for its help.
        meant: names that people try -> the option.
    """
    known = list(known)
    groups = {option for option in known if any(other.startswith(f"{option}.") for other in known if _named(other))}
    names = {f"--{option.rsplit('.', 1)[-1].lstrip('-')}": option for option in known if option not in groups}
    names |= {option: option for option in known if option not in groups} | dict(meant or {})
    for word in words:
        option = word.split("=")[0].rstrip("+")
        if word == "--":
            return
        if not word.startswith("--") or any(each.startswith(option) for each in known):
            continue
        parts = option.split(".")
        if any(".".join(parts[:n]) in set(known) - groups for n in range(1, len(parts))):
            continue
        near = difflib.get_close_matches(option, list(names), 1, cutoff=0.75)
        hint = f"did you mean {names[near[0]]}?" if near else f"`{prog} --help` lists the options"
        raise InputError(f"unknown option {option}; {hint}")


def _named(option: str) -> bool:
    """Whether an option is a setting, not the help on a class."""
    return not option.endswith(".help")


def check_yaml(words: Sequence[str]) -> None:
    """Name a configuration that is no YAML, and the place in it; the parser behind names neither."""
    for option, value in [*pairwise(words), *(word.split("=", 1) for word in words if "=" in word)]:
        part = value.endswith((".yaml", ".yml")) and Path(value).is_file()  # --trainer FILE
        if part or option in ("--config", "-c"):
            try:
                yaml.safe_load(Path(value).read_text(encoding="utf-8"))
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{value} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
                ) from None
            except yaml.YAMLError as error:
                raise InputError(f"{value} is not YAML: {error}; mend it there") from None
            except FileNotFoundError:
                raise InputError(f"no configuration {value}; configs/ has one for every run") from None
