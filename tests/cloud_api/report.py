"""What a stand-in saw, for a test to look at: the messages that went out, and every call that broke the rules."""

from collections import Counter

import aiohttp
import msgspec

PATH = "/_stand-in/report"
PAGE = 5_000
_SHOWN = 20


class Accepted(msgspec.Struct, frozen=True, array_like=True):
    """A message that went out, whether or not its sender was told.

    `recipient` in digits, or a business-scoped user id; `text` what it reads; `job` is the callback data; `at_ms`
    when the call arrived, since the epoch; `failure` the code of the status that it failed by later, else 0.
    """

    number: str
    recipient: str
    type: str
    text: str
    job: str
    id: str
    at_ms: int
    failure: int = 0


class Report(msgspec.Struct):
    """`answers` counts the calls by what they ended in: 'accepted', 'uploaded', an error's code, or a fault's name
    (for reset-after and late beside 'accepted'). `untold` statuses are yet to be taken by the webhook, `told` ones
    were; `refusals` are the times that it did not take an event."""

    messages: list[Accepted]
    violations: list[str]
    answers: dict[str, int]
    untold: int = 0
    told: int = 0
    refusals: int = 0

    def delivered_to(self, recipient: str) -> list[Accepted]:
        """What went out to a recipient and did not fail."""
        return [message for message in self.messages if message.recipient == recipient and not message.failure]

    def sends(self) -> Counter[str]:
        """How often a message went out, and did not fail, for each callback data."""
        return Counter(message.job for message in self.messages if not message.failure)

    def assert_clean(self) -> None:
        """Fail if a call was malformed, over a limit, or to an address that is not there."""
        if self.violations:
            shown = "\n".join(self.violations[:_SHOWN])
            raise AssertionError(
                f"{len(self.violations)} calls that the Cloud API does not take, such as:\n{shown}"
            )


_decoder = msgspec.json.Decoder(Report)


async def fetch_report(session: aiohttp.ClientSession, url: str) -> Report:
    """The report of a stand-in that is another process."""
    whole = await _page(session, url, 0)
    while len(whole.messages) % PAGE == 0 and whole.messages:
        page = await _page(session, url, len(whole.messages))
        if not page.messages:
            break
        page.messages[:0] = whole.messages
        whole = page
    return whole


async def _page(session: aiohttp.ClientSession, url: str, offset: int) -> Report:
    async with session.get(f"{url}{PATH}", params={"offset": offset}) as answer:
        answer.raise_for_status()
        return _decoder.decode(await answer.read())
