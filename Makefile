# Verbs for a person. ARGS adds options to fit and predict, LABEL_ARGS to labels; DATA names another data folder:
#   make train-voc ARGS="--trainer.max_epochs 1" DATA=/data/VOCdevkit/VOC2012
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-cam demo-seg test lint bench clean voc train-voc cams-voc affinity-voc labels-voc seg-voc eval-voc \
  report-voc

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TAG2MASK := $(BIN)/tag2mask
CONFIG ?= configs/voc/cam_resnet50.yaml
RUN ?= runs/voc/$(basename $(notdir $(CONFIG)))
AFFINITY ?= configs/voc/affinity_resnet50.yaml
AFFINITY_RUN ?= runs/voc/$(basename $(notdir $(AFFINITY)))
SEGMENTATION ?= configs/voc/segmentation_resnet50.yaml
SEGMENTATION_RUN ?= runs/voc/$(basename $(notdir $(SEGMENTATION)))
DATA ?= data/VOCdevkit/VOC2012
SAMPLE := data/sample

help:        ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.done: requirements.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 12) or sys.exit(f"Python {v[0]}.{v[1]} found; tag2mask needs 3.10 to 3.12: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.txt -e .
	@touch $@

setup: $(VENV)/.done ## Install everything into .venv (done once; again when requirements change)

demo: setup  ## The whole pipeline on drawn scenes, on a CPU: CAMs, pseudo-labels, segmentation, report; 6 minutes
	$(TAG2MASK) prepare sample --root $(SAMPLE)
	$(MAKE) --no-print-directory demo-cam CONFIG=configs/demo/cam_plain.yaml RUN=runs/demo/plain
	$(MAKE) --no-print-directory demo-cam CONFIG=configs/demo/cam.yaml RUN=runs/demo/full
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

voc: setup   ## Everything on VOC 2012, from nothing to the report; interrupted, it goes on where it stopped
	$(MAKE) --no-print-directory train-voc
	$(MAKE) --no-print-directory cams-voc
	$(MAKE) --no-print-directory affinity-voc
	$(MAKE) --no-print-directory labels-voc
	$(MAKE) --no-print-directory seg-voc
	$(MAKE) --no-print-directory eval-voc
	$(MAKE) --no-print-directory report-voc

train-voc: setup ## Train the CAM network on VOC 2012, fetched if it is missing (CONFIG=configs/voc/...)
	test -d $(DATA)/JPEGImages || $(TAG2MASK) prepare voc --root data
	$(TAG2MASK) fit --config $(CONFIG) --data.init_args.root $(DATA) $(ARGS)

cams-voc: setup ## Write the CAMs of VOC's trainaug with the trained network
	$(TAG2MASK) predict --config $(CONFIG) --data.init_args.root $(DATA) $(ARGS)

affinity-voc: setup ## Train the edge network on confident labels made from those CAMs (AFFINITY=configs/voc/affinity_...)
	$(TAG2MASK) labels --config configs/voc/seeds.yaml --cams $(RUN)/cams --out $(RUN)/seeds --photos $(DATA)/JPEGImages
	$(TAG2MASK) fit --config $(AFFINITY) --data.init_args.root $(DATA) --data.init_args.labels $(RUN)/seeds $(ARGS)

labels-voc: setup ## Make pseudo-labels from the CAMs: random walk along those edges, dense CRF (LABEL_ARGS=...)
	$(TAG2MASK) labels --config configs/voc/labels.yaml --cams $(RUN)/cams --out $(RUN)/labels \
	  --photos $(DATA)/JPEGImages --recipe.init_args.walk.checkpoint $(AFFINITY_RUN)/checkpoints/last.ckpt $(LABEL_ARGS)

seg-voc: setup ## Train DeepLabV3+ on the pseudo-labels, write its masks of val (SEGMENTATION=configs/voc/segmentation_...)
	$(TAG2MASK) fit --config $(SEGMENTATION) --data.init_args.root $(DATA) --data.init_args.labels $(RUN)/labels $(ARGS)
	$(TAG2MASK) predict --config $(SEGMENTATION) --data.init_args.root $(DATA) $(ARGS)

eval-voc: setup ## Score CAMs and pseudo-labels against the masks of VOC's train, the segmentation network against val's
	$(TAG2MASK) evaluate $(RUN)/cams $(wildcard $(RUN)/labels) --masks $(DATA)/SegmentationClass \
	  --list $(DATA)/ImageSets/Segmentation/train.txt
	if test -d $(SEGMENTATION_RUN)/masks/val; then $(TAG2MASK) evaluate $(SEGMENTATION_RUN)/masks/val \
	  --masks $(DATA)/SegmentationClass --list $(DATA)/ImageSets/Segmentation/val.txt; fi

report-voc: setup ## Put all of it on one page: runs/voc/report.html
	$(TAG2MASK) report runs/voc

test: setup  ## Run the tests (TAG2MASK_DATA=folder of real photographs adds those that want some)
	$(BIN)/python -m pytest $(ARGS)

lint: setup  ## Run ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup ## Run the benchmarks; results as JSON in benchmarks/out (DATA=VOC2012 adds the CRF on photographs)
	$(BIN)/python benchmarks/evaluate_cams.py
	$(BIN)/python benchmarks/random_walk.py
	if test -d $(DATA)/JPEGImages; then $(BIN)/python benchmarks/dense_crf.py $(DATA); fi

clean:       ## Delete what runs have made: runs/, data/sample, caches; not .venv, not downloads
	rm -rf runs $(SAMPLE) .pytest_cache .mypy_cache .ruff_cache
