"""Messages as WhatsApp brings them: events, signed, to the webhook."""

import aiohttp
import msgspec

from api.demo import Said, event
from api.signatures import sign

SECRET = "benchmark"  # noqa: S105 - of a service on loopback that ends with the run
TEXT = "Olá, quanto custa?"


async def post(http: aiohttp.ClientSession, said: Said) -> None:
    """Bring one, and wait for the answer. Raises aiohttp.ClientError where it is not 200."""
    body = msgspec.json.encode(event(said))
    headers = {"X-Hub-Signature-256": sign(body, SECRET)}
    async with http.post("/webhooks/whatsapp", data=body, headers=headers) as answer:
        answer.raise_for_status()
