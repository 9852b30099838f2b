"""The parser of configurations: its errors name the near setting, or the place in a file.

A configuration may come from a stranger. So it names classes of `PACKAGES` alone, and of modules that the command line
names by ``--trust``: to build another object, or to import the module that it stands in, can run any code.
"""

import inspect
import pydoc
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse
import yaml
from jsonargparse._namespace import NSKeyError

from tag2mask.cli.options import did_you_mean
from tag2mask.errors import SettingError
from tag2mask.io.files import decoding
from tag2mask.io.folders import read_text

PACKAGES = ("tag2mask", "torch", "lightning", "torchmetrics")
"""Whose classes a configuration may name."""
TRUST = "--trust MODULE, on the command line alone: configurations may name what is in a module of your own"
LONGEST, ALIASES, DEPTH = 100_000, 10, 30  # characters, aliases and levels of a configuration


def take_trusted(words: Sequence[str]) -> list[str]:
    """Take ``--trust MODULE`` out of the words of a command, and let configurations name what is in these modules."""
    kept, trusted = [], []
    for before, word in pairwise(["", *words]):
        if before == "--trust" or word.startswith("--trust="):
            trusted.append(word.removeprefix("--trust="))
        elif word != "--trust":
            kept.append(word)
    if words[-1:] == ["--trust"] or not all(name.isidentifier() for name in trusted):
        raise SettingError(f"--trust {', '.join(trusted)}; expected the name of a module or package, without dots")
    jsonargparse.set_parsing_settings(
        import_path_denylist=["*"],
        import_path_allowlist=[*PACKAGES, *trusted],
        instantiate_subclass_spec_in_any=False,  # what no annotation restricts stays a dict
    )
    SettingsParser.trusted = frozenset(trusted)
    return kept


def _named(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what the values of settings name: path and object of each class, and of each function."""
    if isinstance(value, jsonargparse.Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        if isinstance(path := value.get("class_path"), str):
            yield path, pydoc.locate(path) if path.split(".")[0] in {*PACKAGES, *SettingsParser.trusted} else None
        value = list(value.values())
    if isinstance(value, list | tuple | set):
        for each in value:
            yield from _named(each)
    elif inspect.isroutine(value):
        yield f"{value.__module__}.{value.__qualname__}", value


def _builds(found: Any) -> bool:
    """Say whether an object of one of the `PACKAGES` is a class that only builds something.

    A function would be called with what a configuration says, and so would an object that is called like one; networks
    and what is of this package are such objects, but safe.
    """
    from torch.nn import Module

    if not inspect.isclass(found):
        return False
    own = issubclass(found, Module) or found.__module__.split(".")[0] == "tag2mask"
    return own or not any("__call__" in vars(base) for base in found.__mro__)


class SettingsParser(jsonargparse.ArgumentParser):
    """jsonargparse's parser with "did you mean"; jsonargparse also parses the settings of each class with it."""

    trusted: frozenset[str] = frozenset()  # modules that the command line names by --trust

    def parse_args(self, *args: Any, **named: Any) -> Any:
        """Parse words and configurations; refuse whatever is no class of a package or module that is trusted."""
        config = super().parse_args(*args, **named)
        for path, found in _named(config):
            if path.split(".")[0] not in self.trusted and not _builds(found):
                raise _untrusted(path)
        return config

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise an ``ArgumentError``; the cause of an unknown setting is a `SettingError` that names the near one."""
        verb = getattr(ex, "subcommand_parser", None)
        unknown = re.match(r"unrecognized arguments: --([^\s=]+)", message)  # argparse has no typed error for that
        name = unknown[1] if unknown else ""
        if isinstance(ex, NSKeyError):
            quoted = str(ex).split("'")[1::2]  # the verb or the group of settings, if there is one; the setting
            name = quoted[-1] if verb else ".".join(quoted)
        if denied := re.search(r"Importing '([^']+)' is not allowed", message):
            ex = _untrusted(denied[1])
        if name:
            options = (verb or self)._option_string_actions
            known = [word.lstrip("-") for word in options if word.startswith("--") and not word.endswith("help")]
            first = ", ".join(dict.fromkeys(word.split(".")[0] for word in known))
            ex = SettingError(f"no setting {name!r}{did_you_mean(name, known) or f'; expected one of {first}'}")
        super().error(message, ex)


def _untrusted(path: str) -> SettingError:
    return SettingError(
        f"a configuration may not name {path}: a function, or what is not of {', '.join(PACKAGES)}, could run any "
        f"code; take it out, or give --trust {path.split('.')[0]} on the command line if you know what that module does"
    )


def require_small_yaml(text: str) -> None:
    """Raise ``YAMLError`` for a text of which a few bytes stand for much: by aliases, by depth, or by length."""
    if len(text) > LONGEST:
        raise yaml.YAMLError(f"{len(text):,} characters, more than {LONGEST:,}")
    aliases = depth = 0
    for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        aliases += isinstance(event, yaml.AliasEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if aliases > ALIASES or depth > DEPTH:
            raise yaml.YAMLError(f"more than {ALIASES} aliases, or {DEPTH} levels")


def _load_small(text: str, load: Any = jsonargparse.get_loader("yaml")) -> Any:
    require_small_yaml(text)
    return load(text)


jsonargparse.set_loader("yaml", _load_small, exceptions=(yaml.YAMLError, ValueError))


def check_yaml(words: Sequence[str]) -> None:
    """Name a configuration that is no YAML, and the place in it; jsonargparse names neither."""
    for option, value in [*pairwise(words), *(word.split("=", 1) for word in words if "=" in word)]:
        part = value.endswith((".yaml", ".yml")) and Path(value).is_file()  # --trainer FILE
        if part or option in ("--config", "-c"):
            text = read_text(Path(value), "a configuration; `tag2mask configs` lists one for every run")
            with decoding(Path(value), "YAML", "mend it there"):
                require_small_yaml(text)
                yaml.safe_load(text)
