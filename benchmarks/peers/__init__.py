"""Riacho's peers: other job engines on Redis, each measured in a process of its own by the same commands.

Who cannot do what a command says answers `{"cannot": "why"}`. By their environment contestants learn how many jobs
to run at a time (BENCHMARK_CONCURRENCY; 100), and how many seconds to wait before a second try (BENCHMARK_BACKOFF;
2).

While no job comes, `work` asks for nothing of its own: what an idle worker takes is measured by it, too.

A contestant's process prints its versions as one line of JSON, then answers one command a line with one line:

| command            | answer                                                                              |
|--------------------|-------------------------------------------------------------------------------------|
| `add JOBS BULK`    | seconds it took to add so many, `BULK` a call                                       |
| `work JOBS`        | seconds from starting a worker to so many jobs being settled; more may be waiting   |
| `latency JOBS`     | p50 and p99 in ms of so many jobs, from being due to their handler                  |
| `storm JOBS`       | as `work`, but each job fails twice before it comes through                         |
| `fan_out JOBS N`   | as `work`, but each job adds N others of another kind, until these are settled, too |
| `produce JOBS RATE`| seconds it took to add so many, each when it is due, `RATE` a second, open loop     |

What `work`, `storm` and `fan_out` work off was put there by `add` before: the clock starts with the worker. The
latter two leave nothing to do behind.
"""
