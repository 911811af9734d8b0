# Everything here needs Go and make only. 'make demo' brings up a cluster;
# 'make test' is what CI runs.

SHELL       := /bin/bash
.SHELLFLAGS := -o pipefail -ec
GO          ?= go
BIN         := bin/phxsql
DEMO_FLAGS  ?=
SIM_TIME    ?= 60s
FUZZ_TIME   ?= 10s
BENCH_FLAGS ?=
SOAK_FLAGS  ?= --faults 1000

UNIT = $(shell $(GO) list ./... | grep -v /test/e2e)
E2E  = $(shell $(GO) list ./test/e2e/... 2>/dev/null)
SUM  = $(GO) run ./internal/tools/testsum

.DEFAULT_GOAL := build
.PHONY: build demo demo-clean test test-unit test-e2e race sim model bench bench-paxos fuzz lint vet clean

build: ## the one binary
	CGO_ENABLED=0 $(GO) build -o $(BIN) ./cmd/phxsql

demo: build ## a cluster of three on this machine, until Ctrl-C; the data stays
	./$(BIN) demo --dir .demo $(DEMO_FLAGS)

demo-clean: build ## remove that cluster with its data
	./$(BIN) demo clean --dir .demo

vet:
	$(GO) vet ./...

# The end-to-end tests run alone: they measure time on real processes.
test: vet ## everything, with a count at the end
	{ rc=0; \
	  $(GO) test -json -timeout 15m $(UNIT) || rc=1; \
	  $(if $(E2E),$(GO) test -json -timeout 45m -p 1 $(E2E) || rc=1;) \
	  exit $$rc; } | $(SUM) -show /test/e2e

test-unit: ## without the end-to-end tests
	$(GO) test -json -timeout 5m $(UNIT) | $(SUM)

test-e2e: ## real processes, real servers
	$(GO) test -json -timeout 45m -p 1 ./test/e2e/... | $(SUM) -show /test/e2e

.PHONY: life
life: ## long versions of the end-to-end tests of joins, copies, rebuilds and lag, with kills at every step; bad links
	$(GO) test -json -timeout 60m -count=1 ./test/e2e -run 'Life|Cop|Rebuilt|Removed|NewData|Witness|ShorterWay|Flow|Drilled|WaitedFor' -args -life | $(SUM) -show /test/e2e
	$(GO) test -json -timeout 5m -count=1 ./test/paxos -run BadLinks -args -links | $(SUM)

lint: bin/golangci-lint ## more than vet; the first run builds the linter, which takes minutes
	bin/golangci-lint run ./...

bin/golangci-lint: tools/go.mod tools/go.sum
	cd tools && $(GO) build -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

race: ## unit tests with the race detector
	$(GO) test -json -race -timeout 10m $(UNIT) | $(SUM)

sim: ## fresh seeds of the simulator for SIM_TIME; a failure prints the command that repeats it
	$(GO) run ./internal/sim/cmd/phxsim -for $(SIM_TIME)

.PHONY: soak
soak: build ## break clusters for hours and judge them; goes on where it was interrupted
	./$(BIN) drill soak --dir .soak $(SOAK_FLAGS)

.PHONY: mutants
mutants: ## plant every fault of the list into the protocol, one by one; each must be found
	$(GO) run ./internal/sim/cmd/phxmutants

DISK_ROUNDS ?= 40
DISK_SEED   ?= 1

.PHONY: soak-disk
soak-disk: ## power cuts of all nodes at once, on disks that forget what was not synced; needs root and /dev/fuse
	$(GO) test ./test/e2e -count=1 -v -run TestPowerCuts -disk-rounds $(DISK_ROUNDS) -disk-seed $(DISK_SEED) -timeout 4h

model: ## every state of the protocol's models, large sizes; needs spin and gcc
	@command -v spin >/dev/null && command -v gcc >/dev/null || { echo "install spin and gcc first; on Debian: apt-get install spin gcc"; exit 1; }
	$(GO) test -v -count=1 -timeout 60m ./paxos/model -full

bench: build ## the cluster beside a single server and semi-sync, with sysbench
	$(GO) run ./test/bench $(BENCH_FLAGS)

bench-paxos: ## the consensus library beside its peers, three processes each; takes long, see BENCH_FLAGS=-help
	cd test/paxosbench && $(GO) run . $(BENCH_FLAGS)

fuzz: ## each fuzz target for FUZZ_TIME
	for pkg in $(UNIT); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep ^Fuzz || true); do \
	    echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZ_TIME) $$pkg; \
	  done; \
	done

clean: ## what was built; demos stay
	rm -rf bin
