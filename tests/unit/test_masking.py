"""Masking: what is never to be read in a log, and what has to stay readable there."""

import base64
import re
import time
import uuid

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline import masking
from pipeline.masking import masked

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("knowing_no_secrets")]

# Without a to f: digits with such directly beside them may be part of a hash.
WORDS = st.text(alphabet="lmnxyzáéõ ,:;=<>[]{}'\"!?\n\t/\\", max_size=30)
DIGITS = "0123456789"
BETWEEN = st.sampled_from(["", " ", "-", "\u00a0", "\u2011", "%20", "  ", " - "])


@st.composite
def phones(draw: st.DrawFn) -> tuple[str, str]:
    """A phone number of 10 to 13 digits with its country's, as people write it; and its digits."""
    country = draw(st.sampled_from(["55", "1", "351", "34", "44", "49", "549"]))
    length = 11 if country == "1" else draw(st.integers(10, 13))
    digits = country + draw(st.text(DIGITS, min_size=length - len(country), max_size=length - len(country)))
    places = sorted(draw(st.sets(st.integers(1, length - 2), max_size=4)))
    first, *parts = [digits[start:end] for start, end in zip([0, *places], [*places, None], strict=True)]
    written = first
    for index, part in enumerate(parts):
        brackets = index == 0 and len(parts) > 1 and draw(st.booleans())
        written += f" ({part}) " if brackets else draw(BETWEEN) + part
    return draw(st.sampled_from(["", "+", "00"])) + written, digits


def longest_run(digits: str, text: str) -> int:
    """How many of a number's digits, one after the other, a text still has."""
    plain = re.sub(r"\D", "", re.sub(r"%[0-9A-F]{2}", "", text))
    return max((size for size in range(len(digits) + 1) if digits[-size:] in plain and size), default=0)


@given(phones(), WORDS, WORDS)
@example(("5511987654321", "5511987654321"), "liga\\n", "")
@example(("55 1698765432", "551698765432"), "", "")
@example(("(11) 91234-5678", "11912345678"), "x", "x")
@example(("\uff0b55 11 98765\u20114321", "5511987654321"), "", "")
@example(("55\\xa011\\xa0987654321", "5511987654321"), "", "")
def test_phone_numbers_are_masked_but_for_two_digits(phone: tuple[str, str], before: str, after: str) -> None:
    written, digits = phone
    shown = masked(f"{before}{written}{after}")
    assert longest_run(digits, shown) <= 2
    assert f"***{digits[-2:]}" in shown


@st.composite
def readable(draw: st.DrawFn) -> str:
    """What an operator has to be able to read."""
    ms = draw(st.integers(1_600_000_000_000, 1_999_999_999_999))
    at = time.gmtime(ms / 1000)
    seq, size = draw(st.integers(0, 99_999)), draw(st.integers(0, 10**12))
    number = uuid.UUID(int=draw(st.integers(0, 2**128 - 1)))
    hashed = draw(
        st.sampled_from([16, 32, 40, 64]).flatmap(
            lambda size: st.text("0123456789abcdef", min_size=size, max_size=size)
        )
    )
    return draw(
        st.sampled_from(
            [
                f"transcribe.0.{ms}-{seq}",
                f"process-conversation.12.{ms}-{seq}",
                f"{ms}-{seq}",
                f"{ms}",
                f"{ms // 1000}",
                f"{ms / 1000:.3f}",
                time.strftime("%Y-%m-%dT%H:%M:%S", at) + f".{ms % 1000:03}Z",
                time.strftime("%Y-%m-%d %H:%M:%S", at) + f",{ms % 1000:03}",
                time.strftime("%H:%M:%S", at),
                time.strftime("%Y%m%d%H%M%S", at),
                f"127.0.0.1:{size % 65536}",
                f"{size:,}",
                f"{size} bytes",
                f"{size % 10**9}",
                f"{size / 10**13}",
                str(number),
                hashed,
                f"00-{number.hex}-{hashed[:16]}-01",
                "106540352242922",
                f"shop-host.{seq}",
            ]
        )
    )


@given(st.lists(readable(), min_size=1, max_size=4), st.sampled_from([" took ", ", ", ": ", " of '", "\n", "="]))
def test_what_operators_go_by_stays_readable(things: list[str], between: str) -> None:
    text = between.join(["job", *things, "end"])
    assert masked(text) == text


@given(readable(), phones(), st.sampled_from([": ", ", ", " to ", " = '"]))
def test_beside_what_is_readable_a_phone_number_is_masked(
    thing: str, phone: tuple[str, str], between: str
) -> None:
    shown = masked(f"{thing}{between}{phone[0]}")
    assert shown == f"{thing}{between}***{phone[1][-2:]}"


@given(
    st.text(min_size=6, max_size=40).filter(lambda secret: "*" not in secret),
    WORDS,
    st.sampled_from(["{}", "x={}&", "'{}'", "redis://:{}@host/0"]),
)
def test_a_secret_it_knows_does_not_show(secret: str, before: str, form: str) -> None:
    masking._known = masking._Known()
    masking.know([secret])
    assert secret not in masked(before + form.format(secret))


@pytest.mark.parametrize(
    "form", ["tok+en/Zq9=one", "tok%2Ben%2FZq9%3Done", "tok%2ben%2fZq9%3done", "tok%2Ben/Zq9%3Done"]
)
def test_a_secret_is_known_again_as_it_stands_in_an_address(form: str) -> None:
    masking.know(["tok+en/Zq9=one"])
    assert masked(f"GET /x?t={form} failed") == "GET /x?t=*** failed"


def test_a_secret_is_known_again_in_json_and_repr() -> None:
    secret = 'pa"ss\\wörd'
    masking.know([secret, "short"])
    assert masked(f"{secret!r} short") == "'***' short"
    assert masked('{"x": "pa\\"ss\\\\w\\u00f6rd"}') == '{"x": "***"}'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://user:p@ss@host:6379/0", "redis://user:***@host:6379/0"),
        ("rediss://:pw@host", "rediss://***@host"),
        ("https://token@host/x", "https://***@host/x"),
        ("no login: http://127.0.0.1:8080/x", "no login: http://127.0.0.1:8080/x"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***"),
        ("authorization: Basic dXNlcjpwYXNz", "authorization: Basic ***"),
        ("{'Authorization': 'Bearer abc'}", "{'Authorization': '***'}"),
        ("bearer abc", "bearer ***"),
        ("?access_token=EAAGm0PX4ZCps&x=1", "?access_token=***&x=1"),
        ("RIACHO_WHATSAPP_VERIFY_TOKEN=abc x", "RIACHO_WHATSAPP_VERIFY_TOKEN=*** x"),
        ('{"api_key": "a b"}', '{"api_key": "***"}'),
        ('{\\"password\\": \\"a b\\"}', '{\\"password\\": \\"***\\"}'),
        ("X-Amz-Signature=0123abcd&", "X-Amz-Signature=***&"),
        ("key=riacho_" + "aB3-" * 10, "key=***"),
        ("EAAGm0PX4ZCpsBA is wrong", "*** is wrong"),
        (
            "riacho_stage_oldest_waiting_seconds_bucket_of_stages",
            "riacho_stage_oldest_waiting_seconds_bucket_of_stages",
        ),
        ("to joao.silva+x@shop.example.", "to ***@shop.example."),
        ("'o'neill@x.com', to=maria@x.com.br", "'***@x.com', to=***@x.com.br"),
        ("5511987654321@s.whatsapp.net", "***@s.whatsapp.net"),
        ("tel:+1-415-555-0123", "tel:***23"),
        ("[5511987654321, 5511987654322]", "[***21, ***22]"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


@given(st.text(DIGITS, min_size=8, max_size=15), st.binary(min_size=8, max_size=20))
def test_an_id_of_whatsapp_does_not_tell_the_number_in_it(number: str, rest: bytes) -> None:
    inside = b"\x1d\x03\x17" + number.encode() + b"\x15\x02" + rest
    wamid = f"wamid.{base64.b64encode(inside).decode()}"
    shown = masked(f"sent {wamid}, and {wamid}")
    assert re.fullmatch(r"sent (wamid\.#[0-9a-f]{8}), and \1", shown)


@given(st.text(max_size=200) | st.lists(readable() | phones().map(lambda phone: phone[0]) | WORDS).map(" ".join))
def test_masking_twice_is_masking_once(text: str) -> None:
    once = masked(text)
    assert masked(once) == once


@pytest.mark.parametrize(
    "part",
    ["a", "1", "1 ", "1(", "a'", "a.b@", "a@b.", "http://", "token", "bearer ", "wamid.", "riacho_", "EAA", "0.",
     "%20", "ab1-", "2026-11-23 ", "1795363715263 ", "deadbeef-", "token='", "+", "1,111", "\\u201"],
)  # fmt: skip
def test_no_text_keeps_it_busy_for_long(part: str) -> None:
    text = part * (masking.MOST // len(part))
    started = time.process_time()
    masked(text)
    assert time.process_time() - started < 1


def test_of_a_text_that_is_too_long_the_end_is_left_out_with_what_may_be_half_a_secret() -> None:
    masking.know(["hush-hush-hush"])
    for length in range(masking.MOST - 14, masking.MOST + 1):
        shown = masked("x" * length + "hush-hush-hush")
        assert "hush" not in shown
        assert len(shown) <= masking.MOST
