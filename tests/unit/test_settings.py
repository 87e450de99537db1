"""Settings: which layer wins, what a mistake is answered with, what stays secret, what a child process gets."""

from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config import Secret, Settings, SettingsError, child_environment, load, replaced

pytestmark = pytest.mark.unit

SECRET = "s3cret-value"


def refusal(environ: dict[str, str], flags: dict[str, dict[str, Any]] | None = None) -> str:
    with pytest.raises(SettingsError) as refused:
        load(flags, environ=environ)
    return str(refused.value)


def file_with(folder: Path, content: str) -> dict[str, str]:
    path = folder / "riacho.toml"
    path.write_text(content, "utf-8")
    return {"RIACHO_CONFIG": str(path)}


def revealed(settings: Settings) -> dict[str, dict[str, Any]]:
    """Settings as plain values, to compare them: secrets are never equal."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(item) for item in value]
        return value.reveal() if isinstance(value, Secret) else value

    return {
        name: {key: plain(value) for key, value in msgspec.structs.asdict(section).items()}
        for name, section in msgspec.structs.asdict(settings).items()
    }


def test_without_anything_the_defaults_hold() -> None:
    loaded = load(environ={})
    assert loaded.http.port == 8080
    assert loaded.audio.cache == Path("~/.cache/riacho").expanduser()
    assert not loaded.redis.url


def test_each_layer_goes_over_the_one_below(tmp_path: Path) -> None:
    environ = file_with(tmp_path, "[http]\nport = 1\nhost = 'file'\npayload_limit = 7\n[log]\nlevel = 'error'\n")
    environ |= {"RIACHO_HTTP_PORT": "2", "RIACHO_HTTP_HOST": "environment"}
    loaded = load({"http": {"port": 3}}, environ=environ)
    assert (loaded.http.port, loaded.http.host, loaded.http.payload_limit) == (3, "environment", 7)
    assert loaded.log.level == "error"
    assert loaded.worker == load(environ={}).worker


def test_a_table_in_the_environment_is_json() -> None:
    environ = {"RIACHO_AUDIO_VOCABULARY": '{"shop": "Guaraná, coxinha"}', "RIACHO_AUDIO_VAD": "false"}
    audio = load(environ=environ).audio
    assert audio.vocabulary == {"shop": "Guaraná, coxinha"}
    assert audio.vad is False
    said = refusal({"RIACHO_AUDIO_VOCABULARY": "Guaraná"})
    assert "setting audio.vocabulary = 'Guaraná'" in said


def test_a_list_in_the_environment_is_separated_by_commas() -> None:
    assert load(environ={"RIACHO_AUDIO_ROOTS": "/a,/b c"}).audio.roots == [Path("/a"), Path("/b c")]
    assert load(environ={"RIACHO_AUDIO_ROOTS": ""}).audio.roots == []


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("[htpp]\nport = 1", "no section [htpp]; did you mean 'http'?"),
        ("[http]\nprot = 1", "no setting http.prot; did you mean 'port'?"),
        ("[zzz]", "no section [zzz]; known: alerts, audio, cleanup, conversation"),
        ("http = 1", "[http] is a section"),
        ("[http", "riacho.toml"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_the_file(tmp_path: Path, content: str, hint: str) -> None:
    environ = file_with(tmp_path, content)
    said = refusal(environ)
    assert hint in said
    assert environ["RIACHO_CONFIG"] in said


def test_a_file_that_is_missing_or_not_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "riacho.toml"
    assert f"configuration file {path}" in refusal({"RIACHO_CONFIG": str(path)})
    path.write_bytes(b"[log]\nlevel = '\xe9'")
    assert f"configuration file {path}" in refusal({"RIACHO_CONFIG": str(path)})


def test_a_misspelt_variable_is_refused_with_the_right_name() -> None:
    said = refusal({"RIACHO_HTTP_PROT": "1"})
    assert said == "environment variable RIACHO_HTTP_PROT is no setting; did you mean 'RIACHO_HTTP_PORT'?"


def test_variables_of_others_and_of_the_test_suite_are_left_alone() -> None:
    assert load(environ={"PATH": "/bin", "RIACHO_TEST_SERVER": "/bin/valkey-server"}).http.port == 8080


def test_a_misspelt_flag_is_refused() -> None:
    assert "no setting http.prot; did you mean 'port'?" in refusal({}, {"http": {"prot": 1}})
    assert "no section [htpp]; did you mean 'http'?" in refusal({}, {"htpp": {"port": 1}})


@pytest.mark.parametrize(
    ("name", "value", "setting"),
    [
        ("RIACHO_HTTP_PORT", "65536", "http.port"),
        ("RIACHO_HTTP_PORT", "many", "http.port"),
        ("RIACHO_WORKER_LEASE", "0", "worker.lease"),
        ("RIACHO_WORKER_LEASE", "nan", "worker.lease"),
        ("RIACHO_WORKER_LEASE", "inf", "worker.lease"),
        ("RIACHO_REDIS_MEMORY_SHARE", "0", "redis.memory_share"),
        ("RIACHO_REDIS_MEMORY_SHARE", "1.01", "redis.memory_share"),
        ("RIACHO_REDIS_MEMORY_SHARE", "nan", "redis.memory_share"),
        ("RIACHO_TENANTS_ROUNDS", "-1", "tenants.rounds"),
        ("RIACHO_AUDIO_CONCURRENCY", "-1", "audio.concurrency"),
        ("RIACHO_AUDIO_DEVICE", "abacus", "audio.device"),
        ("RIACHO_AUDIO_NETWORKS", "10.1.2.3/16", "audio.networks"),
        ("RIACHO_AUDIO_NETWORKS", "localhost", "audio.networks"),
        ("RIACHO_AUDIO_CACHE", "~no-such-user/x", "audio.cache"),
        ("RIACHO_LOG_LEVEL", "loud", "log.level"),
    ],
)
def test_an_impossible_value_is_named_with_its_setting(name: str, value: str, setting: str) -> None:
    assert refusal({name: value}).startswith(f"setting {setting} = {value!r}: ")


def test_a_wrong_item_of_a_list_is_named(tmp_path: Path) -> None:
    assert refusal(file_with(tmp_path, "[audio]\nroots = ['/a', 7]")).startswith(
        "setting audio.roots = ['/a', 7]: expected text"
    )


@pytest.mark.parametrize("setting", ["redis.url", "store.url", "whatsapp.app_secret", "whatsapp.access_token"])
def test_an_error_never_shows_a_secret(tmp_path: Path, setting: str) -> None:
    section, key = setting.split(".")
    said = refusal(file_with(tmp_path, f"[{section}]\n{key} = 271828"))
    assert said.startswith(f"setting {setting}: expected text")
    assert "271828" not in said


def test_secrets_do_not_show_themselves() -> None:
    loaded = load({"whatsapp": {"app_secret": SECRET}, "redis": {"url": f"redis://:{SECRET}@host"}}, environ={})
    for shown in (repr(loaded), str(loaded), f"{loaded.redis.url}", str([loaded.whatsapp.app_secret])):
        assert SECRET not in shown
    assert loaded.whatsapp.app_secret.reveal() == SECRET
    assert repr(loaded.store.url) == "Secret('')"


def test_redis_variables_make_an_address() -> None:
    assert load(environ={"REDIS_HOST": "cache"}).redis.url.reveal() == "redis://cache:6379/0"
    every = {"REDIS_HOST": "::1", "REDIS_PORT": "7000", "REDIS_PASSWORD": "x", "REDIS_DB": "2"}
    assert load(environ=every).redis.url.reveal() == "redis://:x@[::1]:7000/2"


def test_redis_variables_that_are_empty_leave_the_embedded_server() -> None:
    assert not load(environ={"REDIS_HOST": "", "REDIS_URL": ""}).redis.url


def test_a_whole_address_goes_before_its_parts_and_our_own_name_before_both() -> None:
    environ = {"REDIS_URL": "redis://whole", "REDIS_HOST": "part"}
    assert load(environ=environ).redis.url.reveal() == "redis://whole"
    environ["RIACHO_REDIS_URL"] = "redis://own"
    assert load(environ=environ).redis.url.reveal() == "redis://own"


@pytest.mark.parametrize("name", ["REDIS_PORT", "REDIS_DB"])
def test_a_redis_number_that_is_none_is_named(name: str) -> None:
    assert refusal({name: "x1"}) == f"environment variable {name} = 'x1': expected a number"


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_a_redis_password_may_have_any_character(password: str) -> None:
    url = urlsplit(load(environ={"REDIS_PASSWORD": password, "REDIS_HOST": "cache"}).redis.url.reveal())
    assert unquote(url.password or "") == password
    assert (url.hostname, url.port, url.path) == ("cache", 6379, "/0")


def test_replaced_changes_only_what_is_named() -> None:
    before = load(environ={})
    after = replaced(before, http={"port": 1}, redis={"url": Secret("redis://x")})
    assert (after.http.port, after.redis.url.reveal()) == (1, "redis://x")
    assert after.http.host == before.http.host
    assert before.http.port == 8080


words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)
paths = words.filter(lambda word: not word.startswith("~")).map(lambda word: Path("/srv") / word)
seconds = st.floats(min_value=0.001, max_value=31_536_000)


@settings(deadline=None, max_examples=40)
@given(
    st.fixed_dictionaries(
        {
            "redis": st.fixed_dictionaries(
                {"url": words.map(lambda word: f"unix:///{quote(word)}"), "partitions": st.integers(1, 2**31)}
            ),
            "data": st.fixed_dictionaries({"folder": paths.map(str)}),
            "http": st.fixed_dictionaries({"host": words, "port": st.integers(0, 65_535)}),
            "worker": st.fixed_dictionaries({"lease": seconds, "grace": seconds}),
            "whatsapp": st.fixed_dictionaries({"app_secret": words, "access_token": words}),
            "audio": st.fixed_dictionaries({"roots": st.lists(paths.map(str)), "cache": paths.map(str)}),
            "alerts": st.fixed_dictionaries({"to": st.lists(words)}),
            "log": st.fixed_dictionaries({"level": st.sampled_from(["debug", "info", "warning", "error"])}),
        }
    )
)
def test_a_child_process_has_the_same_settings(flags: dict[str, dict[str, Any]]) -> None:
    loaded = load(flags, environ={})
    assert revealed(load(environ=child_environment(loaded))) == revealed(loaded)


def test_a_child_process_is_not_told_what_its_parent_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent's file and variables are in its settings already; read again they might win."""
    monkeypatch.setenv("REDIS_URL", "redis://parent")
    monkeypatch.setenv("RIACHO_CONFIG", "/nowhere")
    monkeypatch.setenv("RIACHO_HTTP_PORT", "1")
    environ = child_environment(load({"http": {"port": 2}}, environ={}), MORE="yes")
    assert "REDIS_URL" not in environ
    assert "RIACHO_CONFIG" not in environ
    assert environ["MORE"] == "yes"
    assert load(environ=environ).http.port == 2


@pytest.mark.parametrize(
    ("section", "url"),
    [
        ("REDIS", "foo"),
        ("REDIS", "redis://[::1"),
        ("REDIS", "http://hush@host"),
        ("REDIS", "redis://:hush#x@127.0.0.1:1/0"),
        ("REDIS", "redis://:hush/x@127.0.0.1:1/0"),
        ("REDIS", "redis://host:99999"),
        ("STORE", "mysql://hush@host/db"),
        ("STORE", "postgresql://hush@host/db"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_showing_it(section: str, url: str) -> None:
    with pytest.raises(SettingsError, match=f"setting {section.lower()}.url is no address") as raised:
        load(environ={f"RIACHO_{section}_URL": url})
    assert "hush" not in str(raised.value)
