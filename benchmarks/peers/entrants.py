"""Who is measured."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.peers.environments import Command, Unavailable, forking_peer, node_peer, python_peer, riacho


@dataclass(frozen=True)
class Entrant:
    """`share` and `singles` say how many of the run's jobs it does a round, in bulks and one a call, so that each
    takes a second or more. `python` marks a Python peer.
    """

    name: str  # in the names of its figures
    title: str
    share: float
    singles: float
    command: Callable[[], Command]
    python: bool = True

    @property
    def suffix(self) -> str:
        """What its figures end in: a peer's in its name, Riacho's in nothing."""
        return "" if self is RIACHO else f"_{self.name}"


RIACHO = Entrant("riacho", "Riacho", 1, 0.2, riacho, python=False)
PEERS = [
    Entrant("bullmq", "BullMQ", 0.3, 0.2, lambda: node_peer("bullmq"), python=False),
    Entrant("bull", "Bull", 0.3, 0.4, lambda: node_peer("bull"), python=False),
    Entrant("bullmq_python", "BullMQ for Python", 0.08, 0.04, lambda: python_peer("bullmq_python")),
    Entrant("celery", "Celery", 0.05, 0.025, lambda: forking_peer("celery")),
    Entrant("rq", "RQ", 0.02, 0.05, lambda: forking_peer("rq")),
    Entrant("dramatiq", "Dramatiq", 0.1, 0.1, lambda: forking_peer("dramatiq")),
    Entrant("taskiq", "taskiq-redis", 0.06, 0.04, lambda: forking_peer("taskiq")),
    Entrant("arq", "arq", 0.05, 0.04, lambda: python_peer("arq")),
    Entrant("streaq", "streaQ", 0.025, 0.03, lambda: python_peer("streaq")),
    Entrant("saq", "SAQ", 0.06, 0.08, lambda: python_peer("saq")),
    Entrant("faststream", "FastStream", 0.12, 0.12, lambda: python_peer("faststream")),
    Entrant("chasquimq", "ChasquiMQ", 0.3, 0.1, lambda: python_peer("chasquimq")),
]
ALL = [RIACHO, *PEERS]
EVERY = ",".join(peer.name for peer in PEERS)


def chosen(names: str) -> list[Entrant]:
    """Riacho and the peers named, separated by commas. Raises Unavailable for one that is not known."""
    known = {peer.name: peer for peer in PEERS}
    asked = [name.strip() for name in names.split(",") if name.strip()]
    for name in asked:
        if name not in known:
            raise Unavailable(f"there is no peer {name!r}; known: {', '.join(known)}")
    return [RIACHO, *(known[name] for name in asked)]
