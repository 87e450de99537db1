"""Asking twice for the same jobs: the header Idempotency-Key (draft-ietf-httpapi-idempotency-key-header).

The key makes dedup ids, so it is the stages that know a job again: two requests at a time come to one job, and
what was refused, or never came to be added, is added when it is asked for again. Beside that only a fingerprint of
the request is kept, so that a key used for something else is found out.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence

import msgspec
from aiohttp import web

from api.access import CALLER
from api.problems import Problem, read_body
from pipeline import Broker, Job
from pipeline.message import Added

HEADER = "Idempotency-Key"
REPLAYED = {"Idempotency-Replayed": "true"}
KEEP = 86_400.0  # seconds; a stage's dedup ids live longer
QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
KEY = re.compile(r"[ -~]{1,255}")


async def add_once(
    broker: Broker, request: web.Request, jobs: Mapping[int, Job]
) -> tuple[list[Added], dict[str, str]]:
    """Add the jobs of a request, by their place in it: an answer for each, and headers for them all.

    With the header Idempotency-Key each is added once, however often it is asked for; a job that has an id of its
    own is known by that. Raises Problem: 400 for a key that is none, 422 for one that was used for something else.
    """
    if HEADER not in request.headers:
        return await broker.add(list(jobs.values())), {}
    name = name_of(request.get(CALLER, ""), key_of(request.headers.getall(HEADER)))
    if not jobs:
        return [], {}
    fingerprint = digest(request.path.encode(), await read_body(request))
    known = await broker.first_asked(name, fingerprint, KEEP)
    if known not in ("", fingerprint):
        detail = f"This {HEADER} was used for another request within the last day; take a new one for each."
        raise Problem(422, "Unprocessable content", detail)
    added = await broker.add([_named(job, f"{name}:{place}") for place, job in jobs.items()])
    replayed = bool(known) and all(answer.duplicate for answer in added)
    return _as_first(list(jobs.values()), added), REPLAYED if replayed else {}


def key_of(offered: Sequence[str]) -> str:
    """The key in these headers, in quotes (as the draft has it) or without. Raises Problem."""
    key = offered[0].strip() if len(offered) == 1 else ""
    if quoted := QUOTED.fullmatch(key):
        key = re.sub(r'\\(["\\])', r"\1", quoted[1])
    if not KEY.fullmatch(key):
        shown = ", ".join(offered)[:80]
        detail = f"{HEADER} {shown!r} is no key: send one, of 1 to 255 printable ASCII characters, a UUID say."
        raise Problem(400, "Bad request", detail)
    return key


def name_of(caller: str, key: str) -> str:
    """What a caller's key is kept under: nobody finds another's by guessing, whatever is in the two."""
    return digest(caller.encode(), key.encode())


def digest(*parts: bytes) -> str:
    """A hash of parts, whose bounds count."""
    return hashlib.sha256(msgspec.msgpack.encode(parts)).hexdigest()[:40]


def _named(job: Job, name: str) -> Job:
    return job if job.dedup else msgspec.structs.replace(job, dedup=name)


def _as_first(jobs: Sequence[Job], added: Sequence[Added]) -> list[Added]:
    """The answers as they were, or would have been, the first time: with the key nobody sees a duplicate."""
    return [
        answer if job.dedup else answer._replace(duplicate=False) for job, answer in zip(jobs, added, strict=True)
    ]
