"""Errors of settings, from jsonargparse's typed errors: one line that names the setting, and the near one."""

from argparse import ArgumentError
from collections.abc import Iterator
from typing import Any, NoReturn

from jsonargparse import ArgumentParser
from jsonargparse._namespace import NSKeyError

from tag2mask.cli.options import did_you_mean
from tag2mask.errors import SettingError

UNKNOWN = "unrecognized arguments: --"
"""How argparse begins to say so; it has no typed error for that."""


class SettingsParser(ArgumentParser):
    """jsonargparse's parser with "did you mean"; jsonargparse also parses the settings of each class with it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise an ``ArgumentError``; the cause of an unknown setting is a `SettingError` that names the near one."""
        if isinstance(ex, NSKeyError):
            verb = getattr(ex, "subcommand_parser", None)
            quoted = str(ex).split("'")[1::2]  # the verb or the group of settings, if there is one; the setting
            name = quoted[-1] if verb else ".".join(quoted)
            ex = SettingError(f"no setting {name!r}{(verb or self).near(name)}")
        elif message.startswith(UNKNOWN):
            name = message.removeprefix(UNKNOWN).split("=")[0].split()[0]
            ex = SettingError(f"no setting {name!r}{self.near(name)}")
        super().error(message, ex)

    def near(self, name: str) -> str:
        """Return a question with the near setting, else the settings that there are."""
        names = [word.lstrip("-") for word in self._option_string_actions if word.startswith("--")]
        names = [word for word in names if not word.endswith("help")]
        first = ", ".join(dict.fromkeys(word.split(".")[0] for word in names))
        return did_you_mean(name, names) or f"; expected one of {first}"


def explain(error: ArgumentError) -> str:
    """Return the line for an error of jsonargparse.

    jsonargparse raises an error for each level of the settings: the levels name the place, the innermost the fault.
    """
    levels = list(_causes(error))
    fault, texts = levels[-1], [str(level) for level in levels]
    keys = dict.fromkeys(text.split('"')[1] for text in texts if text.startswith('Parser key "'))
    place = f"{'.'.join(keys)}: " if keys else ""
    near = did_you_mean(str(fault.name), dir(fault.obj)) if isinstance(fault, AttributeError) else ""
    advice = "" if isinstance(fault, SettingError) else "; mend the configuration, or see `tag2mask VERB --help`"
    return f"{place}{' '.join(str(fault).split())}{near or advice}"


def _causes(error: BaseException | None) -> Iterator[Any]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
