"""The figures in README.md, made of the committed reports: nobody types one."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.peers.entrants import PEERS
from benchmarks.reports.figures import more_is_better
from benchmarks.reports.markdown import number, row
from benchmarks.reports.report import NoReport, Report, read_all

BEGIN = "<!-- figures: `python -m benchmarks report --readme README.md` writes them -->"
END = "<!-- end of figures -->"
BESIDE = {
    "engine: jobs added a second, 50 a call": ("engine", "bulk_add_per_second"),
    "engine: jobs added a second, one a call": ("engine", "single_add_per_second"),
    "engine: jobs worked a second, 100 at a time": ("engine", "consume_per_second"),
    "engine: p99 from adding to handler at half load, ms": ("engine", "p99_ms_at_half_load"),
    "engine: bytes of a waiting job": ("engine", "bytes_per_waiting_job"),
    "retry-storm: jobs a second that fail twice first": ("retry-storm", "retry_storm_per_second"),
    "fanout: jobs a second, handed on by others": ("fanout", "fanout_per_second"),
    "idle: Redis commands a second of a worker": ("idle", "redis_commands_per_second"),
    "cold-start: seconds from start to the first job done": ("cold-start", "first_job_seconds"),
    "http: jobs accepted over HTTP a second": ("http", "accepted_per_second"),
}
ALONE = {
    "http": {
        "accept_p99_ms_at_half_load": "p99 of accepting a job over HTTP at half load, ms",
        "crowded_accept_p99_ms": "the same beside 1,000 half-open clients and 200 listeners, ms",
    },
    "chat": {
        "webhook_p99_ms": "p99 of a webhook's answer, ms",
        "text_p99_ms": "p99 from a text to its reply being out, ms",
        "audio_p50_ms": "median from a voice note to its reply being out, ms",
    },
    "webhook": {
        "idle_p99_ms": "p99 of a webhook's answer on an idle machine, ms",
        "busy_p99_ms": "the same while transcription keeps every core busy, ms",
    },
    "big-backlog": {
        "backlog_jobs": "jobs waiting",
        "rss_mb": "memory that they take the server, MB",
        "first_result_seconds": "seconds from starting a worker to its first result, with all of them waiting",
        "drain_per_second": "jobs worked a second from there",
        "drain_per_second_small_backlog": "the same with few waiting",
    },
    "transcribe": {
        "batched_vs_single": "voice notes in batches, times as fast as one by one",
        "batched_word_error_rate": "their word error rate",
        "single_word_error_rate": "that of one by one",
    },
    "tracing": {
        "lost_at_1_percent": "of the chat's messages a second, lost with one trace of a hundred",
        "lost_at_100_percent": "the same with all of them",
    },
    "order": {"ordered_vs_unordered": "bursts of a chat worked in order, as a fraction of unordered"},
    "cleanup": {
        "deleted_per_second": "old messages deleted a second",
        "cleanup_p99_ms": "p99 of recording a message meanwhile, ms",
    },
}
FASTIFY = "fastify_bullmq_accepted_per_second"


def write(readme: Path, folder: Path) -> None:
    """Put the figures of a folder's reports between the marks. Raises NoReport."""
    text = readme.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise NoReport(f"{readme} has no place for figures: it needs the lines {BEGIN} and {END}")
    readme.write_text(f"{before}{begin}\n\n{block(folder)}\n\n{end}{after}")


def block(folder: Path) -> str:
    """The tables."""
    reports = read_all(folder)
    figures = {report.scenario: report.figures for report in reports}
    return "\n".join([*_beside(figures), "", *_alone(reports)])


def _beside(found: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    yield row(["", "Riacho", "BullMQ (Node)", "the best Python peer"])
    yield row(["---", *["---:"] * 3])
    for title, (scenario, figure) in BESIDE.items():
        figures = found.get(scenario, {})
        if figure in figures:
            bullmq = figures.get(FASTIFY if scenario == "http" else f"{figure}_bullmq")
            yield row([title, number(figures[figure]), number(bullmq), _best(figures, figure)])


def _best(figures: Mapping[str, float], figure: str) -> str:
    of = {figures[figure + peer.suffix]: peer for peer in PEERS if peer.python and figure + peer.suffix in figures}
    if not of:
        return "not measured"
    best = max(of) if more_is_better(figure) else min(of)
    return f"{number(best)} ({of[best].title}{'' if len(of) > 1 else ', the only one measured'})"


def _alone(reports: list[Report]) -> Iterator[str]:
    yield row(["", "Riacho"])
    yield row(["---", "---:"])
    for scenario, titles in ALONE.items():
        for report in (each for each in reports if each.scenario == scenario):
            database = f" ({report.knobs['database']})" if "database" in report.knobs else ""
            for figure, title in titles.items():
                if figure in report.figures:
                    yield row([f"{scenario}{database}: {title}", number(report.figures[figure])])
