"""The demo's chat as it is traced: by our own collector, and by Jaeger where there is one."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from tests.jaeger import needs_jaeger, running, trace
from tests.otlp import Seen, over_http, tree
from tests.processes import environment, run
from tests.support import eventually

pytestmark = pytest.mark.acceptance

REPLIED: dict[str, Any] = {"CONSUMER process notification.send-client": {"CLIENT POST whatsapp": {}}}
TEXT = {
    "SERVER POST /webhooks/whatsapp": {
        "PRODUCER send audio.process-conversation": {"CONSUMER process audio.process-conversation": REPLIED}
    }
}
VOICE = {
    "SERVER POST /webhooks/whatsapp": {
        "PRODUCER send audio.transcribe": {
            "CONSUMER process audio.transcribe": {
                "CLIENT GET media": {},
                "CLIENT GET media #2": {},
                "CONSUMER process audio.process-conversation": REPLIED,
            }
        }
    }
}
MESSAGES = {"Olá, boa noite!": TEXT, "pedido-pizzas.ogg": VOICE, "obrigado.ogg": VOICE}


def demo(folder: Path, collector: str) -> dict[str, str]:
    """Runs it; by message, the traces whose addresses it prints."""
    env = environment(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{collector}/v1/traces")
    ended = run("demo", "--data", str(folder), env=env)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    return dict(re.findall(r"trace of '?(.*?)'?: http://127\.0\.0\.1:16686/trace/([0-9a-f]{32})\n", ended.stdout))


def check(spans: list[Seen], wanted: object) -> None:
    """That these spans of one trace are what one message is."""
    # A message whose turn it is not yet is tried again, and says so.
    tried = [span for span in spans if span.attributes.get("riacho.outcome") != "deferred"]
    assert tree(tried) == wanted
    by_id = {span.id: span for span in spans}
    for span in spans:
        at_the_api = span.kind in ("SERVER", "PRODUCER")
        assert span.service == ("riacho-api" if at_the_api else "riacho-worker")
        assert span.error is None
        if span.kind == "CONSUMER":
            assert span.links == (span.parent,)
            assert span.attributes["riacho.attempt"] == 1
            assert 0 <= span.attributes["riacho.waited"] < 60
            assert span.events["riacho.waited"] == {"riacho.waited": span.attributes["riacho.waited"]}
            assert span.start >= by_id[span.parent].start
        assert "5511987654321" not in repr(span), "whoever reads a trace need not know whose it is"


def test_each_message_of_the_demo_is_one_trace_from_its_webhook_to_its_reply(tmp_path: Path) -> None:
    with over_http() as collector:
        traces = demo(tmp_path, collector.address)
        spans = collector.spans
    for message, wanted in MESSAGES.items():
        check([span for span in spans if span.trace == traces[message]], wanted)


@needs_jaeger
async def test_jaeger_shows_the_same(tmp_path: Path) -> None:
    with running(tmp_path) as ports:
        traces = await asyncio.to_thread(demo, tmp_path, f"http://127.0.0.1:{ports.http}")
        for message, wanted in MESSAGES.items():

            async def whole(id: str = traces[message]) -> list[Seen]:  # noqa: A002
                """Jaeger takes up spans some time after they came."""
                spans = trace(ports, id)
                return spans if any(span.name == "POST whatsapp" for span in spans) else []

            check(await eventually(whole, what="the whole trace"), wanted)
