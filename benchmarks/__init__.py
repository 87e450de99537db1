"""The benchmark harness: `python -m benchmarks SCENARIO [--json FILE]`."""
