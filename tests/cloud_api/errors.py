"""What Meta answers when it does not take a call: codes, HTTP statuses, and the form of the body."""

import secrets
from typing import NamedTuple

import msgspec

DOCUMENTATION = "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/"


class Known(NamedTuple):
    """One line of Meta's table of errors."""

    status: int
    title: str
    details: str


ERRORS = {
    0: Known(401, "AuthException", "The app user could not be authenticated"),
    1: Known(400, "API Unknown", "Invalid request or possible server error"),
    2: Known(503, "API Service", "Service temporarily unavailable"),
    3: Known(500, "API Method", "Capability or permissions issue"),
    4: Known(429, "Application request limit reached", "Too many calls by this app"),
    10: Known(403, "Permission Denied", "Permission is not granted or was removed"),
    33: Known(400, "Parameter value is not valid", "The business phone number has been deleted"),
    100: Known(400, "Invalid parameter", "A parameter is unsupported or misspelt"),
    190: Known(401, "Access token has expired", "The access token cannot be used"),
    200: Known(403, "API Permission", "Permission is not granted or was removed"),
    368: Known(403, "Temporarily blocked for policies violations", "The account violated a platform policy"),
    2500: Known(400, "Unknown path components", "There is nothing at this address"),
    80007: Known(429, "Rate limit issues", "The WhatsApp Business Account reached its rate limit"),
    130429: Known(429, "Rate limit hit", "Too many messages sent from this phone number in a short time"),
    130472: Known(400, "User's number is part of an experiment", "The message was not sent"),
    130497: Known(403, "Business account is restricted from messaging users in this country", "Restricted"),
    131000: Known(500, "Something went wrong", "The message failed for an unknown reason"),
    131005: Known(403, "Access denied", "Permission is not granted or was removed"),
    131008: Known(400, "Required parameter is missing", "A required parameter is missing"),
    131009: Known(400, "Parameter value is not valid", "A value is not one of those supported"),
    131016: Known(500, "Service unavailable", "A service is temporarily unavailable"),
    131021: Known(400, "Recipient cannot be sender", "Sender and recipient are the same number"),
    131026: Known(400, "Message undeliverable", "The recipient cannot be reached on WhatsApp"),
    131031: Known(403, "Account has been locked", "The account is restricted or disabled"),
    131037: Known(400, "Display name approval needed", "The number has no approved display name"),
    131042: Known(400, "Business eligibility payment issue", "There is a problem with the payment method"),
    131045: Known(500, "Incorrect certificate", "The phone number is not registered"),
    131047: Known(400, "Re-engagement message", "More than 24 hours since the recipient last replied"),
    131048: Known(429, "Spam rate limit hit", "Too many earlier messages were blocked or reported"),
    131049: Known(400, "Message not delivered", "Held back to maintain healthy engagement"),
    131050: Known(400, "User has stopped marketing messages", "The recipient opted out"),
    131051: Known(400, "Unsupported message type", "This type of message is not supported"),
    131053: Known(400, "Media upload error", "The media could not be used"),
    131056: Known(400, "(Business Account, Consumer Account) pair rate limit hit", "Too many to one recipient"),
    131057: Known(500, "Account in maintenance mode", "The account is being upgraded"),
    131062: Known(400, "Recipient not supported", "This message needs a phone number"),
    132000: Known(400, "Template Param Count Mismatch", "The number of parameters is not the template's"),
    132001: Known(404, "Template does not exist", "There is no such template in this language"),
    132018: Known(400, "There is an issue with the template's parameters", "A parameter cannot be used"),
    133004: Known(503, "Server temporarily unavailable", "The server is temporarily unavailable"),
    133010: Known(400, "Phone number not registered", "The phone number is not registered"),
    133016: Known(429, "Account register deregister rate limit exceeded", "Too many attempts"),
}


class MetaError(Exception):
    """A call that is not taken. `violation` says what the caller did wrong, empty where it did not.

    `message` goes in place of the code's own title, as in Meta's answers to tokens, which repeat them.
    """

    def __init__(
        self, code: int, details: str = "", *, subcode: int = 0, message: str = "", violation: str = ""
    ) -> None:
        known = ERRORS[code]
        self.code = code
        self.status = known.status
        self.details = details or known.details
        self.message = message or f"(#{code}) {known.title}"
        self.subcode = subcode
        self.violation = violation
        super().__init__(self.details)

    def body(self) -> bytes:
        """The answer, in Meta's form."""
        content = {
            "message": self.message,
            "type": "GraphMethodException" if self.subcode else "OAuthException",
            "code": self.code,
            "error_data": {"messaging_product": "whatsapp", "details": self.details},
            "fbtrace_id": "A" + secrets.token_urlsafe(16),
        }
        return msgspec.json.encode({"error": content | ({"error_subcode": self.subcode} if self.subcode else {})})


def in_status(code: int) -> dict[str, object]:
    """The same error as a status webhook tells it."""
    title = ERRORS[code].title
    details = {"details": ERRORS[code].details}
    return {"code": code, "title": title, "message": title, "error_data": details, "href": DOCUMENTATION}
