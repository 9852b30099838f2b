"""The parser of configurations: its errors name the near setting, or the place in a file."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import jsonargparse
import yaml
from jsonargparse._namespace import NSKeyError

from tag2mask.cli.options import did_you_mean
from tag2mask.errors import DamagedError, SettingError
from tag2mask.io.folders import read_text


class SettingsParser(jsonargparse.ArgumentParser):
    """jsonargparse's parser with "did you mean"; jsonargparse also parses the settings of each class with it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise an ``ArgumentError``; the cause of an unknown setting is a `SettingError` that names the near one."""
        verb = getattr(ex, "subcommand_parser", None)
        unknown = re.match(r"unrecognized arguments: --([^\s=]+)", message)  # argparse has no typed error for that
        name = unknown[1] if unknown else ""
        if isinstance(ex, NSKeyError):
            quoted = str(ex).split("'")[1::2]  # the verb or the group of settings, if there is one; the setting
            name = quoted[-1] if verb else ".".join(quoted)
        if name:
            options = (verb or self)._option_string_actions
            known = [word.lstrip("-") for word in options if word.startswith("--") and not word.endswith("help")]
            first = ", ".join(dict.fromkeys(word.split(".")[0] for word in known))
            ex = SettingError(f"no setting {name!r}{did_you_mean(name, known) or f'; expected one of {first}'}")
        super().error(message, ex)


def check_yaml(words: Sequence[str]) -> None:
    """Name a configuration that is no YAML, and the place in it; jsonargparse names neither."""
    for option, value in [*pairwise(words), *(word.split("=", 1) for word in words if "=" in word)]:
        part = value.endswith((".yaml", ".yml")) and Path(value).is_file()  # --trainer FILE
        try:
            if part or option in ("--config", "-c"):
                yaml.safe_load(read_text(Path(value), "a configuration; `tag2mask configs` lists one for every run"))
        except yaml.YAMLError as error:
            raise DamagedError(f"{value} is not YAML: {error}; mend it there") from None
