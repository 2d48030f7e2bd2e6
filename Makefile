# What people and CI call; `cargo` alone does as well once the machine has what `tools/setup` names.

.PHONY: test lint demo bench chaos setup

setup:
	@./tools/setup

test: setup
	@./tools/test

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --lib
	@if command -v cargo-deny >/dev/null; then cargo deny --offline check bans licenses sources; else echo "cargo-deny is not installed: deny.toml was not checked"; fi

demo:
	cargo run --release --locked -- demo

# BENCH passes arguments on to the first, such as BENCH="--cases tls --rounds 9": see benches/README.md.
bench:
	@./benches/peers/setup
	cargo bench --locked --bench transfer -- $(BENCH)
	cargo bench --locked --bench intake
	cargo bench --locked --bench manifest

# Kills and freezes daemons for minutes; CHAOS="--seed 7 --seconds 60 --tasks 100 --daemons 3" says how: see tests/README.md.
chaos: setup
	cargo bench --locked --bench fleet -- $(CHAOS)
