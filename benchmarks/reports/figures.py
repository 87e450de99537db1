"""What a figure's name says of it."""

from benchmarks.peers.entrants import PEERS

# The first of them that has a part of the name in it tells.
BETTER: dict[tuple[str, ...], bool | None] = {
    # Of how the load was made, and how well it was guessed.
    ("generator", "predicted", "error_fraction", "cpu_fraction", "arriving_notes", "note_seconds"): None,
    # Of what Riacho is measured beside: faster-whisper, one by one, and chats that nobody keeps in order.
    ("single_seconds", "single_audio", "single_word", "single_peak", "idle_single", "unordered_overtaken"): None,
    ("commands_per", "bytes"): False,
    ("_per_second", "_vs_", "kept_up"): True,
    ("_ms", "memory", "cpu_", "lost", "old_left", "overtaken", "error", "seconds", "_mb"): False,
}
AROUND_ZERO = ("lost_at", "cpu_more_at", "overtaken")
MEASURED = (*(peer.name for peer in PEERS), "fastify_bullmq")


def is_peers(name: str) -> bool:
    """Whether it is measured of a peer alone: a ratio to one is of both."""
    return "_vs_" not in name and involves_peer(name)


def involves_peer(name: str) -> bool:
    """Whether it is not there where a peer cannot be measured."""
    return name.endswith("_best_python_peer") or any(
        name.endswith(f"_{peer}") or name.startswith(f"{peer}_") for peer in MEASURED
    )


def is_around_zero(name: str) -> bool:
    """Whether it is a share of which several times as much may still be nothing."""
    return any(part in name for part in AROUND_ZERO)


def more_is_better(name: str) -> bool | None:
    """None: nobody can say."""
    return next((better for parts, better in BETTER.items() if any(part in name for part in parts)), None)
