"""Load tests: how fast two looks are, beside what they replace (docs/performance.md). `make bench` runs them."""
