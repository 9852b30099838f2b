"""List the configurations that come with tag2mask, or copy one to edit.

Without NAME, all are listed, each with the first line of its file. `--config NAME` takes such a
name in any folder. Where there is a file of that path, --config takes the file.

reads   nothing but the installed package
writes  a copy of the configuration NAME, into the working folder or to --out; it replaces nothing

Examples:
  tag2mask configs
  tag2mask configs voc/cam_resnet50
  tag2mask configs folder/labels --out mine.yaml
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from tag2mask.cli.options import WIDTH, Parser, did_you_mean
from tag2mask.errors import MissingError, OccupiedError
from tag2mask.io.files import atomic

FOLDER = Path(__file__).parents[1] / "configs"  # in a checkout a link to configs/ at its top
OPTIONS = ("--config", "-c")


def configs(words: list[str]) -> None:
    """Run the verb."""
    parser = Parser("tag2mask configs", __doc__)
    parser.add_argument("name", metavar="NAME", nargs="?", help="of a configuration to copy, such as voc/cam_resnet50")
    parser.add_argument("--out", type=Path, help="file of the copy (NAME.yaml in the working folder)")
    args = parser.parse_args(words)
    if args.name is None:
        print("\n".join(map(summary, names())))
        return
    source = shipped(args.name)
    out = args.out or Path(source.name)
    if out.exists():
        raise OccupiedError(f"{out} stands there already; name another file with --out")
    with atomic(out) as file:
        file.write(source.read_bytes())
    print(f"{out}: a copy of {args.name}; `--config {out}` takes it")


def names() -> list[str]:
    """Names of the configurations that come with tag2mask, such as ``voc/cam_resnet50``."""
    return sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.glob("*/*.yaml"))


def summary(name: str) -> str:
    """The name and what the first line of the file says, cut to the width of a help text."""
    line = f"{name:<30} {shipped(name).read_text(encoding='utf-8').splitlines()[0].removeprefix('# ')}"
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."


def shipped(name: str) -> Path:
    """Return the configuration of that name; ``configs/`` before it and ``.yaml`` behind it may be left out."""
    stem = name.removeprefix("configs/").removesuffix(".yaml")
    if stem not in (known := names()):
        near = did_you_mean(stem, known)
        raise MissingError(f"no configuration {name}{near}; expected a file, or a name that `tag2mask configs` lists")
    return FOLDER / f"{stem}.yaml"


def with_paths(words: Sequence[str]) -> list[str]:
    """Return the words of a command with a path behind each ``--config``: a file of that path, else `shipped`."""

    def path(value: str) -> str:
        return value if Path(value).is_file() else str(shipped(value))

    found = []
    for before, word in pairwise(["", *words]):
        option, equals, value = word.partition("=")
        if before in OPTIONS:
            found.append(path(word))
        else:
            found.append(f"{option}={path(value)}" if option in OPTIONS and equals else word)
    return found
