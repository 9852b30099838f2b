"""A parser of words whose complaints are one line, like all others."""

import argparse
from typing import NoReturn

from tag2mask.errors import InputError


class Parser(argparse.ArgumentParser):
    """``ArgumentParser`` that raises ``InputError`` where it would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the words."""
        raise InputError(f"{message}; `{self.prog} --help` lists the options")
