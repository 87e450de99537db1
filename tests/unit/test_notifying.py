"""Settings of notifications that do not go together end a start, saying which and what to do."""

from typing import Any

import pytest

from api.adapters import Adapters
from api.notifying import sender_of, sends_by_whatsapp
from config import Settings, load
from pipeline import RiachoError
from pipeline.errors import BadPayload

pytestmark = pytest.mark.unit

TOKEN = "EAAJ-common"


def settings(**environ: str) -> Settings:
    return load(environ={f"RIACHO_{name}": value for name, value in environ.items()})


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"NOTIFICATION_CHANNEL": "whatsapp"}, "there is no access token: set RIACHO_WHATSAPP_ACCESS_TOKEN"),
        ({"NOTIFICATION_REGION": "BRA"}, "notification.region = 'BRA' is no region"),
        ({"NOTIFICATION_VENDORS": '{"shop": "12"}'}, "notification.vendors of 'shop': '12' is too short"),
        ({"ALERTS_TO": "12"}, "alerts.to: one of its entries is no phone number"),
        (
            {"ALERTS_TO": "+5511987654321", "WHATSAPP_ACCESS_TOKEN": TOKEN},
            "there is none to send from: set whatsapp.phone_number_id",
        ),
        ({"ALERTS_TO": "ops@shop.example"}, "there is no mail server: set email.host"),
        ({"ALERTS_TO": "https://hooks.example/x"}, "fallback.secret"),
        ({"FALLBACK_URL": "https://hooks.example/x"}, "fallback.secret"),
        ({"EMAIL_HOST": "mail.example"}, "email.sender"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_remedy(environ: dict[str, str], said: str) -> None:
    with pytest.raises(RiachoError) as raised:
        Adapters(settings(**environ)).pipeline()
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("environ", "by_whatsapp"),
    [
        ({}, False),
        ({"WHATSAPP_ACCESS_TOKEN": TOKEN}, True),
        ({"WHATSAPP_SENDERS": '{"shop": {"access_token": "EAAJ-own"}}'}, True),
        ({"WHATSAPP_ACCESS_TOKEN": TOKEN, "NOTIFICATION_CHANNEL": "outbox"}, False),
        ({"WHATSAPP_ACCESS_TOKEN": TOKEN, "NOTIFICATION_CHANNEL": "whatsapp"}, True),
    ],
)
def test_messages_go_out_for_real_where_there_is_a_token(environ: dict[str, str], by_whatsapp: bool) -> None:
    assert sends_by_whatsapp(settings(**environ)) is by_whatsapp


def test_a_tenant_sends_with_what_it_has_of_its_own_and_else_as_all_do() -> None:
    own = '{"shop": {"phone_number_id": "77", "access_token": "EAAJ-own", "template": "ours"}}'
    whatsapp = settings(WHATSAPP_ACCESS_TOKEN=TOKEN, WHATSAPP_PHONE_NUMBER_ID="1", WHATSAPP_SENDERS=own).whatsapp
    shop, other, nobody = (sender_of(whatsapp, tenant) for tenant in ("shop", "55", ""))
    assert (shop.phone_number_id, shop.token, shop.template) == ("77", "EAAJ-own", "ours")
    assert (shop.url, shop.version, shop.template_language) == ("https://graph.facebook.com", "v26.0", "pt_BR")
    assert (other.phone_number_id, other.token, other.template) == ("55", TOKEN, "")
    assert nobody.phone_number_id == "1"


def test_a_job_has_the_time_of_both_its_calls_and_the_log() -> None:
    slow = settings(WHATSAPP_ACCESS_TOKEN=TOKEN, WHATSAPP_TIMEOUT="60")
    stages = Adapters(slow).pipeline().queue("notification")
    assert all(stage.timeout >= 2 * 60 + 30 for stage in stages if stage.name != "receipt")


@pytest.mark.parametrize(("tenant", "taken"), [("1065", True), ("shop", True), ("pizzaria", False), ("", False)])
def test_a_tenant_without_a_number_is_refused_where_messages_go_out_for_real(tenant: str, taken: bool) -> None:
    own = '{"shop": {"phone_number_id": "77"}}'
    for_real = Adapters(settings(WHATSAPP_ACCESS_TOKEN=TOKEN, WHATSAPP_SENDERS=own)).pipeline()
    message = {"to": "+5511987654321", "text": "Olá"}
    if taken:
        for_real.payload(for_real.stage("send-client"), message, tenant)
    else:
        with pytest.raises(BadPayload, match="has no WhatsApp number: name the tenant by its phone number id"):
            for_real.payload(for_real.stage("send-client"), message, tenant)
    to_outbox = Adapters(settings()).pipeline()
    to_outbox.payload(to_outbox.stage("send-client"), message, tenant)


def test_a_bad_setting_beside_a_token_does_not_show_it() -> None:
    senders: dict[str, Any] = {"WHATSAPP_SENDERS": '{"shop": {"access_token": "EAAJ-own", "tmplate": "x"}}'}
    with pytest.raises(Exception, match="tmplate") as raised:
        settings(**senders)
    assert "EAAJ-own" not in str(raised.value)
