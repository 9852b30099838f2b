"""Fetch, draw or check a data set. What stands already is kept.

The same command goes on where it was interrupted.

voc     reads VOC 2012 and SBD, or downloads them; writes SegmentationClassAug beside them
coco    reads COCO 2014, or downloads it; writes masks, tags and lists
sample  writes drawn scenes with tags and masks: a data set for trying things, in seconds
folder  reads photographs of your own (images/, tags.csv) and names what is wrong with them

Examples:
  tag2mask prepare sample
  tag2mask prepare folder photographs
  tag2mask prepare voc --root data

`tag2mask prepare voc --help` lists the options of that data set.
"""

from pathlib import Path

from tag2mask.cli.options import Parser
from tag2mask.data.coco import PUBLISHED
from tag2mask.data.prepare.coco import prepare_coco
from tag2mask.data.prepare.folder import prepare_folder
from tag2mask.data.prepare.voc import prepare_voc
from tag2mask.data.sample import write_sample
from tag2mask.errors import SettingError
from tag2mask.io import locks
from tag2mask.utils.processes import cores


def prepare(words: list[str]) -> None:
    """Run the verb."""
    parser = Parser("tag2mask prepare", __doc__)
    kinds = parser.add_subparsers(dest="data", required=True, metavar="voc|coco|sample|folder")
    voc = kinds.add_parser("voc", help="download VOC 2012 and SBD, derive SegmentationClassAug, check the counts")
    voc.add_argument("--root", type=Path, default=Path("data"), help="of VOCdevkit and archives, or VOC2012 (data)")
    voc.add_argument("--devkit", type=Path, help="in place of --root: the folder of JPEGImages, by any name")
    voc.add_argument("--sbd", type=Path, help="SBD's folder with cls/*.mat, where it is on disk already")
    voc.add_argument("--tags", action="store_true", help="masks of trainaug may be missing: tags need none")
    voc.add_argument("--no-download", action="store_true", help="only unpack, derive and check")
    coco = kinds.add_parser("coco", help="download COCO 2014, paint its masks, write tags and lists, check the counts")
    coco.add_argument("--root", type=Path, default=Path("data/coco"), help="folder of train2014 and so on (data/coco)")
    coco.add_argument("--out", type=Path, help="folder that receives masks, tags and lists (ROOT)")
    lists = "names in train.txt and val.txt: of all images, or of those with an object that is no crowd (all)"
    coco.add_argument("--lists", choices=tuple(PUBLISHED), default="all", help=lists)
    coco.add_argument("--workers", type=int, default=cores(), help="processes (one a core)")
    coco.add_argument("--verify", action="store_true", help="read every mask and compare it with what was painted")
    coco.add_argument("--overwrite", action="store_true", help="replace masks of other annotations, and other lists")
    coco.add_argument("--no-download", action="store_true", help="only unpack, paint and check")
    sample = kinds.add_parser("sample", help="draw the sample set")
    sample.add_argument("--root", type=Path, default=Path("data/sample"), help="folder to write (data/sample)")
    sample.add_argument("--count", type=int, default=160, help="scenes in all (160)")
    sample.add_argument("--validation", type=int, default=40, help="how many of them for validation (40)")
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument("--overwrite", action="store_true")
    folder = kinds.add_parser("folder", help="check a folder of one's own photographs")
    folder.add_argument("root", metavar="FOLDER", type=Path, help="with images/ and tags.csv")
    args = parser.parse_args(words)
    if args.data != "folder":
        locks.take((args.data == "voc" and args.devkit) or (args.data == "coco" and args.out) or args.root)
    if args.data == "voc":
        print(prepare_voc(args.root, args.sbd, not args.no_download, args.devkit, not args.tags))
    elif args.data == "coco":
        if args.workers < 1:
            raise SettingError(f"--workers {args.workers}; expected 1 or more processes")
        download = not args.no_download
        print(prepare_coco(args.root, args.out, args.lists, args.workers, args.verify, args.overwrite, download))
    elif args.data == "folder":
        print(prepare_folder(args.root))
    else:
        new = write_sample(args.root, args.count, args.validation, args.seed, args.overwrite)
        print(f"{args.count} scenes in {args.root}" if new else f"{args.root} holds these {args.count} scenes already")
