"""Every file and verb that README and docs/usage.md name is there."""

import re
from pathlib import Path

README, USAGE = (Path(page).read_text() for page in ("README.md", "docs/usage.md"))


def test_every_path_and_config_named_exists() -> None:
    named = re.findall(r"\]\(([\w./]+)\)|(configs/[\w/]+\.yaml)", README)
    paths = {link or config for link, config in named} | {
        f"configs/voc/{c}.yaml" for c in re.findall(r"`(cam_\w+)`", USAGE)
    }
    assert len(paths) > 10
    assert [path for path in paths if not Path(path).exists()] == []


def test_every_make_verb_named_is_in_the_makefile() -> None:
    verbs = set(re.findall(r"^make ([a-z-]+)", README + USAGE, re.M))
    rules = re.findall(r"^((?:[a-z-]+ ?)+):", Path("Makefile").read_text(), re.M)
    known = {verb for rule in rules for verb in rule.split()}
    assert {"demo", "test", "train-voc"} <= verbs <= known
