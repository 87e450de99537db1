"""`QueueService`: every kind of work as a method with typed arguments, for programs that use the library."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, TypedDict, Unpack

import msgspec

from pipeline import Broker, Job, JobId, Stage
from pipeline.errors import BadInput, BadPayload, JobUnknown, did_you_mean
from pipeline.views import JobView, StageStatus
from stages.jobs import Incoming, OrderItem

CleanupTask = Literal["tts-cache", "conversations", "logs", "stats", "health"]
SyncTask = Literal["products", "orders", "changed", "push-order"]
LONGEST_NAME = 200  # characters
Name = Annotated[str, msgspec.Meta(max_length=LONGEST_NAME, pattern=r"^[^\x00]*$")]  # databases take no NUL


class Options(TypedDict, total=False):
    """What every job may be given: whose it is (`tenant`); `key`, which orders and places (jobs of one key lie in
    one partition); `delay`, the seconds before anybody may run it; `dedup`, an id under which it is taken once."""

    tenant: Name
    key: Name
    delay: float
    dedup: Name


class QueueService:
    """Puts jobs into the queues of a broker on the pipeline of `build_pipeline`, and looks at them.

    The arguments are the fields of the payloads in stages/jobs.py, with the meaning and defaults they have there.
    Each `queue_…` returns the job's id once the job is durable in Redis; where its `dedup` is known, that of the
    first one. They raise BadPayload, naming the field, for what a stage would not take over HTTP either; BadInput
    for an option out of bounds; Refused (StageFull, StageDraining, ServerFull) saying when to try again; and
    ServerUnavailable, after which the job may be there or not: with a `dedup`, asking again does no harm.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def queue_audio_transcription(
        self,
        *,
        source: str,
        language: str | None = None,
        message: Incoming | None = None,
        **options: Unpack[Options],
    ) -> JobId:
        """Turn a voice note into text; see Transcribe."""
        return await self._queue("transcribe", options, source=source, language=language, message=message)

    async def queue_process_conversation(
        self, *, message: Incoming, text: str, voice: bool = False, **options: Unpack[Options]
    ) -> JobId:
        """Work a customer's words into the conversation and answer them; see ProcessConversation."""
        return await self._queue("process-conversation", options, message=message, text=text, voice=voice)

    async def queue_vendor_notification(
        self,
        *,
        order_id: str,
        client_phone: str,
        total: Decimal,
        items: Sequence[OrderItem] = (),
        proof_url: str | None = None,
        currency: str | None = None,
        to: str | None = None,
        email: str | None = None,
        template: bool = False,
        **options: Unpack[Options],
    ) -> JobId:
        """Tell a vendor of a paid order; see SendVendor."""
        return await self._queue(
            "send-vendor",
            options,
            order_id=order_id,
            client_phone=client_phone,
            total=total,
            items=items,
            proof_url=proof_url,
            currency=currency,
            to=to,
            email=email,
            template=template,
        )

    async def queue_client_notification(
        self,
        *,
        to: str,
        text: str,
        audio: str | None = None,
        email: str | None = None,
        template: bool = False,
        **options: Unpack[Options],
    ) -> JobId:
        """Send a text to a customer; see SendClient."""
        return await self._queue(
            "send-client", options, to=to, text=text, audio=audio, email=email, template=template
        )

    async def queue_fallback_notification(
        self,
        *,
        to: str,
        text: str,
        subject: str | None = None,
        media_url: str | None = None,
        email: str | None = None,
        job: str | None = None,
        reason: str | None = None,
        **options: Unpack[Options],
    ) -> JobId:
        """Say by another channel what could not be said over WhatsApp; see Fallback."""
        about = {"media_url": media_url, "email": email, "job": job, "reason": reason}
        return await self._queue("fallback", options, to=to, text=text, subject=subject, **about)

    async def queue_cleanup(
        self,
        task: CleanupTask,
        *,
        days: float | None = None,
        dry_run: bool = False,
        day: str | None = None,
        **options: Unpack[Options],
    ) -> JobId:
        """Run one of the chores now: `days` and `dry_run` are of those that delete (see Prune), which with a
        `tenant` delete what is that tenant's alone; `day` is of stats (see CollectStatistics)."""
        given = _given({"days": days, "dry_run": dry_run, "day": day})
        stage = self._broker.pipeline.find("cleanup", task)
        if options.get("tenant") and "tenant" in fields_of(stage):
            given["tenant"] = options["tenant"]
        check_fields(stage, given)
        return await self._queue(task, options, **given)

    async def queue_sync(
        self,
        task: SyncTask,
        *,
        full: bool = False,
        kind: Literal["products", "orders"] | None = None,
        id: int | None = None,  # noqa: A002 - the field's name
        note: str | None = None,
        status: str | None = None,
        only: Sequence[str] = (),
        **options: Unpack[Options],
    ) -> JobId:
        """Ask the shop of a `tenant`, or tell it something: pull its products or orders, with `full` all of them
        (see Pull); look at the record that `changed` (`kind` and `id`, see Changed); `push-order` a `note` or a
        `status` to an order (see PushOrder)."""
        given = _given({"full": full, "kind": kind, "id": id, "note": note, "status": status})
        given |= {"only": only} if only else {}
        check_fields(self._broker.pipeline.find("sync", task), given)
        return await self._queue(task, options, **given)

    async def get_job(self, job: JobId | str) -> JobView:
        """A job as it is now: its state, and how it ended.

        Raises JobUnknown where there is none, or it is finished and no longer remembered, BadJobId, UnknownStage
        and ServerUnavailable.
        """
        job_id = JobId.parse(job) if isinstance(job, str) else job
        view = await self._broker.look(job_id)
        if view is None:
            raise JobUnknown(f"no job {job_id}: it never was, or it is finished and no longer remembered")
        return view

    async def get_status(self) -> list[StageStatus]:
        """The depths of every stage at this moment. Raises ServerUnavailable."""
        return await self._broker.status()

    async def _queue(self, name: str, options: Options, **fields: object) -> JobId:
        _check(options)
        pipeline = self._broker.pipeline
        # Structs are not checked where they are made, so they go the way of what comes over HTTP.
        plain = msgspec.to_builtins(_given(fields), builtin_types=(Decimal,))
        payload = pipeline.payload(pipeline.stage(name), plain, options.get("tenant", ""))
        return await self._broker.enqueue(Job(stage=name, payload=payload, **options))


def check_fields(stage: Stage, given: Mapping[str, object]) -> None:
    """Raise BadPayload where the stage's payload has no such field: it would be overlooked, and a misspelt
    `dry_run` would delete."""
    known = fields_of(stage)
    for name in given:
        if name not in known:
            raise BadPayload(f"payload of {stage.full_name}: no field '{name[:80]}'{did_you_mean(name, known)}")


def fields_of(stage: Stage) -> list[str]:
    """The names of the fields of a stage's payload."""
    return [field.encode_name for field in msgspec.structs.fields(stage.payload)]


def _check(options: Options) -> None:
    """As they are checked over HTTP. Raises BadInput."""
    try:
        msgspec.convert(options, Options)
    except msgspec.ValidationError as error:
        raise BadInput(f"option of a job: {error}") from None


def _given(fields: Mapping[str, object]) -> dict[str, Any]:
    """Without what is as if it were missing."""
    return {name: value for name, value in fields.items() if value is not None and value is not False}
