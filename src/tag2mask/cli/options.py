"""Options of the verbs: an error is one line that names what may have been meant."""

import argparse
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, takewhile
from typing import Any, NoReturn

from tag2mask.errors import SettingError

WIDTH = 100  # columns of a help text


class Parser(argparse.ArgumentParser):
    """``ArgumentParser`` with the text of a verb's module as its help; an error raises `SettingError`."""

    def __init__(self, prog: str, text: str | None = None, **named: Any) -> None:
        about, title, examples = (text or "").partition("\nExample")  # which stand after the options
        shape = partial(argparse.RawDescriptionHelpFormatter, width=WIDTH, max_help_position=32)
        super().__init__(prog, description=about, epilog=title + examples, formatter_class=shape, **named)

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


def explain(error: argparse.ArgumentError) -> str:
    """Return the line for an error of jsonargparse: each level of the settings names its place, the last the fault."""
    *_, fault = levels = list(chain(error, "__cause__", "__context__"))
    keys = dict.fromkeys(text.split('"')[1] for text in map(str, levels) if text.startswith('Parser key "'))
    place = f"{'.'.join(keys)}: " if keys else ""
    near = did_you_mean(str(fault.name), dir(fault.obj)) if isinstance(fault, AttributeError) else ""
    advice = "" if isinstance(fault, SettingError) else "; mend the configuration, or see `tag2mask VERB --help`"
    return f"{place}{' '.join(str(fault).split())}{near or advice}"


def chain(error: BaseException | None, *links: str) -> Iterator[BaseException]:
    """Yield an error and those before it: each time the first of ``links`` (``__cause__``, ...) that is set."""
    while error is not None:
        yield error
        error = next((before for link in links if (before := getattr(error, link))), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question that names the known word nearest to ``word``; empty where none is near."""
    near = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def check_options(words: Sequence[str], known: Iterable[str], prog: str, aliases: Mapping[str, str] = {}) -> None:
    """Raise `SettingError` for the first option among ``words`` that is not ``known``, with the one that may be meant.

    A word may be the beginning of an option. ``aliases``: names that people try -> the option. Settings of a class
    (``--data.init_args.root`` where ``--data`` names one) are for jsonargparse to check.
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
