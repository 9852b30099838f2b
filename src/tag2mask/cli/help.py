"""Help that fits a screen, shown without loading a verb: of all verbs, and of those that load torch or Lightning."""

from pathlib import Path
from typing import Any

from tag2mask import __version__

MAIN = f"""tag2mask {__version__}: segmentation masks from image tags

  tag2mask run FOLDER                  all of it for photographs of your own: masks, network, report
  tag2mask prepare DATA                voc, coco, sample or folder: fetch, draw or check a data set
  tag2mask configs [NAME]              list the ready configurations, or copy one to edit
  tag2mask fit --config NAME           train a network: checkpoints, logs, pictures in a run folder
  tag2mask predict --config NAME       write CAM files, or masks, with the trained network
  tag2mask validate --config NAME      score it on the validation split (test does the same)
  tag2mask labels --config NAME        CAM files to pseudo-labels: random walk, dense CRF
  tag2mask segment PHOTO...            masks and overlays with a trained segmentation network
  tag2mask export --checkpoint CKPT    the network as one ONNX file, checked with onnxruntime
  tag2mask archive write|check         the archive of masks that VOC's evaluation server takes
  tag2mask evaluate FOLDER --masks M   score a folder of CAM files or label PNGs
  tag2mask report FOLDER               scores, curves and pictures of a folder's runs, on one page
  tag2mask doctor                      what is installed, what is missing, which data sets are here

From tags to masks, each stage reading what the one before wrote:
  prepare -> fit, predict (CAMs) -> labels (seeds) -> fit (edges) -> labels -> fit -> segment

The smallest examples, seconds and minutes on a CPU:
  tag2mask segment photo.jpg
  tag2mask run photographs

`tag2mask VERB --help` says what a verb reads and writes; `tag2mask configs` lists a ready
configuration for every run."""

NETWORK = """usage: tag2mask {verb} --config NAME|FILE [--SETTING VALUE ...]

fit       reads the data set: tags, or label PNGs (--data.init_args.labels); pretrained weights
          writes into the run folder: checkpoints/last.ckpt, logs, pictures, config.yaml, run.json
          again: goes on where it was interrupted, leaves a finished run as it is; with other
          settings or data it stops and names the first difference
predict   reads checkpoints/last.ckpt of the run folder, and the photographs of one split
          writes into it cams/NAME.npz (cam, classes, size) or masks/SPLIT/NAME.png, and run.json
          again: does what is left and what has other tags or another photograph now; with another
          network or other settings it stops
validate  reads last.ckpt, photographs and masks of a split, writes nothing, prints loss and scores
test      does the same; scores to publish are those of `tag2mask evaluate`

  --config NAME|FILE                    of `tag2mask configs`, such as folder/cam_plain, or a file
                                        of your own; several are merged
  --ckpt_path FILE                      another checkpoint; fit starts from it, `last` trains on
  --overwrite                           fit: discard the run that is there, with CAM files, labels,
                                        masks; predict: replace files of another network or settings
  --trust MODULE                        let the configuration name what is in a module of your own

Every line of the configuration is an option too, with dots for its indents; the last one wins:
  --trainer.max_epochs 20               epochs
  --trainer.devices 4                   GPUs, with --trainer.strategy ddp; --trainer.accelerator cpu
  --trainer.default_root_dir FOLDER     the run folder
  --trainer.logger false                no W&B; a CSV log is always kept
  --data.init_args.root FOLDER          the data set; .batch_size, .num_workers, .subset, .labels
  --data.init_args.predict_split NAME   train, val, test, all; .val_split for validate and test
  --model.init_args.optimizer.lr 0.01   learning rate
  --model.init_args.backbone.name NAME  a timm network that honours output_stride, or a plain ViT
                                        (CAMs only, .output_stride its patch); .weights FILE

Example:
  tag2mask {verb} --config folder/cam_plain --data.init_args.root photographs

All options: tag2mask {verb} --help-all. Of a class: --model.help tag2mask.tasks.cam.CAMTask,
--data.help, --trainer.callbacks.help. The settings as they would be used: --print_config."""

LABEL_OPTIONS: dict[str, dict[str, Any]] = {
    "--config": {"action": "config", "help": "such as folder/seeds or folder/labels, or a file"},
    "--recipe": {"required": True, "help": "how a label is made of a CAM"},
    "--cams": {"type": Path, "required": True, "help": "folder of CAM files"},
    "--photos": {"type": Path | None, "help": "their folder, or the one that holds images/ and tags.csv"},
    "--out": {"type": Path, "required": True, "help": "folder of the label PNGs"},
    "--network": {"type": Path | None, "help": "second round: a segmentation checkpoint, for the tags of the CAMs"},
    "--probe": {"help": "a linear probe of features learns from the labels, and makes them again; null: none"},
    "--list": {"type": Path | None, "help": "names to do, one a line; without it, all CAM files"},
    "--soft": {"type": bool, "default": False, "help": "true: also write walked CAMs and edges: OUT/soft, OUT/edges"},
    "--steps": {"type": bool, "default": False, "help": "true: also write the label after each step into OUT/steps"},
    "--workers": {"type": int | None, "help": "processes (one a core)"},
    "--device": {"default": "auto", "help": "cpu, cuda, cuda:1; auto: a GPU where there is one (auto)"},
    "--shard": {"type": str | None, "help": "this part only, such as 1/4; torchrun and SLURM say it too"},
    "--overwrite": {"action": "store_true", "help": "replace labels made with another recipe"},
}
"""Options of ``labels``, for its parser and for this help."""
LABELS = f"""usage: tag2mask labels --config NAME|FILE [--OPTION VALUE ...]

Turn CAM files into label PNGs: threshold, random walk along boundaries, dense CRF.

reads   CAM files of `tag2mask predict`, the photographs, for the walk the checkpoint of a network
writes  NAME.png (palette; 255 where it is undecided) and run.json into the folder of --out; with
        a probe also the labels of earlier rounds, into OUT/rounds
again   the same command does what is left, and again the labels whose CAM file has changed (all,
        where that moves a chosen threshold, or a probe); with another recipe it stops. Damaged
        CAM files are skipped and named, and the status is 1

{chr(10).join(f"  {option:<12} {keywords['help']}" for option, keywords in LABEL_OPTIONS.items())}

--recipe.init_args.seed.threshold 0.3 is a setting of a step, --recipe.init_args.walk null leaves a
step out, so does .crf null. All settings of a recipe: --recipe.help PseudoLabels. The settings as
they would be used: --print_config. --trust MODULE lets FILE name a recipe in a module of your own.

Example:
  tag2mask labels --config folder/labels --photos photographs"""

LIGHTNING = ("fit", "validate", "test", "predict")
VERBS = {verb: NETWORK.format(verb=verb) for verb in LIGHTNING} | {"labels": LABELS}
