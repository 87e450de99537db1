"""What a figure's name says of it."""

LESS_IS_BETTER = (
    "bytes",
    "_ms",
    "memory",
    "cpu_",
    "lost_at",
    "commands_per",
    "error_rate",
    "seconds",
    "_mb",
    "wait",
)
MORE_IS_BETTER = ("_per_second", "_vs_")
A_COST = ("bytes", "redis_commands")  # whatever else the name says
PEERS = (
    *("bullmq", "bull", "bullmq_python", "celery", "taskiq", "streaq", "arq", "saq", "rq", "dramatiq"),
    *("faststream", "chasquimq", "fastify_bullmq"),
)


def is_peers(name: str) -> bool:
    """Whether it is measured of a peer alone: a ratio to one is of both."""
    return "_vs_" not in name and any(name.endswith(f"_{peer}") or name.startswith(f"{peer}_") for peer in PEERS)


def more_is_better(name: str) -> bool | None:
    """None: nobody can say."""
    if any(part in name for part in MORE_IS_BETTER) and not any(part in name for part in A_COST):
        return True
    return False if any(part in name for part in LESS_IS_BETTER) else None
