"""What WhatsApp's error codes come to, in answers and in status webhooks alike.

Meta lists them (developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes) and has one
decide on `code`, not on titles. Codes that are not here are about the message, and refused.
"""

import re

from stages.notification.errors import NotSent, OutsideWindow, RateLimited, Refused, Retryable, SenderPaused

TEXT_LIMIT = 300  # characters of an error's text

RETRYABLE = {
    1,  # unknown
    2,  # down, or overloaded
    4,  # too many calls of this app
    131000,  # something went wrong
    131016,  # service unavailable
    131057,  # the account is in maintenance
    133004,  # server temporarily unavailable
    133016,  # registered and deregistered too often
}
NUMBER_LIMITS = {80007, 130429}
PAIR_LIMIT = 131056
OUTSIDE_WINDOW = 131047
PAUSED = {
    0,  # the token is not valid (any more)
    3,  # nor allowed to do this
    10,
    33,  # the phone number was deleted
    190,  # the token has expired
    *range(200, 300),  # permission not granted, or withdrawn
    368,  # blocked for a violation of policies
    131005,  # access denied
    131031,  # account locked
    131037,  # the number's display name is not approved
    131042,  # payment
    131045,  # the number is not registered
    131048,  # too much taken for spam
    133010,  # the number is not registered
}
# Beside code 100 (invalid parameter): there is no such phone number id, or this token may not use it.
INVALID_PARAMETER, NO_SUCH_OBJECT = 100, 33

_TOKEN = re.compile(r"EAA[\w-]{6,}", re.ASCII)  # how Meta's access tokens begin


def error_of(code: int | None, status: int, detail: str, *, subcode: int | None = None) -> NotSent:
    """The error to raise for Meta's `code`, or where there is none for the HTTP status (0: a webhook has none).

    `detail` is Meta's text for it; secrets the caller knows of are already `***` in it.
    """
    if code is None:
        return _kind_of_status(status)(shown(f"WhatsApp answered {status}: {detail}" if status else detail))
    text = shown(f"WhatsApp's error {code}: {detail}")
    if code in NUMBER_LIMITS or code == PAIR_LIMIT:
        return RateLimited(text, code, pair=code == PAIR_LIMIT)
    if (code, subcode) == (INVALID_PARAMETER, NO_SUCH_OBJECT):
        return SenderPaused(text, code)
    return _kind_of_code(code, status)(text, code)


def _kind_of_code(code: int, status: int) -> type[NotSent]:
    if code == OUTSIDE_WINDOW:
        return OutsideWindow
    if code in PAUSED:
        return SenderPaused
    return Retryable if code in RETRYABLE or (status >= 500 and not _about_the_message(code)) else Refused


def _about_the_message(code: int) -> bool:
    """Meta answers some of these with 500, though another try would end the same way."""
    return code == INVALID_PARAMETER or 130_000 <= code < 140_000


def _kind_of_status(status: int) -> type[NotSent]:
    if status == 429:
        return RateLimited
    if status in (401, 403) or 300 <= status < 400:  # a redirection: whatsapp.graph_url is not the Graph API's
        return SenderPaused
    return Retryable if status in (408, 425) or status >= 500 else Refused


def shown(text: str, *secrets: str) -> str:
    """A text from outside, fit for a log: one line of at most TEXT_LIMIT characters, secrets replaced by `***`."""
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    line = " ".join(_TOKEN.sub("***", text).split())
    return line if len(line) <= TEXT_LIMIT else line[: TEXT_LIMIT - 1] + "…"
