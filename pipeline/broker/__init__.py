"""All of Redis, behind one object: every queue command and every transition of a job is here.

`producing` puts jobs in, `consuming` gives them to workers and takes their outcomes, `steering` is for whoever
runs the whole, `letters` for what failed, `looking` for whoever wants to know how things are, `following` for
whoever wants to see them happen, `probing` for whoever wants to see them work, `scheduling` for jobs that come
again and again. Each transition is one script of lua/.
"""

from pipeline.broker.access import MOST_PER_CALL
from pipeline.broker.consuming import Consuming
from pipeline.broker.following import Following
from pipeline.broker.letters import Letters
from pipeline.broker.looking import Looking
from pipeline.broker.probing import Probing
from pipeline.broker.producing import Producing
from pipeline.broker.scheduling import Scheduling
from pipeline.broker.steering import Steering

__all__ = ["MOST_PER_CALL", "Broker"]


class Broker(Scheduling, Probing, Producing, Consuming, Steering, Letters, Looking, Following):
    """The stages' streams on one Redis. Raises ServerUnavailable wherever the server cannot be reached."""
