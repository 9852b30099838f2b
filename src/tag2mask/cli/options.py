"""Parsers of the command line: an error is one line that names what may have been meant."""

import argparse
import difflib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import accumulate, pairwise, takewhile
from pathlib import Path
from typing import Any, NoReturn

import yaml

from tag2mask.errors import DamagedError, MissingError, SettingError

WIDTH = 100
"""Columns of a help text."""


class Parser(argparse.ArgumentParser):
    """``ArgumentParser`` that raises `SettingError` where it would print its usage and exit.

    The help keeps the lines of description and epilog, and is `WIDTH` columns wide.
    """

    def __init__(self, *words: Any, **named: Any) -> None:
        shape = partial(argparse.RawDescriptionHelpFormatter, width=WIDTH, max_help_position=32)
        super().__init__(*words, **{"formatter_class": shape, **named})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse an unknown option first: where a required one is missing, it is most often that one, misspelt."""
        if args is not None and not self._subparsers:
            check_options(args, self._option_string_actions, self.prog)
        return super().parse_known_args(args, namespace)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = list(action.choices)
            raise SettingError(f"invalid choice {value!r}{did_you_mean(value, known) or f'; expected one of {known}'}")

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the words."""
        raise SettingError(f"{message}; `{self.prog} --help` lists the options")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question that names the known word nearest to ``word``; empty where none is near."""
    near = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def check_options(
    words: Sequence[str], known: Iterable[str], prog: str, aliases: Mapping[str, str] | None = None
) -> None:
    """Raise `SettingError` for the first unknown option, with the option that may have been meant.

    Settings of a class, such as ``--data.init_args.root`` where ``--data`` names one, are for jsonargparse to check.

    Args:
        words: of the command line.
        known: options; a word may be the beginning of one.
        prog: the command, for its help.
        aliases: names that people try -> the option.
    """
    known = list(known)
    members = [option for option in known if not option.endswith(".help")]
    settings = [option for option in known if not any(member.startswith(f"{option}.") for member in members)]
    names = {f"--{option.rsplit('.', 1)[-1].lstrip('-')}": option for option in settings}
    names |= {option: option for option in settings} | dict(aliases or {})
    for word in takewhile(lambda word: word != "--", words):
        option = word.split("=")[0].rstrip("+")
        of_a_class = not set(accumulate(option.split("."), "{}.{}".format)).isdisjoint(settings)
        if of_a_class or not option.startswith("--") or any(each.startswith(option) for each in known):
            continue
        near = difflib.get_close_matches(option, list(names), 1, cutoff=0.75)
        hint = f"did you mean {names[near[0]]}?" if near else f"`{prog} --help` lists the options"
        raise SettingError(f"unknown option {option}; {hint}")


def check_yaml(words: Sequence[str]) -> None:
    """Name a configuration that is no YAML, and the place in it; jsonargparse names neither."""
    for option, value in [*pairwise(words), *(word.split("=", 1) for word in words if "=" in word)]:
        part = value.endswith((".yaml", ".yml")) and Path(value).is_file()  # --trainer FILE
        if not part and option not in ("--config", "-c"):
            continue
        try:
            yaml.safe_load(Path(value).read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            reason = f"{error.reason} at byte {error.start}"
            raise DamagedError(f"{value} is not UTF-8 text ({reason}); save it as UTF-8") from None
        except yaml.YAMLError as error:
            raise DamagedError(f"{value} is not YAML: {error}; mend it there") from None
        except FileNotFoundError:
            raise MissingError(f"no configuration {value}; configs/ has one for every run") from None
