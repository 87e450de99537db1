"""The answers, in the form that Meta gives them, and what is worse than one."""

import base64
import secrets
import socket
import struct

import msgspec
from aiohttp import web

from tests.cloud_api.errors import MetaError
from tests.cloud_api.payloads import Message

_LINGER = struct.pack("ii", 1, 0)  # closing the socket resets the connection


def json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """JSON that is encoded already."""
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


def refusal(error: MetaError) -> web.Response:
    """A call was not taken."""
    headers = {}
    if error.code == 190:  # Meta repeats the token here as well
        headers["WWW-Authenticate"] = f'OAuth "Facebook Platform" "invalid_token" "{error.message}"'
    return json(error.body(), error.status, headers)


def success(message: Message, wamid: str) -> web.Response:
    """A message was accepted under an id."""
    name = "wa_id" if message.to else "user_id"
    answer = {
        "messaging_product": "whatsapp",
        "contacts": [{"input": message.input, name: message.address}],
        "messages": [{"id": wamid, "message_status": "accepted"}],
    }
    return json(msgspec.json.encode(answer))


def wamid(recipient: str) -> str:
    """A new message id."""
    content = recipient.encode() + secrets.token_bytes(12)
    return "wamid.HBg" + base64.b64encode(content).decode()


def reset(request: web.BaseRequest) -> None:
    """Have the kernel answer with a reset instead of an orderly end."""
    transport = request.transport
    if transport:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
        transport.abort()
