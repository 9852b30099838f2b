# Verbs for a person. ARGS adds options to fit and predict, SEED_ARGS to the seeds of the edge network, LABEL_ARGS to
# labels; DATA names another data folder:
#   make train-voc ARGS="--trainer.max_epochs 1" DATA=/data/VOCdevkit/VOC2012
# ROUNDS=2 trains the segmentation network twice, the second time on labels made of what the first one sees; ROUND=2 is
# the second round of labels-voc or seg-voc alone.
# DATA of COCO holds train2014, val2014 and annotations; PREPARED, the same folder unless given, what is made of those.
# Folders are those that the configurations name. A variable of yours wins over them; make alone fills in only what they
# leave open.
.DEFAULT_GOAL := help
STAGES := train cams affinity labels seg eval report
.PHONY: help setup doctor try demo demo-cam demo-seg test test-fast lint bench ablation gpu-evidence clean voc coco $(STAGES:=-voc) $(STAGES:=-coco)

PYTHON ?= python3
JOBS ?= 2
# processes of the tests
VENV ?= .venv
BIN := $(VENV)/bin
TAG2MASK := $(BIN)/tag2mask

SET = $(lastword $(subst -, ,$@))
# voc or coco, from the end of the verb
CONFIG ?= configs/$(SET)/cam_resnet50.yaml
AFFINITY ?= configs/$(SET)/affinity_resnet50.yaml
SEGMENTATION ?= configs/$(SET)/segmentation_resnet50.yaml
RUN ?= $(call folder,$(CONFIG))
AFFINITY_RUN ?= $(call folder,$(AFFINITY))
SEGMENTATION_RUN ?= $(call folder,$(SEGMENTATION))
ROUND ?= 1
ROUNDS ?= 1
round = $(if $(filter-out 1,$(1)),_round$(1))
# Added to the folders of a later round
NETWORK = $(SEGMENTATION_RUN)$(call round,$(shell expr $(ROUND) - 1))/checkpoints/last.ckpt
# that labels of a later round are made with
DATA ?= $(or $(call setting,root,$(CONFIG)),$(DATA_$(SET)))
PREPARED ?= $(or $(call setting,prepared,$(CONFIG)),$(DATA))

written = $(shell awk '{ sub(/(^| )\043.*/, "") } match($$0, /(^|[ {,])$(1): */) \
  { $$0 = substr($$0, RSTART + RLENGTH); gsub(/["\047]|[,}].*/, ""); print $$1; exit }' $(2) 2>/dev/null)
# What a configuration says of a key, the first time that it stands there: block or flow, without quotes and comments
setting = $(filter-out null ~,$(call written,$(1),$(2)))
folder = $(or $(call setting,default_root_dir,$(1)),runs/$(SET)/$(basename $(notdir $(1))))
given = $(filter command environment,$(foreach each,$(1),$(origin $(each))))
# Whether one of these variables comes from the person
run = $(if $(call given,$(1)),--trainer.default_root_dir $($(1)))
SEGMENTATION_TO = $(if $(call round,$(ROUND)),--trainer.default_root_dir $(SEGMENTATION_RUN)$(call round,$(ROUND)),$(call run,SEGMENTATION_RUN))
labels = $(if $(call setting,labels,$(1)),$(call moved,$(1)),--data.init_args.labels $(2))
# The labels to train on: those of a configuration, in DATA where they lie in its root; else those that make has made
moved = $(if $(and $(call given,DATA PREPARED),$(call setting,root,$(1))),$(addprefix --data.init_args.labels ,\
  $(patsubst $(call setting,root,$(1))/%,$(PREPARED)/%,$(filter $(call setting,root,$(1))/%,$(call setting,labels,$(1))))))

TUNED = $(if $(findstring _tuned,$(CONFIG)),_tuned)
# thresholds belong to the CAMs
SEEDS_FILE = configs/$(SET)/seeds$(TUNED).yaml
LABELS_FILE = configs/$(SET)/labels$(or $(if $(call round,$(ROUND)),_round2),$(TUNED)).yaml
place = $(or $(if $(call given,RUN),,$(call setting,$(1),$(2))),$(RUN)/$(3))
SEEDS = $(call place,out,$(SEEDS_FILE),seeds)
LABELS = $(call place,out,$(LABELS_FILE),labels)$(call round,$(ROUND))
PHOTOS = $(if $(call given,DATA),--photos $(PHOTOS_$(SET)))
EDGES = $(or $(if $(call given,AFFINITY_RUN),,$(call setting,checkpoint,$(LABELS_FILE))),$(AFFINITY_RUN)/checkpoints/last.ckpt)
WALK = $(if $(shell grep -s 'class_path:.*EdgeWalk' $(LABELS_FILE)),--recipe.init_args.walk.checkpoint $(EDGES))

DATA_voc := data/VOCdevkit/VOC2012
PREPARE_voc = $(TAG2MASK) prepare voc --tags --devkit $(DATA)
ROOT_voc = $(if $(call given,DATA),--data.init_args.root $(DATA))
PHOTOS_voc = $(DATA)/JPEGImages
TRAIN_MASKS_voc = $(DATA)/SegmentationClass --list $(DATA)/ImageSets/Segmentation/train.txt
VAL_MASKS_voc = $(DATA)/SegmentationClass --list $(DATA)/ImageSets/Segmentation/val.txt

DATA_coco := data/coco
PREPARE_coco = $(TAG2MASK) prepare coco --root $(DATA) --out $(PREPARED)
ROOT_coco = $(ROOT_voc) $(if $(call given,PREPARED),--data.init_args.prepared $(PREPARED))
PHOTOS_coco = $(DATA)/train2014
TRAIN_MASKS_coco = $(PREPARED)/masks/train2014
VAL_MASKS_coco = $(PREPARED)/masks/val2014 --list $(PREPARED)/val.txt

SAMPLE := data/sample
PRESET ?= sample

help:        ## Show this list
	@awk -F ':.*## ' '/^[a-z -]+:.*## / {printf "  %-26s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.done: requirements.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 14) or sys.exit(f"Python {v[0]}.{v[1]} found; tag2mask needs 3.10 to 3.14: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.txt -e .
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -e ".[crf]" 2>/dev/null; $(BIN)/python -c "import pydensecrf" 2>/dev/null || \
	  echo "pydensecrf2 could not be installed (no C++ compiler, no network, or Python above 3.12): the dense CRF is our own, with the same labels"
	@touch $@

setup: $(VENV)/.done ## Install everything into .venv (done once; again when requirements change)

doctor: setup ## Say what is installed, what is missing and what that disables, which data sets are here
	$(TAG2MASK) doctor

try: setup   ## Masks of the photographs in examples/, by a network that comes with tag2mask; in seconds
	$(TAG2MASK) segment examples/images --out runs/try

demo: setup  ## The whole pipeline on drawn scenes, on a CPU: CAMs, pseudo-labels, segmentation, report; in minutes
	$(TAG2MASK) prepare sample --root $(SAMPLE)
	$(MAKE) --no-print-directory demo-cam CONFIG=configs/demo/cam_plain.yaml RUN=runs/demo/plain
	$(MAKE) --no-print-directory demo-cam CONFIG=configs/demo/cam_tuned.yaml RUN=runs/demo/full
	$(TAG2MASK) labels --config configs/demo/seeds.yaml
	$(TAG2MASK) fit --config configs/demo/affinity.yaml
	$(TAG2MASK) labels --config configs/demo/labels.yaml
	$(TAG2MASK) evaluate runs/demo/full/cams runs/demo/full/labels --masks $(SAMPLE)/masks --list $(SAMPLE)/val.txt
	$(MAKE) --no-print-directory demo-seg CONFIG=configs/demo/segmentation.yaml RUN=runs/demo/segmentation
	$(MAKE) --no-print-directory demo-seg CONFIG=configs/demo/segmentation_full.yaml RUN=runs/demo/segmentation_full
	$(TAG2MASK) report runs/demo

demo-cam:
	$(TAG2MASK) fit --config $(CONFIG) $(ARGS)
	$(TAG2MASK) predict --config $(CONFIG) $(ARGS)
	$(TAG2MASK) evaluate $(RUN)/cams --masks $(SAMPLE)/masks --list $(SAMPLE)/val.txt

demo-seg:
	$(TAG2MASK) fit --config $(CONFIG) $(ARGS)
	$(TAG2MASK) predict --config $(CONFIG) $(ARGS)
	$(TAG2MASK) evaluate $(RUN)/masks/val --masks $(SAMPLE)/masks --list $(SAMPLE)/val.txt

voc coco: setup ## Everything on VOC 2012 or COCO 2014, from nothing to the report; interrupted, it goes on (ROUNDS=2)
	for stage in train cams affinity; do $(MAKE) --no-print-directory $$stage-$@ || exit; done
	for round in $$(seq $(ROUNDS)); do for stage in labels seg; do \
	  $(MAKE) --no-print-directory $$stage-$@ ROUND=$$round || exit; done || exit; done
	for stage in eval report; do $(MAKE) --no-print-directory $$stage-$@ || exit; done

train-voc train-coco: setup ## Train the CAM network; the data set is fetched if it is missing (CONFIG=configs/voc/...)
	$(PREPARE_$(SET))
	$(TAG2MASK) fit --config $(CONFIG) $(ROOT_$(SET)) $(call run,RUN) $(ARGS)

cams-voc cams-coco: setup ## Write the CAMs of the training photographs with the trained network
	$(TAG2MASK) predict --config $(CONFIG) $(ROOT_$(SET)) $(call run,RUN) $(ARGS)

affinity-voc affinity-coco: setup ## Train the edge network on confident labels made from those CAMs (AFFINITY=configs/...)
	$(TAG2MASK) labels --config $(SEEDS_FILE) --cams $(call place,cams,$(SEEDS_FILE),cams) --out $(SEEDS) \
	  $(PHOTOS) $(SEED_ARGS)
	$(TAG2MASK) fit --config $(AFFINITY) $(ROOT_$(SET)) $(call run,AFFINITY_RUN) $(call labels,$(AFFINITY),$(SEEDS)) $(ARGS)

labels-voc labels-coco: setup ## Make pseudo-labels from the CAMs: random walk along those edges, dense CRF (LABEL_ARGS=...)
	$(TAG2MASK) labels --config $(LABELS_FILE) --cams $(call place,cams,$(LABELS_FILE),cams) --out $(LABELS) \
	  $(PHOTOS) $(WALK) $(if $(call round,$(ROUND)),--network $(NETWORK)) $(LABEL_ARGS)

seg-voc seg-coco: setup ## Train DeepLabV3+ on the pseudo-labels, write its masks of val (SEGMENTATION=configs/...)
	$(TAG2MASK) fit --config $(SEGMENTATION) $(ROOT_$(SET)) $(SEGMENTATION_TO) \
	  $(if $(call round,$(ROUND)),--data.init_args.labels $(LABELS),$(call labels,$(SEGMENTATION),$(LABELS))) $(ARGS)
	$(TAG2MASK) predict --config $(SEGMENTATION) $(ROOT_$(SET)) $(SEGMENTATION_TO) $(ARGS)

eval-voc eval-coco: setup ## Score CAMs and pseudo-labels against masks of train, the segmentation network against val's
	$(TAG2MASK) evaluate $(RUN)/cams $(wildcard $(LABELS) $(LABELS)_round*) --masks $(TRAIN_MASKS_$(SET))
	if test -d $(SEGMENTATION_RUN)/masks/val; then \
	  $(TAG2MASK) evaluate $(SEGMENTATION_RUN)/masks/val $(wildcard $(SEGMENTATION_RUN)_round*/masks/val) \
	  --masks $(VAL_MASKS_$(SET)); fi

report-voc report-coco: setup ## Put all of it on one page: runs/voc/report.html, runs/coco/report.html
	$(TAG2MASK) report runs/$(SET)

test: setup  ## Run all tests (TAG2MASK_DATA=folder of real photographs adds those that want some)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) $(ARGS)

test-fast: setup ## Run the tests but the slow ones: whole trainings, several processes, networks of full size
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m "not slow" $(ARGS)

lint: setup  ## Run ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: DATA_bench := $(DATA_voc)
bench: setup ## Run the benchmarks; results as JSON in benchmarks/out (DATA=VOC2012 adds the CRF on photographs)
	$(BIN)/python -m benchmarks.evaluate_cams
	$(BIN)/python -m benchmarks.random_walk
	if test -d $(DATA)/JPEGImages; then $(BIN)/python -m benchmarks.dense_crf $(DATA); fi

ablation: DATA_ablation := $(DATA_voc)
ablation: setup ## Ablation of RSA and CFC (PRESET=sample, voc-head, voc-fast, voc-full; ARGS="--rows rsa --seeds 0 1 2")
	if test $(PRESET) = sample; then $(TAG2MASK) prepare sample --root $(SAMPLE); fi
	$(BIN)/python -m benchmarks.ablation $(PRESET) --data $(if $(filter sample,$(PRESET)),$(SAMPLE),$(DATA)) $(ARGS)

faults: setup ## Spoil files, kill commands, fill disks: does all end well? (ARGS="--share 0.05 --seed 1")
	$(BIN)/python -m benchmarks.faults $(ARGS)

gpu-evidence: DATA_evidence := $(DATA_voc)
gpu-evidence: setup ## What a GPU must show: speed, memory, resumed training, voc-full with seeds; call it again to go on (DATA=...)
	$(BIN)/python -m benchmarks.gpu --data $(DATA) $(ARGS)

clean:       ## Delete what runs have made: runs/, data/sample, caches; not .venv, not downloads
	rm -rf runs $(SAMPLE) .pytest_cache .mypy_cache .ruff_cache
