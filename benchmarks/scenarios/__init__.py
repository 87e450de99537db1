"""What is measured: a module a scenario.

Each has `measure`, whose knobs are also the command's options and whose docstring says what it is for, and
`QUICK`, the knobs with which it takes a minute or so (`make bench`). What cannot be measured here raises
Unavailable.
"""

from importlib import import_module
from types import ModuleType

NAMES = (
    *("engine", "retry-storm", "fanout", "order", "big-backlog", "idle", "cold-start"),
    *("chat", "capacity-check", "http", "webhook", "tracing", "transcribe", "cleanup"),
)


def module_of(name: str) -> ModuleType:
    return import_module(f"benchmarks.scenarios.{name.replace('-', '_')}")
