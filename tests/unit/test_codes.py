"""What becomes of Meta's error codes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.notification.codes import TEXT_LIMIT, error_of, shown
from stages.notification.errors import NotSent, OutsideWindow, RateLimited, Refused, Retryable, SenderPaused

pytestmark = pytest.mark.unit

TOKEN = "EAAGm0PX4ZCpsBA0kZD"
CODES: dict[type[NotSent], list[int]] = {
    Retryable: [1, 2, 4, 131000, 131016, 131057, 133004, 133016],
    RateLimited: [80007, 130429, 131056],
    OutsideWindow: [131047],
    SenderPaused: [0, 3, 10, 33, 190, 200, 250, 299, 368, 131005, 131031, 131037, 131042, 131045, 131048, 133010],
    Refused: [
        100,
        300,
        130472,
        130497,
        *range(131049, 131054),
        131008,
        131009,
        131021,
        131026,
        131030,
        131062,
        132000,
        132001,
        132005,
        132007,
        132012,
        132015,
        132016,
        132068,
        135000,
        999_999,
    ],
}


@pytest.mark.parametrize(("kind", "code"), [(kind, code) for kind, codes in CODES.items() for code in codes])
@pytest.mark.parametrize("status", [0, 400])
def test_the_code_decides(kind: type[NotSent], code: int, status: int) -> None:
    error = error_of(code, status, "Title: details")
    assert type(error) is kind
    assert error.code == code
    assert str(error) == f"WhatsApp's error {code}: Title: details"


@pytest.mark.parametrize("code", [131026, 131047, 132001, 100, 190, 3])
def test_a_known_code_decides_whatever_the_status(code: int) -> None:
    assert type(error_of(code, 500, "")) is type(error_of(code, 400, ""))


def test_an_unknown_code_is_retryable_where_the_server_failed() -> None:
    assert type(error_of(999_999, 500, "")) is Retryable


def test_only_the_limit_of_a_pair_is_the_recipients() -> None:
    errors = [error_of(code, 429, "") for code in (80007, 130429, 131056)]
    assert [isinstance(error, RateLimited) and error.pair for error in errors] == [False, False, True]


def test_an_unknown_phone_number_id_is_a_matter_of_the_sender() -> None:
    assert type(error_of(100, 400, "Object does not exist", subcode=33)) is SenderPaused
    assert type(error_of(100, 400, "Invalid parameter", subcode=2494010)) is Refused


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (0, Refused),
        (301, SenderPaused),
        (400, Refused),
        (401, SenderPaused),
        (403, SenderPaused),
        (404, Refused),
        (408, Retryable),
        (413, Refused),
        (429, RateLimited),
        (500, Retryable),
        (503, Retryable),
    ],
)
def test_without_a_code_the_status_decides(status: int, kind: type[NotSent]) -> None:
    error = error_of(None, status, "reason")
    assert type(error) is kind
    assert error.code is None
    assert str(error) == (f"WhatsApp answered {status}: reason" if status else "reason")


@given(st.one_of(st.none(), st.integers()), st.integers(0, 599), st.text(), st.one_of(st.none(), st.integers()))
def test_every_code_and_status_is_some_error(
    code: int | None, status: int, detail: str, subcode: int | None
) -> None:
    error = error_of(code, status, detail, subcode=subcode)
    assert error.code == code
    assert len(str(error)) <= TEXT_LIMIT


@given(st.text(max_size=400), st.text(max_size=400))
def test_no_token_is_shown(before: str, after: str) -> None:
    for text in (shown(f"{before}{TOKEN} {after}"), shown(f"{before}a secret{after}", "a secret")):
        assert TOKEN not in text
        assert "a secret" not in text
        assert len(text) <= TEXT_LIMIT


def test_an_errors_text_is_one_line_in_which_no_token_is_left_in_part() -> None:
    assert shown(f"bad\n\ttoken {TOKEN}") == "bad token ***"
    assert shown("x" * 290 + TOKEN * 3) == "x" * 290 + "***"
    assert shown("x" * 290 + "0123456789secret", "0123456789secret") == "x" * 290 + "***"
    assert (
        str(error_of(190, 401, f"Malformed access token {TOKEN}"))
        == "WhatsApp's error 190: Malformed access token ***"
    )
