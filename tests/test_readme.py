"""Every file and verb that the README names is there."""

import re
from pathlib import Path

README = Path("README.md").read_text()


def test_every_path_and_config_named_exists() -> None:
    named = re.findall(r"\]\(([\w./]+)\)|(configs/[\w/]+\.yaml)", README)
    paths = {link or config for link, config in named} | {
        f"configs/voc/{c}.yaml" for c in re.findall(r"`(cam_\w+)`", README)
    }
    assert len(paths) > 10
    assert [path for path in paths if not Path(path).exists()] == []


def test_every_make_verb_named_is_in_the_makefile() -> None:
    verbs = set(re.findall(r"make ([a-z-]+)", README))
    rules = re.findall(r"^((?:[a-z-]+ ?)+):", Path("Makefile").read_text(), re.M)
    known = {verb for rule in rules for verb in rule.split()}
    assert {"demo", "test", "train-voc"} <= verbs <= known | {"alone"}
