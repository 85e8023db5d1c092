# Two commands: `make demo` and `make test`. Both make .venv when it is missing; `make test-servers` makes .venv-vllm too.
# `make lm-eval-env` makes an environment for lm-evaluation-harness; tests with LM_EVAL_PYTHON set to its Python use it.
PYTHON ?= python3
VENV := .venv
VLLM_VENV := .venv-vllm
BIN := $(VENV)/bin
# No hub and no telemetry: everything these targets need is in the repository.
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test test-sandbox test-devices test-servers test-trackers vllm-env lm-eval-env lint clean

demo: $(VENV)/installed
	$(BIN)/accelerate launch --config_file accelerate_configs/cpu.yaml pipeline/iterate.py

test: $(VENV)/installed-dev
	$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not servers and not devices and not sandbox"

# Whole runs of the three sandbox recipes: what their constitutions are known to do is seen, and raises its alarms.
test-sandbox: $(VENV)/installed-dev
	$(BIN)/pytest -q -m sandbox tests/end_to_end

# Several processes and nodes, DeepSpeed, 4-bit bases: each launches the real command.
test-devices: $(VENV)/installed-dev
	$(BIN)/pytest -q -m devices tests/end_to_end

# Real servers: vLLM's CPU build in an environment of its own, and `transformers serve` in .venv.
test-servers: $(VENV)/installed-dev $(VLLM_VENV)/installed
	VLLM_PYTHON=$(VLLM_VENV)/bin/python $(BIN)/pytest -q -m servers tests/servers

# W&B, offline, and trackio, which `make test` leaves out: TRL would load them in every process.
test-trackers: $(VENV)/installed-dev .trackers/installed
	PYTHONPATH=.trackers $(BIN)/pytest -q tests/report/test_trackers.py tests/inputs/test_named_trackers.py

vllm-env: $(VLLM_VENV)/installed

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,browser-tests,quantization]"
	# Against the torch that is there, and without compiling anything.
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation deepspeed
	touch $@

lm-eval-env: .venv-lm-eval/installed

.venv-lm-eval/installed: constraints.txt
	$(PYTHON) -m venv .venv-lm-eval
	.venv-lm-eval/bin/python -m pip install --quiet --constraint constraints.txt "torch==2.13.0" "lm-eval[hf]==0.4.13"
	touch $@

.trackers/installed: $(VENV)/installed-dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --target .trackers wandb==0.31.0 trackio==0.43.0
	touch $@

$(VLLM_VENV)/installed: tests/servers/vllm-requirements.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --no-deps --requirement $<
	touch $@

clean:
	rm -rf $(VENV) $(VLLM_VENV) .venv-lm-eval .trackers
