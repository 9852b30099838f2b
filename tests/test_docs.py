"""Every command and snippet of README and docs.

Run fully: each Python snippet, on tiny data. Parsed by the real parsers, not run: each ``tag2mask`` line, so that its
verb, options, configuration and settings exist. Dry: each ``make`` line (``make -n``).
"""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tag2mask.cli import help
from tag2mask.cli.main import LIGHTNING, main
from tag2mask.cli.options import Parser
from tests.commands import SMALL_NET, words
from tests.messages import head, messages

PAGES = list(map(Path, ("README.md", "examples/README.md", "weights/animals_lite0.md")))
PAGES += sorted(Path("docs").rglob("*.md"))
HERE = Path.cwd()


def blocks(language: str) -> list[tuple[str, str]]:
    found = [
        (page.name, text) for page in PAGES for text in re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)
    ]
    return [(f"{name}-{number}", text) for number, (name, text) in enumerate(found)]


def commands(program: str) -> list[str]:
    """Lines of bash blocks, and commands in backticks, from ``program`` on; those that stand for more are left out."""
    lines = [line.split(" #")[0] for _, text in blocks("bash") for line in text.replace("\\\n", " ").splitlines()]
    lines += [each for page in PAGES for each in re.findall(r"`([^`\n]+)`", page.read_text())]
    found = [match[1].strip() for line in lines if (match := re.search(rf"(?:^|-m |=1 )({program} .*)", line))]
    found = [line.replace("--config ... ", "") for line in found]
    return sorted({line for line in found if "..." not in line and not re.search(r"[A-Z]{4,}(?![\w=/])", line)})


TAG2MASK = [line for line in commands("tag2mask") if " --" in line or len(line.split()) > 3]


class Parsed(Exception):
    """The words were understood; nothing is run."""


@pytest.mark.parametrize("line", TAG2MASK)
def test_commands_are_understood(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tag2mask.cli import labels, lightning

    def stop(*_: object, **__: object) -> None:
        raise Parsed

    whole, depth = Parser.parse_args, labels.parse

    def parse(self: Parser, *given: object) -> None:
        whole(self, *given)  # type: ignore[arg-type]
        raise Parsed

    def parse_labels(given: list[str]) -> None:
        depth(given)
        raise Parsed

    monkeypatch.setattr(Parser, "parse_args", parse)
    monkeypatch.setattr(labels, "parse", parse_labels)
    monkeypatch.setattr(lightning.TagsToMasksCLI, "before_instantiate_classes", stop)
    monkeypatch.setattr(lightning.TagsToMasksCLI, "_parse_ckpt_path", lambda self: None)
    _, verb, *given = shlex.split(line)
    if {"--help", "--help-all", "-h"} & set(given):
        assert verb in help.MAIN
        return
    if verb in (*LIGHTNING, "labels") and "--config" not in given:
        given = ["--config", "configs/demo/seeds.yaml" if verb == "labels" else "configs/demo/cam_tuned.yaml", *given]
    with pytest.raises(Parsed):
        main([verb, *given])


def test_commands_were_found() -> None:
    assert {"prepare", "fit", "predict", "labels", "segment", "evaluate"} <= {line.split()[1] for line in TAG2MASK}
    assert any("--shard 1/4" in line for line in commands("make"))
    assert any("--nnodes" in page.read_text() for page in PAGES)
    assert any(line.startswith("tag2mask fit") and "num_nodes" in line for line in TAG2MASK)


@pytest.mark.parametrize("line", commands("make"))
def test_make_lines_resolve(line: str) -> None:
    given = ["make", "-n", "-o", ".venv/.done", *shlex.split(line)[1:]]
    done = subprocess.run(given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def place(
    sample: Path, edge_checkpoint: Path, segmentation_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A working folder as the demo leaves it, with networks of two steps, and a data set of pets."""
    root = tmp_path_factory.mktemp("place")
    shutil.copytree(sample, root / "data" / "sample")
    runs = root / "runs" / "demo"
    over = {"trainer__max_steps": "2", "trainer__limit_val_batches": "0"}
    small = [word for key, value in SMALL_NET.items() for word in (f"--{key}", value)]
    assert main([*words("fit", "configs/demo/cam_tuned.yaml", sample, runs / "full", **over), *small]) == 0
    shutil.copytree(edge_checkpoint.parents[1], runs / "affinity")
    shutil.copytree(segmentation_checkpoint.parents[1], runs / "segmentation")
    (root / "pets" / "train").mkdir(parents=True)
    (root / "pets" / "val").mkdir()
    for name in ("cat", "cat_and_dog"):
        Image.new("RGB", (64, 64)).save(root / "pets" / "train" / f"{name}.jpg")
    return root


@pytest.mark.slow
@pytest.mark.parametrize(("name", "text"), blocks("python"), ids=lambda value: value if "\n" not in value else "")
def test_python_snippets_run(name: str, text: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    exec(compile(text, name, "exec"), {"__name__": "snippet"})


def test_troubleshooting_has_an_entry_for_every_message() -> None:
    page = re.sub(r"…+", "…", (HERE / "docs" / "troubleshooting.md").read_text())
    heads = {re.sub(r"…+", "…", head(message)): path for message, path in messages().items()}
    heads = {found: path for found, path in heads.items() if found.strip("… ")}
    assert len(heads) > 130
    assert [f"{path}: {found}" for found, path in heads.items() if f"| {found} |" not in page] == []


def test_links_between_pages_lead_somewhere() -> None:
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\(([\w./]+)\)", page.read_text())]
    assert [(str(page), link) for page, link in links if not (page.parent / link).exists()] == []
