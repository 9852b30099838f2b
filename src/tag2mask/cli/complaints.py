"""What jsonargparse finds wrong with settings, in one line that names what was meant."""

import re
from importlib import import_module

from tag2mask.cli.options import did_you_mean

NOISE = ("Does not validate", "Subtypes:", "Errors:", "- Expected a <class 'NoneType'>", "Given value")
CLASS = re.compile(r"Problem with given class_path '([^']+)'")
SETTING = re.compile(
    r"Option '(?P<option>[^']+)' is not accepted"
    r"|Group '(?P<group>[^']+)' does not accept option '(?P<member>[^']+)'"
    r"|unrecognized arguments: --(?P<words>[\w.]+)"
)
ABSENT = re.compile(r"module '([^']+)' has no attribute '([^']+)'")


def explain(text: str) -> str:
    """Return the line for jsonargparse's message ``text``, without its account of every type that it tried."""
    lines = (line.strip() for line in text.splitlines())
    told = " ".join(line.removeprefix("- ") for line in lines if line and not line.startswith(NOISE))
    told = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", told)
    setting, absent, classes = SETTING.search(text), ABSENT.search(text), CLASS.findall(text)
    if setting and classes:
        member = setting["member"] and f"{setting['group']}.{setting['member']}"
        return _unknown(setting["option"] or member or setting["words"], classes[_depth(text, setting.start()) - 1])
    near = did_you_mean(absent[2], dir(import_module(absent[1]))) if absent else ""
    return f"{told}{near}" if near else f"{told}; mend the configuration, or see `tag2mask VERB --help`"


def _depth(text: str, place: int) -> int:
    """How many classes have been named before a place: the last of them is the one that complains there."""
    return len(CLASS.findall(text[:place]))


def _unknown(name: str, class_path: str) -> str:
    names = _settings(class_path)
    first = ", ".join(dict.fromkeys(each.split(".")[0] for each in names))
    return f"{class_path} has no setting {name!r}{did_you_mean(name, names) or f'; it has {first}'}"


def _settings(class_path: str) -> list[str]:
    """Names of the settings of a class, those of settings classes within it with a dot."""
    from jsonargparse import ArgumentParser

    module, name = class_path.rsplit(".", 1)
    parser = ArgumentParser()
    parser.add_class_arguments(getattr(import_module(module), name), fail_untyped=False)
    options = (option for action in parser._actions for option in action.option_strings)
    return [o.lstrip("-") for o in options if o not in ("-h", "--help") and not o.endswith(".help")]
