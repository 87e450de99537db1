"""The benchmark of the whole chat, as short as can be: real processes, a real voice note."""

import pytest

from benchmarks.capacity import Costs, sustainable
from benchmarks.parts import costs
from benchmarks.scenarios import chat

pytestmark = pytest.mark.integration


def test_a_short_run_measures_the_whole_path_and_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "TEXTS", 400)  # of 40, what else the server holds hides the bytes
    monkeypatch.setattr(costs, "RESTING", 0.2)
    report = chat.measure(rate=20, audio=5, seconds=2, rounds=1, loads="10,20", notes=2)
    found = report.figures
    for path in ("webhook", "text", "audio"):
        assert 0 < found[f"{path}_p50_ms"] <= found[f"{path}_max_ms"]
        assert f"{path}_p99_ms" not in found, "of 40 messages it would be the longest"
    assert found["text_p50_ms"] < found["audio_p50_ms"], "a note is transcribed first"
    assert 5 < found["replies_per_second"] < 25
    assert found["redis_commands_per_message"] > 5
    for process in ("api", "worker", "transcriber"):
        assert found[f"{process}_peak_memory_mb"] > 20
    assert found["worker_cpu_seconds_per_million"] > found["generator_cpu_seconds_per_million"] > 0
    assert found["server_cpu_seconds_per_million"] > 0

    cost = Costs.of(found)
    assert 0 < cost.known_bytes < cost.waiting_bytes < cost.text_bytes
    assert cost.transcribed_audio_seconds_per_second > 0
    assert sustainable(cost, 0.05) > 0

    lines = report.plots["latency-by-load"].lines
    assert [rate for rate, _ in lines["text, p50"]] == [10, 20]
