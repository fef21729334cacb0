# What there is to do here: `make help`.

# A login shell's PATH may lack Cargo and, where the user is not root, the network tools.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin:/sbin

# The end-to-end tests wait more than they compute.
export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))

CARGO_FLAGS := --release $(if $(CI),--locked)
GUESTS := $(patsubst plugins/%/Cargo.toml,-p heddle-plugin-%,$(wildcard plugins/*/Cargo.toml))

# What static binaries are built for.
STATIC := $(shell uname -m)-unknown-linux-musl

# Where the demo keeps its leases: dir or etcd.
STORE ?= dir
HOSTS ?= 2

# Cargo profile of the demo: demo builds in a third of the time, release gives what `make build` gives.
PROFILE ?= demo

# The calls that runtime/plugin/build.rs makes, so that it finds their results. As steps of their own they show progress.
BUILD_GUESTS := env -u RUSTFLAGS cargo build $(if $(CI),--locked) --target-dir target/guests --profile guest --target wasm32-wasip2 $(GUESTS)
BUILD_COMPILER := env -u RUSTFLAGS cargo build $(if $(CI),--locked) --target-dir target/guests -p heddle-compiler --profile

# What is fuzzed, and for how long each.
FUZZ_TARGETS := $(patsubst tests/fuzz/targets/%.rs,%,$(wildcard tests/fuzz/targets/*.rs))
TARGET ?= $(FUZZ_TARGETS)
SECONDS ?= 60

# How long leases change in the measurement of a large cluster, and faults happen.
MINUTES ?= 10

# Percentage of lines that tests without root execute, at least.
LEAST ?= 85

# How many histories are simulated, and the first of them.
SEEDS ?= 100000
FROM ?= 0

# Asked before anything is built: a variable that has to be a number, from 1 on, or from 2 where that is said.
number = @case '$($(1))' in ''|0*|*[!0-9]*$(if $(3),|1)) echo "make: $(1) is '$($(1))': expected a number from $(or $(3),1) on, such as $(2)" >&2; exit 2;; esac

# Likewise: a variable whose words each have to be one of a list.
one_of = $(if $($(1)),,$(error $(1) is empty: expected one of $(2)))$(foreach word,$($(1)),$(if $(filter $(word),$(2)),,$(error $(1) has '$(word)': expected one of $(2))))

.PHONY: help demo build build-for-demo test bench micro scale soak quiet sim lint coverage deny fuzz reference deb tarball setup root
.DEFAULT_GOAL := help

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: root ## an overlay between hosts on this machine, step by step (HOSTS=3, STORE=etcd); needs root
	$(call number,HOSTS,3,2)
	$(call one_of,STORE,dir etcd)
	$(call one_of,PROFILE,demo release)
	@echo 'make demo, 1 of 5: looking for the programs that it takes'
	@.ci/setup build demo $(filter etcd,$(STORE))
	@echo 'make demo, 2 of 5: building the plugins, as WebAssembly components'
	@$(BUILD_GUESTS)
	@echo 'make demo, 3 of 5: building heddle-compiler, which makes native code of them'
	@$(BUILD_COMPILER) $(if $(filter demo,$(PROFILE)),quick-compiler,compiler)
	@echo 'make demo, 4 of 5: building heddled and heddle'
	@$(MAKE) --no-print-directory $(if $(filter demo,$(PROFILE)),build-for-demo,build)
	@echo 'make demo, 5 of 5: running it'
	@$(if $(filter demo,$(PROFILE)),target/demo/heddle,target/dist/heddle) demo --hosts $(HOSTS) --store $(STORE)

build-for-demo:
	@cargo build --profile demo $(if $(CI),--locked) -p heddled -p heddle

# runtime/plugin/build.rs builds heddle-compiler in a Cargo call of its own. In one call, Cargo would give all three
# programs the union of their features, and so Cranelift.
build: ## the daemon, the tool and the compiler of plugins, in target/dist
	@.ci/setup build
	cargo build $(CARGO_FLAGS) -p heddled -p heddle
	install -D -t target/dist target/release/heddled target/release/heddle target/guests/compiler/heddle-compiler

# The end-to-end tests run what is in target/dist and install what is in target/debian. What a test needs is there, and
# one that lacks something fails instead of being skipped.
test: export HEDDLE_REQUIRE_ALL := 1
test: root ## all tests, end to end included; needs root
	@.ci/setup build demo etcd test package
	@$(MAKE) --no-print-directory deb
	cargo test $(CARGO_FLAGS) --no-fail-fast --workspace --exclude heddle-compiler --exclude heddle-hostile
	$(subst cargo build,cargo test,$(BUILD_COMPILER)) compiler

# carry is what the packet path is compared with; docs/performance.md shows the plot.
bench: root ## numbers beside their goals, and a plot: target/bench (PLOT=1: docs/, too); needs root
	@.ci/setup build demo etcd bench
	@$(MAKE) --no-print-directory build
	cargo build $(CARGO_FLAGS) -p heddle-packet --example carry
	install -D -t target/dist target/release/examples/carry
	cargo bench $(filter-out --release,$(CARGO_FLAGS)) -p heddle-tests --bench node --bench path
	$(if $(PLOT),cp target/bench/packet-path.svg docs/)

micro: ## the hot pure functions, each beside an alternative, without root (ONLY=gso: those with this in their names)
	cargo bench $(filter-out --release,$(CARGO_FLAGS)) -p heddle-core -p heddle-packet -p heddle-control --bench state --bench packets --bench status -- $(ONLY)

scale: root ## a daemon in a large cluster, and a plot: target/bench (MINUTES=10 of changing leases); needs root
	$(call number,MINUTES,10)
	@.ci/setup build demo etcd bench
	@$(MAKE) --no-print-directory build
	MINUTES=$(MINUTES) cargo bench $(filter-out --release,$(CARGO_FLAGS)) -p heddle-tests --bench scale
	$(if $(PLOT),cp target/bench/scale.svg docs/)

soak: root ## random faults and changing leases under traffic (MINUTES=10, SEED); needs root
	$(call number,MINUTES,10)
	@.ci/setup build demo etcd test
	@$(MAKE) --no-print-directory build
	MINUTES=$(MINUTES) cargo bench $(filter-out --release,$(CARGO_FLAGS)) -p heddle-tests --bench soak

quiet: root ## healthy clusters of every backend whose nodes come and go: nothing may be reported (MINUTES=10); needs root
	$(call number,MINUTES,10)
	@.ci/setup build demo etcd test
	@$(MAKE) --no-print-directory build
	MINUTES=$(MINUTES) cargo bench $(filter-out --release,$(CARGO_FLAGS)) -p heddle-tests --bench quiet

sim: ## many histories of simulated nodes, without root (SEEDS=100000, FROM=0); a failing seed is printed with how to replay it
	$(call number,SEEDS,100000)
	@case '$(FROM)' in ''|*[!0-9]*) echo "make: FROM is '$(FROM)': expected the number of the first seed, such as 0" >&2; exit 2;; esac
	cargo run $(CARGO_FLAGS) --quiet -p heddle-sim -- --seeds $(SEEDS) --from $(FROM)

lint: ## formatting, style of comments, dependencies between modules and crates, and clippy, for all code
	@.ci/setup build lint
	cargo fmt --all --check
	cargo fmt --manifest-path tests/fuzz/Cargo.toml --check
	.ci/lints
	.ci/prose
	.ci/quotes
	.ci/modules
	.ci/layers
	cargo clippy $(CARGO_FLAGS) --workspace --exclude heddle-compiler --exclude heddle-hostile --all-targets -- -D warnings
	cargo clippy $(filter-out --release,$(CARGO_FLAGS)) --target-dir target/guests --profile compiler -p heddle-compiler --all-targets -- -D warnings
	cargo clippy $(filter-out --release,$(CARGO_FLAGS)) --profile guest --target wasm32-wasip2 $(GUESTS) -- -D warnings
	cargo clippy $(filter-out --release,$(CARGO_FLAGS)) --profile hostile --target wasm32-wasip2 -p heddle-hostile --examples -- -D warnings
	cargo clippy $(CARGO_FLAGS) --manifest-path tests/fuzz/Cargo.toml --target-dir target/fuzz -- -D warnings

coverage: ## lines of runtime/node that tests without root execute (LEAST=85 percent)
	$(call number,LEAST,85)
	@.ci/setup build coverage
	@.ci/coverage $(LEAST)

# What deny.toml lists is there, or goes from the list. The fuzz targets are a workspace of their own, and have a part of it.
FROZEN := -D unmatched-skip -D unnecessary-skip
PARTLY := -A unmatched-skip -A unnecessary-skip -A unused-wrapper

# Licences, origins and who depends on what are in the tree. What has become known since is not: where that cannot be had,
# it is said, and the rest holds.
deny: ## licences, origins, duplicates and known vulnerabilities of dependencies
	@.ci/setup deny
	cargo deny check $(FROZEN) bans licenses sources
	@for packages in '-p heddled -p heddle -e normal,build' ''; do \
		built=$$(cargo tree --prefix none --target all $$packages) || exit 1; \
		if echo "$$built" | grep '^cranelift-codegen '; then \
			echo "make: that is in $${packages:-what a plain cargo build or cargo test builds}: only heddle-compiler may contain Cranelift" >&2; \
			exit 1; \
		fi; \
	done
	cargo deny --manifest-path tests/fuzz/Cargo.toml --config deny.toml check $(PARTLY) bans licenses sources
	@if cargo deny fetch db; then \
		cargo deny check advisories && cargo deny --manifest-path tests/fuzz/Cargo.toml --config deny.toml check advisories; \
	else \
		echo "make: known vulnerabilities and crates that nobody maintains were NOT looked for: https://github.com/RustSec/advisory-db cannot be had" >&2; \
	fi

# As many at a time as there are processors, but built one by one.
fuzz: ## random bytes for whatever comes from outside (TARGET="lease config", SECONDS=60)
	$(call number,SECONDS,60)
	@for target in $(TARGET); do [ -f tests/fuzz/targets/$$target.rs ] || { \
		echo "make: TARGET: there is no fuzz target $$target: expected some of $(FUZZ_TARGETS)" >&2; exit 2; }; \
	done
	@.ci/setup build fuzz
	@for target in $(TARGET); do \
		cargo fuzz build --fuzz-dir tests/fuzz --sanitizer none --target-dir target/fuzz $$target || exit 1; \
	done
	@printf '%s\n' $(TARGET) | xargs -P "$$(nproc)" -I TARGET tests/fuzz/run TARGET $(SECONDS)

reference: ## docs/plugin-reference.md, out of the comments in wit/v0.1, and the tables of docs/configuration.md
	cargo run $(CARGO_FLAGS) --quiet -p heddle-reference
	UPDATE_EXPECT=1 cargo test $(CARGO_FLAGS) --quiet -p heddle --bin heddle configuration_page

# The manual pages, the completions and the plugins as files come out of the tool. DEB_FLAGS: more for cargo-deb, such
# as --deb-revision 2.
deb: ## a Debian package, in target/debian
	@.ci/setup build package
	@$(MAKE) --no-print-directory build
	rm -rf target/dist/package
	install -D --strip -t target/dist/package target/dist/heddled target/dist/heddle target/dist/heddle-compiler
	target/dist/heddle manual target/dist/package/manual
	target/dist/heddle plugin export target/dist/package/plugins
	cargo deb -p heddled --no-build --quiet $(DEB_FLAGS)

# Two Cargo calls, because the compiler that the build script builds is not static. The package determines the files besides the binaries.
tarball: deb ## the same for any Linux, with static binaries: target/heddle-VERSION-linux-ARCH.tar.gz
	@.ci/setup static
	cargo build $(CARGO_FLAGS) --target $(STATIC) -p heddled -p heddle
	$(BUILD_COMPILER) compiler --target $(STATIC)
	install -t target/$(STATIC)/release target/guests/$(STATIC)/compiler/heddle-compiler
	.ci/tarball "$$(ls -t target/debian/heddle_*.deb | head -n 1)" target/$(STATIC)/release

setup: ## install what a fresh Debian with rustup lacks for demo, test and lint; needs root
	@.ci/setup build demo etcd test package

# Asked before anything is built.
root:
	@[ "$$(id -u)" = 0 ] || { echo "make: hosts are network namespaces here, and to make them takes root: run it with sudo" >&2; exit 1; }
