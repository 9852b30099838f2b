"""Parsers of the command line: an error is one line that names what may have been meant."""

import argparse
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, pairwise, takewhile
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse
import yaml
from jsonargparse._namespace import NSKeyError

from tag2mask.errors import DamagedError, SettingError
from tag2mask.io.folders import read_text

WIDTH = 100  # columns of a help text
UNKNOWN = "unrecognized arguments: --"  # argparse has no typed error for that


class Parser(argparse.ArgumentParser):
    """``ArgumentParser`` with the text of a verb's module as its help; an error raises `SettingError`."""

    def __init__(self, prog: str, text: str | None = None, **named: Any) -> None:
        super().__init__(prog, **help_from(text), **named)

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


class SettingsParser(jsonargparse.ArgumentParser):
    """jsonargparse's parser with "did you mean"; jsonargparse also parses the settings of each class with it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise an ``ArgumentError``; the cause of an unknown setting is a `SettingError` that names the near one."""
        verb, name = getattr(ex, "subcommand_parser", None), ""
        if isinstance(ex, NSKeyError):
            quoted = str(ex).split("'")[1::2]  # the verb or the group of settings, if there is one; the setting
            name = quoted[-1] if verb else ".".join(quoted)
        elif message.startswith(UNKNOWN):
            name = message.removeprefix(UNKNOWN).split("=")[0].split()[0]
        if name:
            options = (verb or self)._option_string_actions
            known = [word.lstrip("-") for word in options if word.startswith("--") and not word.endswith("help")]
            first = ", ".join(dict.fromkeys(word.split(".")[0] for word in known))
            ex = SettingError(f"no setting {name!r}{did_you_mean(name, known) or f'; expected one of {first}'}")
        super().error(message, ex)


def help_from(text: str | None) -> dict[str, Any]:
    """Return what makes a parser print the docstring of a module as its help: the examples after the options."""
    about, title, examples = (text or "").partition("\nExample")
    shape = partial(argparse.RawDescriptionHelpFormatter, width=WIDTH, max_help_position=32)
    return {"description": about, "epilog": title + examples, "formatter_class": shape}


def explain(error: argparse.ArgumentError) -> str:
    """Return the line for an error of jsonargparse, which raises one for each level of the settings.

    The levels name the place, the innermost the fault.
    """
    *_, fault = levels = list(chain(error, "__cause__", "__context__"))
    keys = dict.fromkeys(text.split('"')[1] for text in map(str, levels) if text.startswith('Parser key "'))
    place = f"{'.'.join(keys)}: " if keys else ""
    near = did_you_mean(str(fault.name), dir(fault.obj)) if isinstance(fault, AttributeError) else ""
    advice = "" if isinstance(fault, SettingError) else "; mend the configuration, or see `tag2mask VERB --help`"
    return f"{place}{' '.join(str(fault).split())}{near or advice}"


def chain(error: BaseException | None, *links: str) -> Iterator[BaseException]:
    """Yield an error and those before it: each time the first of ``links``, such as ``__cause__``, that is set."""
    while error is not None:
        yield error
        error = next((before for link in links if (before := getattr(error, link))), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question that names the known word nearest to ``word``; empty where none is near."""
    near = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def check_options(words: Sequence[str], known: Iterable[str], prog: str, aliases: Mapping[str, str] = {}) -> None:
    """Raise `SettingError` for the first option among ``words`` that is not ``known``, with the one that may be meant.

    A word may be the beginning of an option. ``aliases`` are names that people try, each with its option. Settings of a
    class, such as ``--data.init_args.root`` where ``--data`` names one, are for jsonargparse to check.
    """
    known = list(known)
    members = [option for option in known if not option.endswith(".help")]
    settings = [option for option in known if not any(member.startswith(f"{option}.") for member in members)]
    names = {f"--{option.rsplit('.', 1)[-1].lstrip('-')}": option for option in settings}
    names |= {option: option for option in settings} | dict(aliases)
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
        try:
            if part or option in ("--config", "-c"):
                yaml.safe_load(read_text(Path(value), "a configuration; configs/ has one for every run"))
        except yaml.YAMLError as error:
            raise DamagedError(f"{value} is not YAML: {error}; mend it there") from None
