# `make demo` and `make test` do all set-up themselves, on a Debian machine with git, make and Node.
# Everything made lies in dist/ (the program), build/ (the guest) and node_modules/.

NODE := node
SOURCES := $(shell find src -name '*.ts' -not -name '*.test.ts')

.PHONY: golden explore build setup packages packages-test node24 guest demo test test-unit test-e2e lint crash-test bench-sim bench-storage bench-failover soak format clean
.DELETE_ON_ERROR:

build: dist/.built dist/qemu/guard dist/process-guest/process-guest ## compile the program into dist/

setup: packages-test node_modules/.stamp ## Debian packages and npm packages, for everything

demo: packages build guest ## the main job on real parts; ARGS="--hosts 3 --vms 2"
	@bin/holdfast demo $(ARGS)

test: ## every check and every test
	@$(NODE) scripts/test.mjs

test-unit: packages-test node_modules/.stamp ## unit tests only; ARGS="src/storage"
	@$(NODE) node_modules/vitest/vitest.mjs run --project unit $(ARGS)

golden: packages-test node_modules/.stamp ## write the logs in scenarios/ anew; read the difference before you commit it
	@UPDATE_GOLDEN=1 $(NODE) node_modules/vitest/vitest.mjs run --project unit test/simulator/scenarios.test.ts

test-e2e: packages-test build guest ## end-to-end tests only
	@$(NODE) node_modules/vitest/vitest.mjs run --project e2e $(ARGS)

lint: node_modules/.stamp ## format, lint, types, import rules, unused code
	@$(NODE) scripts/test.mjs checks

bench-sim: build ## how fast virtual time runs; ARGS="small" for the quick half
	@$(NODE) --max-semi-space-size=64 bench/sim-speed.mjs $(ARGS)

bench-storage: build ## the object store beside etcd, qemu-nbd, nbdkit and Ceph; ARGS="set disk --repetitions 9"
	@scripts/setup.sh bench
	@$(NODE) bench/storage.mjs $(ARGS)

bench-failover: packages-test build guest ## how long VMs are gone when hosts and networks fail; ARGS="crash --failures 10 --qemu"
	@$(NODE) bench/failover.mjs $(ARGS)

HOURS := 2
soak: packages-test build guest ## random faults on real daemons, for hours; HOURS=0.1 SEED=7
	@$(NODE) scripts/soak.mjs --hours $(HOURS) $(if $(SEED),--seed $(SEED)) $(ARGS)

SEEDS := 1000
explore: build ## random faults on virtual time; SEEDS=100000, ARGS="--minutes 60 --from 5000"
	@bin/holdfast sim explore --seeds $(SEEDS) $(ARGS)

ROUNDS := 200
crash-test: packages-test build ## kill -9 of real daemons, over and over; ROUNDS=200 SEED=7 HOSTS=4
	@ROUNDS=$(ROUNDS) $(NODE) node_modules/vitest/vitest.mjs run --project crash --disable-console-intercept

format: node_modules/.stamp ## put code and imports into shape
	@$(NODE) node_modules/@biomejs/biome/bin/biome check --write .

clean: ## remove what was made (not node_modules)
	rm -rf dist build coverage

packages:
	@scripts/setup.sh demo

packages-test:
	@scripts/setup.sh test

node_modules/.stamp: package-lock.json
	@echo 'installing npm packages'
	@npm ci --loglevel=error --no-update-notifier
	@touch $@

# A second Node to run the unit tests on. It lies apart from the other packages, because a package
# that brings a program called `node` would take the machine's place in every npm script.
node24: test/node24/node_modules/.stamp
test/node24/node_modules/.stamp: test/node24/package-lock.json
	@echo 'installing Node 24 for the tests'
	@npm ci --loglevel=error --no-update-notifier --prefix test/node24
	@touch $@

dist/.built: $(SOURCES) tsconfig.json tsconfig.build.json node_modules/.stamp
	@npm run --silent build
	@touch $@

# Renamed into place: the old one may be running, and goes on.
dist/qemu/guard: src/qemu/guard.c | packages
	@mkdir -p $(@D)
	@gcc -O2 -Wall -Wextra -Werror -o $@.new $<
	@mv $@.new $@

# Static, so that each of many takes little memory.
dist/process-guest/process-guest: src/process-guest/guest.c guest/counter.h | packages
	@mkdir -p $(@D)
	@gcc -O2 -Wall -Wextra -Werror -static -pthread -o $@.new $<
	@mv $@.new $@

guest: build/guest/VERSION ## the guest image, from Debian's kernel and guest/init.c
build/guest/VERSION: guest/init.c guest/counter.h guest/build.sh guest/cpio.mjs | packages
	@guest/build.sh
