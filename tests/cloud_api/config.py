"""What a stand-in is told: whom it knows, its limits, and how it fails."""

from typing import Annotated

import msgspec

NUMBER = "106540352242922"
TOKEN = "EAAJ0standin0token0of0the0first0number0ZDZD"

BSUID = r"^[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}\Z"  # a business-scoped user id: BR.13491208655302741918

# An error of `errors.ERRORS` by its code, or
# pass          nothing goes wrong this time (in a script)
# http-500      a page that is no JSON, as Meta's edge writes it
# http-503      the same, empty
# reset         the connection is reset before the message is looked at
# reset-after   the message goes out, then the connection is reset
# late          the message goes out, and the answer comes after Config.late
Fault = Annotated[str, msgspec.Meta(pattern=r"^(pass|http-500|http-503|reset|reset-after|late|[0-9]+)\Z")]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Code = int


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class Template(_Part, frozen=True):
    """An approved template, by the languages it has and the number of its body's parameters."""

    languages: tuple[str, ...] = ("pt_BR",)
    parameters: int = 1


class Statuses(_Part, frozen=True):
    """How the webhook at `url` is told, signed with `app_secret`; no url: not at all.

    Each status comes `delay` seconds after the message at the earliest, and up to `spread` later: statuses of a
    message overtake each other by as much. `read` is the share of messages that are read, or played.
    `twice` is the share of statuses that come again. What is due goes out every `batch` seconds, in events of at
    most `most`; `shuffle` mixes them. An event that is not answered with 200 comes again after `again` seconds.
    """

    url: str = ""
    app_secret: str = "app-secret"
    read: Share = 0.0
    delay: Seconds = 0.0
    spread: Seconds = 0.0
    shuffle: bool = False
    twice: Share = 0.0
    batch: Annotated[float, msgspec.Meta(gt=0)] = 0.05
    most: Annotated[int, msgspec.Meta(ge=1)] = 100
    again: Annotated[float, msgspec.Meta(gt=0)] = 0.2
    timeout: Annotated[float, msgspec.Meta(gt=0)] = 5.0


class Config(_Part, frozen=True):
    """All of it; the defaults are Meta's limits, one number, and no faults.

    `numbers` are the tokens by phone number id. `templates` by name; empty: any is approved. `outside_window` are
    recipients whom only a template reaches, `refused` those who get nothing, with the code (131026); with `later`
    both are accepted and then fail by a status, as they mostly do at Meta. `paused` are numbers that may not send,
    with the code. Recipients are written in digits alone, or as business-scoped user ids.

    `faults` are shares of all messages; which ones are hit follows from `seed`, the recipient, the words and how
    often they came, not from the order of arrival, nor from the callback data, which differs from run to run. A
    message is hit at most `in_a_row` times before it gets through; 0: there is no bound. `scripted` are the faults
    of a recipient's next calls (of uploads: under "media"); these go first. Each answer takes `latency` seconds
    and up to `jitter` more.
    """

    numbers: dict[str, str] = msgspec.field(default_factory=lambda: {NUMBER: TOKEN})
    versions: tuple[str, ...] = ("v24.0", "v25.0", "v26.0")
    templates: dict[str, Template] = {}
    per_second: Annotated[int, msgspec.Meta(ge=1)] = 80
    pair_burst: Annotated[int, msgspec.Meta(ge=1)] = 45
    pair_every: Annotated[float, msgspec.Meta(gt=0)] = 6.0
    outside_window: frozenset[str] = frozenset()
    refused: dict[str, Code] = {}
    later: bool = False
    paused: dict[str, Code] = {}
    faults: dict[Fault, Share] = {}
    scripted: dict[str, tuple[Fault, ...]] = {}
    in_a_row: Annotated[int, msgspec.Meta(ge=0)] = 0
    seed: int = 0
    late: Seconds = 60.0
    latency: Seconds = 0.0
    jitter: Seconds = 0.0
    statuses: Statuses = Statuses()
