"""Where the service may listen without keys, and how keys are made."""

import hashlib
import json
import tomllib

import pytest

from api.access import Exposed, check_exposure, new_key
from config import load
from tests.commands import call
from tests.processes import environment

pytestmark = pytest.mark.unit

HASH = "0" * 64
KEYS = {"shop": {"hash": HASH, "scopes": ["read"]}}
OLD = json.dumps({"old": {"hash": HASH, "scopes": ["admin"]}})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_on_loopback_no_key_is_needed(host: str) -> None:
    check_exposure(load({"http": {"host": host}}, environ={}).http)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.7", "no-such-name.invalid", "bad..name"])  # noqa: S104
def test_elsewhere_the_service_does_not_start_without_a_key(host: str) -> None:
    with pytest.raises(Exposed, match="riacho key new"):
        check_exposure(load({"http": {"host": host}}, environ={}).http)
    check_exposure(load({"http": {"host": host, "keys": KEYS}}, environ={}).http)
    check_exposure(load({"http": {"host": host}}, environ={"RIACHO_HTTP_OPEN": "true"}).http)


@pytest.mark.parametrize("command", ["up", "api"])
def test_commands_refuse_to_be_open_to_the_network(command: str) -> None:
    ended = call(command, "--host", "0.0.0.0", env=environment(REDIS_URL="redis://127.0.0.1:1"))  # noqa: S104
    assert "http.host = '0.0.0.0' can be reached from other machines" in ended.refusal


def test_keys_are_random_and_long_enough() -> None:
    keys = {new_key()[0] for _ in range(100)}
    assert len(keys) == 100
    assert all(len(key.removeprefix("riacho_")) == 43 for key in keys)


def test_a_new_key_is_printed_with_lines_for_the_settings() -> None:
    env = environment(RIACHO_HTTP_KEYS=OLD)
    ended = call("key", "new", "shop", "--scopes", "read,enqueue", env=env)
    key, line, variable = ended.out.splitlines()
    assert key not in ended.err + line + variable
    hashed = hashlib.sha256(key.encode()).hexdigest()
    assert tomllib.loads(line) == {"shop": {"hash": hashed, "scopes": ["read", "enqueue"]}}
    name, _, value = variable.partition("=")
    keys = load(environ={name: value.strip("'")}).http.keys
    assert {name: (kept.hash, kept.scopes) for name, kept in keys.items()} == {
        "old": (HASH, ["admin"]),
        "shop": (hashed, ["read", "enqueue"]),
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shop", "--scopes", "reed"], "--scopes 'reed': read, enqueue or admin"),
        (["shop", "--scopes", ""], "--scopes '': read"),
        (["my shop"], "'my shop' is no name"),
        (["old"], "there is a key 'old'"),
    ],
)
def test_a_key_that_cannot_be_is_not_made(arguments: list[str], said: str) -> None:
    env = environment(RIACHO_HTTP_KEYS=OLD)
    ended = call("key", "new", *arguments, env=env)
    assert said in ended.refusal
    assert not ended.out


@pytest.mark.parametrize(
    "keys",
    [
        '{"shop": {"hash": "riacho_the-key-itself", "scopes": ["read"]}}',
        '{"shop": {"key": "riacho_the-key-itself", "scopes": ["read"]}}',
        '{"shop": "riacho_the-key-itself"}',
        '{"shop": {"hash": "riacho_the-key-itself"',
        '{"shop": {"hash": ["riacho_the-key-itself"], "scopes": []}}',
    ],
)
def test_a_key_in_place_of_its_hash_is_refused_and_not_shown(keys: str) -> None:
    refusal = call("key", "new", "other", env=environment(RIACHO_HTTP_KEYS=keys)).refusal
    assert refusal.startswith("setting http.keys: ")
    assert "the-key-itself" not in refusal


def test_one_key_under_two_names_is_refused_with_both() -> None:
    keys = json.dumps({name: {"hash": HASH, "scopes": ["read"]} for name in ("shop", "other")})
    refusal = call("key", "new", "third", env=environment(RIACHO_HTTP_KEYS=keys)).refusal
    assert "'shop' and 'other' are one key" in refusal
    assert HASH not in refusal
