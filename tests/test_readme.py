"""Every file and verb that README and docs/usage.md name is there."""

import re
from pathlib import Path

from tag2mask.cli.configs import names

README, USAGE = (Path(page).read_text() for page in ("README.md", "docs/usage.md"))


def test_every_path_and_config_named_exists() -> None:
    paths = re.findall(r"\]\(([\w./]+)\)|(configs/[\w/]+\.yaml)", README)
    assert len(paths) > 10
    assert [path for pair in paths if not Path(path := "".join(pair)).exists()] == []
    configs = {f"voc/{name}" for name in re.findall(r"`(cam_\w+)`", USAGE)}
    configs |= set(re.findall(r"(?:--config|tag2mask configs) ([\w/]+)", README + USAGE))
    assert len(configs) > 20
    assert configs <= set(names())


def test_every_make_verb_named_is_in_the_makefile() -> None:
    verbs = set(re.findall(r"^make ([a-z-]+)", README + USAGE, re.M))
    rules = re.findall(r"^((?:[a-z-]+ ?)+):", Path("Makefile").read_text(), re.M)
    known = {verb for rule in rules for verb in rule.split()}
    assert {"demo", "test", "train-voc"} <= verbs <= known
