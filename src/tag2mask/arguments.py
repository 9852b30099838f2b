"""Words of the command line, with complaints of one line."""

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import yaml

from tag2mask.errors import InputError


class Parser(argparse.ArgumentParser):
    """``ArgumentParser`` that raises ``InputError`` where it would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the words."""
        raise InputError(f"{message}; `{self.prog} --help` lists the options")


def check_yaml(words: Sequence[str]) -> None:
    """Name a configuration that is no YAML, and the place in it; the parser behind names neither."""
    for option, value in pairwise(words):
        if option in ("--config", "-c"):
            try:
                yaml.safe_load(Path(value).read_text(encoding="utf-8"))
            except yaml.YAMLError as error:
                raise InputError(f"{value} is not YAML: {error}; mend it there") from None
            except FileNotFoundError:
                raise InputError(f"no configuration {value}; configs/ has one for every run") from None
