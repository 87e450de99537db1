"""The Lua scripts: each a file in lua/ with its KEYS, ARGV and answer in its head comment."""

import hashlib
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from pipeline.wire import Wire


class Script:
    """A script by its file name; loads itself again where the server does not know it (restart, flush)."""

    def __init__(self, name: str) -> None:
        folder = files("pipeline") / "lua"
        self._text = (folder / "prelude.lua").read_bytes() + (folder / f"{name}.lua").read_bytes()
        self._sha = hashlib.sha1(self._text, usedforsecurity=False).hexdigest()

    async def __call__(self, wire: Wire, keys: list[str], args: list[Any]) -> Any:
        try:
            return await wire.command("EVALSHA", self._sha, len(keys), *keys, *args)
        except NoScriptError:
            return await wire.command("EVAL", self._text, len(keys), *keys, *args)


add = Script("add")
settle = Script("settle")
park = Script("park")
reclaim = Script("reclaim")
renew = Script("renew")
bury = Script("bury")
leave = Script("leave")
replay = Script("replay")
cancel = Script("cancel")
control = Script("control")
clear = Script("clear")
progress = Script("progress")
throttle = Script("throttle")
