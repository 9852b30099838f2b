# Verbs for a person. ARGS adds options to a command, DATA names another data folder:
#   make train-voc ARGS="--trainer.max_epochs 1" DATA=/data/VOCdevkit/VOC2012
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-run test lint bench notebooks clean train-voc cams-voc affinity-voc labels-voc eval-voc

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TAG2MASK := $(BIN)/tag2mask
CONFIG ?= configs/voc/cam_resnet50.yaml
RUN ?= runs/voc/$(basename $(notdir $(CONFIG)))
AFFINITY ?= configs/voc/affinity_resnet50.yaml
AFFINITY_RUN ?= runs/voc/$(basename $(notdir $(AFFINITY)))
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

demo: setup  ## Draw the sample set; train plain CAM and the full method; make pseudo-labels; score all: 5 minutes on a CPU
	$(TAG2MASK) prepare sample --root $(SAMPLE)
	$(MAKE) --no-print-directory demo-run CONFIG=configs/demo/cam_plain.yaml RUN=runs/demo/plain
	$(MAKE) --no-print-directory demo-run CONFIG=configs/demo/cam.yaml RUN=runs/demo/full
	$(TAG2MASK) labels --config configs/demo/seeds.yaml
	$(TAG2MASK) fit --config configs/demo/affinity.yaml
	$(TAG2MASK) labels --config configs/demo/labels.yaml
	$(TAG2MASK) evaluate runs/demo/full/cams runs/demo/full/labels --masks $(SAMPLE)/masks --list $(SAMPLE)/val.txt
	$(TAG2MASK) report runs/demo

demo-run:
	$(TAG2MASK) fit --config $(CONFIG) $(ARGS)
	$(TAG2MASK) predict --config $(CONFIG) $(ARGS)
	$(TAG2MASK) evaluate $(RUN)/cams --masks $(SAMPLE)/masks --list $(SAMPLE)/val.txt

train-voc: setup ## Train the CAM network on VOC 2012, fetched if it is missing (CONFIG=configs/voc/...)
	test -d $(DATA)/JPEGImages || $(TAG2MASK) prepare voc --root data
	$(TAG2MASK) fit --config $(CONFIG) --data.init_args.root $(DATA) $(ARGS)

cams-voc: setup ## Write the CAMs of VOC's trainaug with the trained network
	$(TAG2MASK) predict --config $(CONFIG) --data.init_args.root $(DATA) $(ARGS)

affinity-voc: setup ## Train the edge network on confident labels made from those CAMs (AFFINITY=configs/voc/affinity_...)
	$(TAG2MASK) labels --config configs/voc/seeds.yaml --cams $(RUN)/cams --out $(RUN)/seeds --photos $(DATA)/JPEGImages
	$(TAG2MASK) fit --config $(AFFINITY) --data.init_args.root $(DATA) --data.init_args.labels $(RUN)/seeds $(ARGS)

labels-voc: setup ## Make pseudo-labels from the CAMs: random walk along those edges, dense CRF
	$(TAG2MASK) labels --config configs/voc/labels.yaml --cams $(RUN)/cams --out $(RUN)/labels \
	  --photos $(DATA)/JPEGImages --recipe.init_args.walk.checkpoint $(AFFINITY_RUN)/checkpoints/last.ckpt $(ARGS)

eval-voc: setup ## Score CAMs and pseudo-labels against the masks of VOC's train
	$(TAG2MASK) evaluate $(RUN)/cams $(wildcard $(RUN)/labels) --masks $(DATA)/SegmentationClass \
	  --list $(DATA)/ImageSets/Segmentation/train.txt

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
