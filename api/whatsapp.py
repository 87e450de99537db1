"""WhatsApp's webhook: Meta's handshake, signed events, and what each message and each receipt becomes."""

import hmac
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web

from api.operations import Answer, Body, Operation, Parameter, in_query
from api.problems import Problem, json, problem_of_refusal, read_body
from api.signatures import Signatures
from config import Secret
from pipeline import Broker, Job, Pipeline
from pipeline.errors import BadPayload
from pipeline.message import Added, now_ms
from stages.notification.log import RANKS

log = logging.getLogger(__name__)

LONGEST_CAPTION = 2_000  # characters, see Attachment; the whole is in the message's text


class _Text(msgspec.Struct):
    body: str


class _Audio(msgspec.Struct):
    id: str


class _File(msgspec.Struct):
    id: str
    caption: str = ""
    filename: str = ""


class _Message(msgspec.Struct, rename={"from_": "from"}):
    id: str
    type: str
    timestamp: str
    from_: str = ""
    user_id: str = ""
    text: _Text | None = None
    audio: _Audio | None = None
    image: _File | None = None
    document: _File | None = None


class WhatsAppMetadata(msgspec.Struct):
    """The number that an event is of."""

    phone_number_id: str


class _ErrorData(msgspec.Struct):
    details: str = ""


class _Error(msgspec.Struct):
    code: int
    title: str = ""
    error_data: _ErrorData | None = None


class _Status(msgspec.Struct):
    id: str
    status: str
    timestamp: str
    biz_opaque_callback_data: str = ""
    errors: list[_Error] = []


class WhatsAppValue(msgspec.Struct):
    """What happened: messages that came, and what became of those that were sent. Their fields are Meta's."""

    metadata: WhatsAppMetadata | None = None
    # One at a time, further down: a message of a shape we do not know must not take the others with it.
    messages: list[msgspec.Raw] = []
    statuses: list[msgspec.Raw] = []


class WhatsAppChange(msgspec.Struct):
    """One thing that happened."""

    value: WhatsAppValue


class WhatsAppEntry(msgspec.Struct):
    """What happened to one account."""

    changes: list[WhatsAppChange] = []


class WhatsAppEvent(msgspec.Struct):
    """What Meta tells a webhook; what else is in it is left aside."""

    object: str
    entry: list[WhatsAppEntry]


class Answered(msgspec.Struct):
    """What became of an event's messages; `jobs` are the ids of the accepted ones and the duplicates."""

    accepted: int
    duplicates: int
    ignored: int
    jobs: list[str]


TEXT = "text/plain; charset=utf-8"
SIGNATURE = Parameter(
    name="X-Hub-Signature-256",
    where="header",
    form=str,
    description="`sha256=` and the HMAC-SHA256 of the body with the app's secret, in hexadecimal digits.",
    example="sha256=" + "0" * 64,
)
EXAMPLE: dict[str, Any] = {
    "object": "whatsapp_business_account",
    "entry": [
        {
            "changes": [
                {
                    "value": {
                        "metadata": {"phone_number_id": "106540352242922"},
                        "messages": [
                            {
                                "id": "wamid.1",
                                "type": "text",
                                "timestamp": "1795369433",
                                "from": "5511987654321",
                                "text": {"body": "Olá!"},
                            }
                        ],
                    }
                }
            ]
        }
    ],
}


class WhatsAppWebhook:
    """Takes events in: durable in the streams before the answer goes out. `tenants` are by their number's id at
    WhatsApp; another number's tenant is named as the number is."""

    def __init__(
        self, broker: Broker, signatures: Signatures, verify_token: Secret, tenants: Mapping[str, str]
    ) -> None:
        self._broker = broker
        self._tenants = tenants
        self._signatures = signatures
        self._verify_token = verify_token

    def operations(self) -> list[Operation]:
        """Everything that is here, as it is reached over HTTP."""
        common: dict[str, Any] = {"path": "/webhooks/whatsapp", "scope": None, "group": "webhooks"}
        unset = "WhatsApp is not configured here."
        return [
            Operation(
                **common,
                method="GET",
                handler=self.handshake,
                head=False,
                name="handshake",
                summary="Prove to Meta that this address is ours",
                parameters=(
                    in_query("hub.mode", str, "`subscribe`.", "subscribe"),
                    in_query("hub.verify_token", str, "What was agreed on."),
                    in_query("hub.challenge", str, "What is to be sent back.", "1158201444"),
                ),
                answers={200: Answer(description="The challenge.", form=str, content_types=(TEXT,))},
                problems={403: "hub.mode or hub.verify_token is not what was agreed on.", 503: unset},
                asks_redis=False,
            ),
            Operation(
                **common,
                method="POST",
                handler=self.receive,
                name="receive",
                summary="Take in an event of WhatsApp's: messages, and what became of ours",
                description="Durable in Redis when the answer comes. What came before is known by its id.",
                parameters=(SIGNATURE,),
                body=Body(form=WhatsAppEvent, examples={"a text": EXAMPLE}),
                answers={200: Answer(description="What became of the messages.", form=Answered)},
                problems={
                    401: "The signature is missing, or not made with a secret known here.",
                    403: "The event is of a number whose app has not signed it.",
                    503: f"{unset} Or a stage takes nothing just now: the event is to be sent again.",
                },
            ),
        ]

    async def handshake(self, request: web.Request) -> web.Response:
        """GET: prove to Meta that this address is ours."""
        token = _configured(self._verify_token, "RIACHO_WHATSAPP_VERIFY_TOKEN")
        offered = request.query.get("hub.verify_token", "")
        if request.query.get("hub.mode") != "subscribe" or not _same(offered, token):
            raise Problem(403, "Forbidden", "hub.mode or hub.verify_token is not what was agreed on.")
        return web.Response(text=request.query.get("hub.challenge", ""))

    async def receive(self, request: web.Request) -> web.Response:
        """POST: an event."""
        body = await read_body(request)
        signers = self._signers(body, request.headers.get("X-Hub-Signature-256", ""))
        event = _event(body)
        self._raise_if_forged(event, signers)
        jobs = list(_jobs(self._broker.pipeline, event, self._tenants))
        work = [job for job in jobs if job]
        answers = await self._broker.add(work)
        self._raise_if_refused(work, answers)
        duplicates = sum(answer.duplicate for answer in answers)
        ids = [str(answer.id) for answer in answers]
        return json(Answered(len(answers) - duplicates, duplicates, len(jobs) - len(work), ids))

    def _signers(self, body: bytes, signature: str) -> frozenset[str]:
        if not self._signatures:
            raise _unconfigured("RIACHO_WHATSAPP_APP_SECRET")
        signers = self._signatures.signers(body, signature)
        if not signers:
            raise Problem(401, "Unauthorized", "X-Hub-Signature-256 is missing, or not made with our app secret.")
        return signers

    def _raise_if_forged(self, event: WhatsAppEvent, signers: frozenset[str]) -> None:
        """The app of one tenant cannot speak for the numbers of another's."""
        changes = (change for entry in event.entry for change in entry.changes)
        telling = (change for change in changes if change.value.messages or change.value.statuses)
        tenants = {_tenant(change, self._tenants) for change in telling}
        if not all(self._signatures.vouch(signers, tenant) for tenant in tenants):
            raise Problem(403, "Forbidden", "The event is of a number whose app has not signed it.")

    def _raise_if_refused(self, work: Sequence[Job], answers: Sequence[Added]) -> None:
        """Have Meta send the whole event again, when the last of the stages is likely to have room; the messages
        that were taken are then known by their ids."""
        refused = [(answer.refusal, job) for job, answer in zip(work, answers, strict=True) if answer.refusal]
        if refused:
            refusal, job = max(refused, key=lambda pair: pair[0].wait)
            why = problem_of_refusal(self._broker.pipeline.stage(job.stage), refusal)
            detail = f"{why.detail} Send the event again."
            raise Problem(503, "Service unavailable", detail, why.headers)


def _same(offered: str, expected: str) -> bool:
    return hmac.compare_digest(offered.encode(errors="surrogateescape"), expected.encode())


def _configured(secret: Secret, variable: str) -> str:
    if not secret:
        raise _unconfigured(variable)
    return secret.reveal()


def _unconfigured(variable: str) -> Problem:
    return Problem(503, "Service unavailable", f"WhatsApp is not configured here: set {variable}.")


def _tenant(change: WhatsAppChange, tenants: Mapping[str, str]) -> str:
    number = change.value.metadata.phone_number_id if change.value.metadata else ""
    return tenants.get(number, number)


def _event(body: bytes) -> WhatsAppEvent:
    try:
        event = msgspec.json.decode(body, type=WhatsAppEvent)
    except (ValueError, RecursionError) as error:  # bad UTF-8 in a string is no DecodeError
        raise Problem(400, "Bad request", f"The body is not a WhatsApp event: {error}") from None
    if event.object != "whatsapp_business_account":
        raise Problem(400, "Bad request", f"object is {event.object[:80]!r}, not 'whatsapp_business_account'.")
    return event


def _jobs(pipeline: Pipeline, event: WhatsAppEvent, tenants: Mapping[str, str]) -> Iterator[Job | None]:
    """A job per message and per status; None for one that is not for us."""
    received_ms = itertools.count(now_ms())  # one apart, so that messages of one event keep their order
    for entry in event.entry:
        for change in entry.changes:
            tenant = _tenant(change, tenants)
            for raw in change.value.messages:
                yield _taken(_message, pipeline, tenant, raw, next(received_ms))
            for raw in change.value.statuses:
                yield _taken(_receipt, pipeline, tenant, raw)


def _taken(read: Callable[..., Job | None], *about: Any) -> Job | None:
    try:
        return read(*about)
    except (BadPayload, ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        log.warning("a part of a WhatsApp event that cannot be taken was left out: %s", error)
        return None


def _receipt(pipeline: Pipeline, tenant: str, raw: msgspec.Raw) -> Job | None:
    status = msgspec.json.decode(raw, type=_Status)
    if status.status not in RANKS:
        log.info("a WhatsApp status %r was left out: nothing here handles it", status.status[:80])
        return None
    told: dict[str, Any] = {
        "message_id": status.id,
        "status": status.status,
        "at_ms": int(status.timestamp[:20]) * 1000,
        "job": status.biz_opaque_callback_data,
    }
    if status.errors:
        error = status.errors[0]
        details = error.error_data.details if error.error_data else ""
        told |= {"code": error.code, "error": ": ".join(filter(None, (error.title, details)))[:2_000]}
    stage = pipeline.stage("receipt")
    once = f"{status.id}:{status.status}"
    return Job(stage=stage.name, payload=pipeline.payload(stage, told), tenant=tenant, key=tenant, dedup=once)


def _message(pipeline: Pipeline, tenant: str, raw: msgspec.Raw, received_ms: int) -> Job | None:
    message = msgspec.json.decode(raw, type=_Message)
    chat = message.from_ or message.user_id
    sent_ms = int(message.timestamp[:20]) * 1000
    said = {"chat": chat, "id": message.id, "sent_ms": sent_ms, "received_ms": received_ms}
    if message.audio:
        stage, content = pipeline.stage("transcribe"), {"source": f"whatsapp:{message.audio.id}"}
    elif content := _words(message):
        stage = pipeline.stage("process-conversation")
    else:
        log.info("a WhatsApp message of type %r was left out: nothing here handles it", message.type)
        return None
    payload = pipeline.payload(stage, {**content, "message": said})
    return Job(stage=stage.name, payload=payload, tenant=tenant, key=f"{tenant}:{chat}", dedup=message.id)


def _words(message: _Message) -> dict[str, Any]:
    """What a message says; an image or a document in brackets, before what is written below it."""
    if message.text:
        return {"text": message.text.body}
    for kind, file in (("image", message.image), ("document", message.document)):
        if file:
            text = f"[{': '.join(filter(None, (kind, file.filename)))}] {file.caption}".rstrip()
            about = {"source": f"whatsapp:{file.id}", "kind": kind, "caption": file.caption[:LONGEST_CAPTION]}
            return {"text": text, "attachment": about}
    return {}
