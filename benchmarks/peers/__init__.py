"""Riacho's peers: other job engines on Redis, each measured in a process of its own by the same commands.

A contestant's process prints its versions as one line of JSON, then answers one command a line with one line:

| command            | answer                                                                              |
|--------------------|-------------------------------------------------------------------------------------|
| `add JOBS BULK`    | seconds it took to add so many, `BULK` a call                                       |
| `work JOBS`        | seconds from starting a worker to the last of so many waiting jobs being settled    |
| `latency JOBS`     | p50 and p99 in ms of so many jobs, from being due to their handler                  |
| `produce JOBS RATE`| seconds it took to add so many, each when it is due, `RATE` a second, open loop     |
"""
