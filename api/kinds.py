"""What may be posted, by kind: types made of those of the stages' payloads, for the document."""

from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, Union

import msgspec

from api.operations import Body, Either
from pipeline import Stage
from pipeline.stage import LONGEST_DELAY

Delay = Annotated[float, msgspec.Meta(ge=0, le=LONGEST_DELAY)]
TENANT = "106540352242922"  # as one is called that has a number at WhatsApp and nothing of its own
# Payloads by kind, as examples.
EXAMPLES: dict[str, Any] = {
    "transcribe": {"source": "https://shop.example/notes/1042.ogg", "language": "pt"},
    "process-conversation": {
        "message": {"chat": "5511987654321", "id": "wamid.1", "sent_ms": 1_795_369_433_000},
        "text": "Boa noite!",
    },
    "send-client": {"to": "5511987654321", "text": "Olá!"},
    "send-vendor": {
        "order_id": "1042",
        "to": "+5511987654321",
        "client_phone": "+5511912345678",
        "total": "162.00",
        "items": [{"name": "Pizza grande", "quantity": 2, "price": "81.00"}],
    },
    "tts-cache": {"days": 7, "dry_run": True},
    "stats": {"day": "2026-11-20"},
    "products": {"full": True},
    "changed": {"kind": "orders", "id": 727},
    "push-order": {"id": 727, "note": "Comprovante por WhatsApp", "status": "on-hold"},
    "proof": {"order": 727, "chat": "5511987654321", "attachment": {"source": "whatsapp:1234", "kind": "image"}},
}


def body_of(request: type[msgspec.Struct], stages: Sequence[Stage], most: int) -> Body:
    """What may be posted to a queue of these stages: a `request`, or a list of up to `most`, told apart by their
    kinds."""
    job: Any = Union[tuple(job_type(request, stage) for stage in stages)]  # noqa: UP007 - as many as there are
    jobs = Annotated[list[job], msgspec.Meta(min_length=1, max_length=most)]
    examples: dict[str, Any] = {
        stage.name: {"kind": stage.name, "tenant": TENANT, "payload": EXAMPLES[stage.name]}
        for stage in stages
        if stage.name in EXAMPLES
    }
    return Body(form=Either((job, jobs)), examples=examples)


def job_type(request: type[msgspec.Struct], stage: Stage) -> type[msgspec.Struct]:
    """A request as it is for a stage: its kind says which, and its payload is the stage's."""
    name = "".join(part.capitalize() for part in stage.name.split("-"))
    fields: list[Any] = [("payload", stage.payload), *_optional(request)]
    about = {"__doc__": f"A job for {stage.full_name}. {request.__doc__}", "__module__": __name__}
    return msgspec.defstruct(
        f"{name}Job", fields, tag_field="kind", tag=stage.name, forbid_unknown_fields=True, namespace=about
    )


def _optional(form: type[msgspec.Struct]) -> list[tuple[str, Any, Any]]:
    bounded = {"delay": Delay}  # the pipeline looks at it, so that of a list only that job is refused
    fields = [field for field in msgspec.structs.fields(form) if not field.required]
    return [(field.name, bounded.get(field.name, field.type), field.default) for field in fields]


def task_of(stage: Stage) -> Body:
    """What may be posted to have one of the chores done: a payload, if any."""
    examples = {stage.name: EXAMPLES[stage.name]} if stage.name in EXAMPLES else {}
    return Body(form=strict(stage.payload), examples=examples, required=False)


@cache
def strict(payload: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """A payload that takes no other fields, as `clean_up` does."""
    about = {"__doc__": payload.__doc__, "__module__": __name__}
    return msgspec.defstruct(
        f"{payload.__name__}Now", [], bases=(payload,), frozen=True, forbid_unknown_fields=True, namespace=about
    )
