"""The benchmarks that people quote, by name."""

from dualfocus_eval.samples import Benchmark

BENCHMARKS: dict[str, Benchmark] = {}
