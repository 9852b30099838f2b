"""Help that fits a screen, and words that are nearly right."""

import re

import pytest

from tag2mask.cli import help
from tag2mask.cli.main import LIGHTNING, VERBS, main
from tag2mask.errors import SettingError
from tests.commands import fault, line

SUBVERBS = [("prepare", data) for data in ("voc", "coco", "sample", "folder")] + [
    ("archive", "write"),
    ("archive", "check"),
]
FIT = ["fit", "--config", "configs/demo/cam_tuned.yaml"]


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    try:
        assert main([*words]) == 0
    except SystemExit as end:
        assert end.code == 0  # noqa: PT017
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", [*LIGHTNING, *VERBS])
def test_the_help_of_each_verb_fits_a_screen_and_says_what_it_reads_and_writes_with_an_example(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(capsys, verb, "--help").strip("\n")
    lines = text.splitlines()
    assert 12 <= len(lines) <= 40
    assert max(map(len, lines)) <= 100
    assert re.search(r"\breads\b", text)
    assert re.search(r"\bwrites\b", text)
    assert re.search(rf"^examples?:?\n  tag2mask {verb}\b", text, re.M | re.I)


@pytest.mark.parametrize("words", [("--help",), *((verb, what, "--help") for verb, what in SUBVERBS)], ids=" ".join)
def test_the_other_help_fits_a_screen(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, *words).strip("\n").splitlines()
    assert 5 <= len(lines) <= 40
    assert max(map(len, lines)) <= 102  # the argparse of some Pythons lets a last word stand out


def test_every_verb_is_in_the_first_help() -> None:
    assert {*LIGHTNING, *VERBS} <= set(re.findall(r"\w+", help.MAIN))


@pytest.mark.parametrize("verb", help.VERBS)
def test_the_short_help_names_options_that_there_are(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    whole = shown(capsys, verb, "--help-all")
    named = re.findall(r"(--[a-z_]+(?:\.[a-z_]+)?)", help.VERBS[verb].replace("--help-all", ""))
    assert len(whole.splitlines()) > (30 if verb == "labels" else 40)
    assert [option for option in named if option.split(".init_args")[0] not in whole] == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["segment", "cat.jpg", "--chekpoint", "x.ckpt"], "unknown option --chekpoint; did you mean --checkpoint?"),
        (["evaluate", "cams", "--masks=m", "--treshold", "0.3"], "did you mean --threshold?"),
        (["prepare", "smaple"], "did you mean 'sample'?"),
        (["prepare", "sample", "--cuont", "3"], "did you mean --count?"),
        (["report", "runs", "--foo"], "unknown option --foo; `tag2mask report --help` lists the options"),
        (["labels", "--config", "configs/demo/labels.yaml", "--sfot", "true"], "did you mean --soft?"),
        (["labels", "--config", "configs/demo/labels.yaml", "--recipe.init_args.wlak", "null"], "did you mean 'walk'?"),
        ([*FIT, "--trainer.max_epohcs", "3"], "did you mean --trainer.max_epochs?"),
        ([*FIT, "--max_epochs", "3"], "did you mean --trainer.max_epochs?"),
        ([*FIT, "--chekpoint", "x.ckpt"], "did you mean --ckpt_path?"),
        ([*FIT, "--learning_rate", "1"], "did you mean --model.init_args.optimizer.lr?"),
        ([*FIT, "--nothing_like_it", "1"], "unknown option --nothing_like_it; `tag2mask fit --help`"),
        ([*FIT, "--data.init_args.rot", "x"], "data: no setting 'rot'; did you mean 'root'?"),
        ([*FIT, "--model.init_args.tiles.attention.kernl", "x"], "did you mean 'kernel'?"),
        ([*FIT, "--model.init_args.optimizer.lrr", "1"], "did you mean 'optimizer.lr'?"),
    ],
    ids=lambda value: None if isinstance(value, str) else value[-2],
)
def test_a_word_that_is_nearly_right_names_the_right_one(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert told in line(capsys)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("trainer: {max_epoch: 3}", "no setting 'trainer.max_epoch'; did you mean 'trainer.max_epochs'?"),
        ("model: {class_path: tag2mask.tasks.cam.CamTask}", "did you mean 'CAMTask'?"),
        (
            "model: {class_path: tag2mask.tasks.cam.CAMTask, init_args: {optimizer: {momntum: 1}}}",
            "did you mean 'optimizer.momentum'?",
        ),
    ],
)
def test_so_does_a_configuration(
    text: str, told: str, tmp_path: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    config = f"{tmp_path}/config.yaml"
    with open(config, "w") as file:
        file.write(text)
    assert main(["fit", "--config", config]) == 2
    assert told in line(capsys)


def test_an_option_may_be_given_with_an_equals_sign_or_be_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--masks=nowhere", "--mask=nowhere"):
        assert main(["evaluate", "nowhere", option]) == 2
        assert "nowhere is not a folder" in line(capsys)


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (["--trainer.max_epochs", "x"], ("trainer.max_epochs", "int", "x")),
        (["--model.init_args.optimizer.lr", "abc"], ("model.optimizer.lr", "float", "abc")),
        (["--model.init_args.tiles.attention.temperature", "hot"], ("attention.temperature", "float", "hot")),
        (["--data", "tag2mask.data.nosuch.Data"], ("tag2mask.data.nosuch",)),
    ],
    ids=lambda value: value[0],
)
def test_a_value_of_another_type_names_setting_type_and_value(words: list[str], facts: tuple[str, ...]) -> None:
    error = fault([*FIT, *words])
    assert isinstance(error, SettingError)
    assert [fact for fact in facts if fact not in str(error)] == []
    assert len(str(error)) < 250
