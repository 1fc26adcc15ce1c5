# Caracal. Bare `make` lists the targets.

GO     ?= go
BIN    := bin
export CGO_ENABLED ?= 0
# What `make demo`, `make up` and `make scenario` build; see `bin/caracal-lab up --help`.
MODE   ?= mixed
NODES  ?= 3
FAMILY ?= 4
SOAK   ?= 10m
KILLS  ?= 200
NAME   ?= all
# file: a directory of manifests; kube: a real API server.
DATASTORE ?= file
LAB    := $(BIN)/caracal-lab --vm test/vm/run-in-vm
SHAPE   = --mode $(MODE) --nodes $(NODES) --family $(FAMILY)

.DEFAULT_GOAL := help
.PHONY: help deps build demo test test-host test-guest kubeapi bench bench-fib bench-bgp bench-mesh scale image check proto up status down scenario clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install the programs tests and lab use (Debian; nothing happens when they are there)
	@test/install

build: ## build caracald, caracal and caracal-lab into bin/
	$(GO) build -trimpath -o $(BIN)/ ./cmd/...

demo: deps build ## bring up a cluster, ping everything, show why each route is there, clean up (MODE= NODES= FAMILY= DATASTORE=kube)
ifeq ($(DATASTORE),kube)
	@$(MAKE) --no-print-directory kubeapi
	@$(GO) run ./test/kubedemo -caracald $(BIN)/caracald $(SHAPE)
else
	@$(LAB) demo $(SHAPE)
endif

test: deps build test-host test-guest ## run every test: pure, real kernel, lab, and those that need IPIP in the guest kernel

test-host: kubeapi
	CARACAL_TEST_GUEST=follows CARACAL_BIN=$(CURDIR)/$(BIN) $(GO) test $(TESTFLAGS) ./...

kubeapi: ## build the API server the tests run, once for a machine (some minutes; then cached)
	@test/apiserver/build >/dev/null

test-guest: deps build kubeapi ## run only the tests that need a kernel with IPIP, in one boot of the guest kernel
	@test/guest-tests

bench: deps build ## print the figures: programming rate, resync, memory, plan time
	$(GO) test -p 1 -run '^$$' -bench . -benchmem -timeout 30m ./...
	$(GO) run ./test/bench -caracald $(BIN)/caracald

bench-fib: deps build ## how fast what BGP brings reaches the kernel: caracald against BIRD 2 and FRR, 1,000 to 100,000 prefixes
	$(GO) run ./test/benchfib -caracald $(BIN)/caracald $(BENCHFLAGS)

bench-bgp: deps build ## the same without the floors, and tables of a hundred peers: caracald against BIRD 2 and FRR
	$(GO) run ./test/benchfib -caracald $(BIN)/caracald -only caracald,bird2,frr -tables 1000,10000,100000,100x10,100x100 $(BENCHFLAGS)

bench-mesh: deps ## a mesh of 200 engines, and one engine against 1,000 simulated peers: time to converge, memory, processor (a minute, 20 GiB)
	$(GO) test ./test/mesh -count=1 -v -timeout 20m -args -full

scale: deps build kubeapi ## one daemon against a real API server with 5,000 nodes and 20,000 blocks (some minutes, 3 GiB)
	CARACAL_BIN=$(CURDIR)/$(BIN) $(GO) test ./test/scale -count=1 -v -timeout 20m -args -full

soak: deps build ## go on with random operations against the model, on the Fake and on the real kernel (SOAK=10m each), and kill daemons 200 times
	CARACAL_TEST_SOAK=$(SOAK) $(GO) test -count=1 -timeout 0 -run 'TestModel' ./routes
	CARACAL_BIN=$(CURDIR)/$(BIN) CARACAL_TEST_KILLS=$(KILLS) $(GO) test -count=1 -timeout 0 -v -run 'TestScenarios(VXLAN|Plain)$$/^kills$$' ./test/lab

image: deps ## build the shipped image for both architectures, without a registry, as OCI layouts in bin/image
	@rm -rf $(BIN)/image
	@test/image $(BIN)/image

check: ## format, vet, staticcheck, generated code, walls between the rooms
	@test/check

proto: deps ## generate the gRPC code
	proto/generate.sh

up: deps build ## bring up a cluster and leave it standing (MODE= NODES= FAMILY=)
	@$(LAB) up $(SHAPE)

status: ## show the clusters that stand
	@$(LAB) status

down: ## remove the cluster that `make up` built
	@$(LAB) down

scenario: deps build ## play scenarios under a constant probe (NAME=, MODE=); `bin/caracal-lab scenario` lists them
	@$(LAB) scenario $(NAME) $(SHAPE)

clean: ## remove what was built
	rm -rf $(BIN)
