# Entry points. `make demo` and `make test` need a Rust toolchain; whatever else is missing comes from Debian.
SHELL := /bin/bash
.NOTPARALLEL:
export PATH := $(HOME)/.cargo/bin:$(PATH)
CARGO ?= cargo
RUBY ?= ruby
export RUBY
TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
export DIAGCTL_TEST_BIN := $(TARGET_DIR)/release/diagctl

# What `make fuzz` gives each target.
FUZZ_SECONDS ?= 300

.PHONY: build deps demo demo-quiet test lint unit e2e torture torture-short kernel bench bench-idle bench-sidekiq bench-put bench-capture bench-redmine soak fuzz matrix matrix-short redmine clean help

# One static program: it runs in any image, and starts a third faster, which is most of what a poll costs. Cargo links build
# scripts with the same flags unless a target is named. The last flag is for the link alone: code keeps the level that it was
# compiled with (Cargo.toml), but link-time optimization at "z" leaves loops unvectorized, and compression takes twice as long.
# Code that a poll runs lies side by side where the linker knows how (lld and GNU ld do), which is tried on a program of one line.
build:
	host=$$(rustc -vV | sed -n 's/^host: //p') && \
	static="-C target-feature=+crt-static -C relocation-model=static" && \
	order="-C link-arg=-Wl,-T,scripts/poll.ld" && \
	mkdir -p "$(TARGET_DIR)" && probe=$$(mktemp "$(TARGET_DIR)/probe.XXXXXX") && \
	{ echo 'fn main() {}' | rustc --crate-name probe $$static $$order -o "$$probe" - 2>/dev/null && "$$probe" || order=; rm -f "$$probe"; } && \
	RUSTFLAGS=$$static \
	$(CARGO) rustc --release --locked --package diagctl --bin diagctl --target "$$host" -- -C opt-level=3 $$order && \
	install -D "$(TARGET_DIR)/$$host/release/diagctl" "$(DIAGCTL_TEST_BIN)"

deps:
	@scripts/deps

demo: deps build
	@$(RUBY) demo/demo.rb

# In the order of what fails soonest.
test: deps build lint unit demo-quiet e2e torture-short matrix-short
	@echo "make test: everything passed"

lint:
	@scripts/deps --lint
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null
	$(RUBY) scripts/layers
	$(RUBY) scripts/poll-order
	@scripts/deny

unit:
	tar -xzf fuzz/corpus.tar.gz -C fuzz
	@if $(CARGO) nextest --version >/dev/null 2>&1; then set -x; $(CARGO) nextest run --workspace --locked; \
	else set -x; $(CARGO) test --workspace --locked; fi
	$(RUBY) scripts/layers_test.rb
	$(RUBY) scripts/poll_order_test.rb
	$(RUBY) ruby/test_all.rb

# The demo for `make test`: what it prints is shown when it fails only.
demo-quiet: deps build
	@echo "$(RUBY) demo/demo.rb"; said=$$($(RUBY) demo/demo.rb 2>&1) || { echo "$$said"; exit 1; }; echo "$$said" | tail -n 1

# One file or one test: make e2e E2E="-n /overlap/"
e2e:
	$(RUBY) tests/e2e/all.rb $(E2E)

# Faults, crashes and attacks: docs/reliability.md. The short form tries a sample of each kind, and is part of `make test`.
# libfaketime cannot be loaded into the static program, so the tests about clocks run cargo's ordinary build of it.
# One file or one test: make torture TORTURE_ONLY="-n /power/"
torture: deps build
	$(CARGO) build --locked
	TORTURE=full DIAGCTL_TEST_DYNAMIC="$(TARGET_DIR)/debug/diagctl" $(RUBY) tests/torture/all.rb $(TORTURE_ONLY)

torture-short: deps build
	$(CARGO) build --locked
	TORTURE=short DIAGCTL_TEST_DYNAMIC="$(TARGET_DIR)/debug/diagctl" $(RUBY) tests/torture/all.rb $(TORTURE_ONLY)

# Real cgroup v2, on a machine that qemu emulates: make kernel KERNEL="-n /oom/". Root builds the image once. Not part of
# `make test`: it takes minutes, as long as ten on a busy machine.
kernel: build
	tests/kernel/run $(KERNEL)

# Captures back to back under load: ten minutes, or DURATION seconds. The short form is a part of e2e.
soak: deps build
	DURATION=$${DURATION:-600} $(RUBY) tests/e2e/soak_test.rb

# Puma 5.6, 6.6 and 8.0, Sidekiq 6.4, 7.3 and 8.1, in Debian 12, 13 and testing; Ruby 3.4; and Redmine. Root, debootstrap and ten minutes
# or more. One of them: make matrix MATRIX=forky
matrix: deps build
	@tests/matrix/run $(MATRIX)

matrix-short: deps build
	@tests/matrix/run --short

redmine: deps build
	@tests/matrix/run redmine

# Write benches/results/. make bench-capture SIZES=0.3 PAIR= LIMITED= ROUNDS=1 is a quick look: a minute.
bench: bench-idle bench-sidekiq bench-put bench-capture bench-redmine

bench-idle: deps build
	$(RUBY) benches/idle.rb

bench-sidekiq: deps build
	$(RUBY) benches/sidekiq.rb

bench-put: deps build
	$(RUBY) benches/put.rb

bench-capture: deps build
	$(RUBY) benches/capture.rb

# A real Rails application, in the image that the matrix has of it: root, and debootstrap where the image is missing.
bench-redmine: deps build
	@tests/matrix/run redmine-bench

# Every parser, so many seconds each; one that breaks leaves its input in fuzz/artifacts and the rest go on. Needs cargo-fuzz (cargo
# install --locked cargo-fuzz) and g++. The corpora that are kept are replayed by `make unit`.
fuzz:
	@FUZZ_SECONDS=$(FUZZ_SECONDS) scripts/fuzz $(TARGETS)

clean:
	$(CARGO) clean

help:
	@echo "make build   the release binary, target/release/diagctl"
	@echo "make deps    install from Debian what the demo and the tests need (nothing when all is there)"
	@echo "make demo    a real Puma cluster collects its own heap dumps, in under two minutes"
	@echo "make test    formatting, lints, unit tests in Rust and Ruby, the demo, end-to-end tests with a real Puma"
	@echo "make lint | unit | demo-quiet | e2e | torture-short | matrix-short   the parts of make test"
	@echo "make torture  every fault, crash and attack of docs/reliability.md, in full: about an hour on two cores"
	@echo "make kernel  what reads cgroup v2, tested on a real kernel under qemu; takes minutes, and root the first time"
	@echo "make soak    ten minutes of captures back to back under load: nothing fails, nothing grows"
	@echo "make fuzz    every parser under libFuzzer, FUZZ_SECONDS=300 each; TARGETS=\"state engine\" for some of them"
	@echo "make matrix  all of it on Debian 12, 13 and testing, and a real Redmine; root and debootstrap"
	@echo "make bench   what polls, the Sidekiq middleware, compression and captures cost; writes benches/results, takes half an hour"
	@echo "make bench-idle | bench-sidekiq | bench-put | bench-capture | bench-redmine   the parts of make bench; the last two take 15 and 10 minutes"
	@echo "make clean   remove what cargo built"
