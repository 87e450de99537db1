"""The Lua scripts: each a file in lua/ with its KEYS, ARGV and answer in its head comment."""

import hashlib
import time
from collections.abc import Awaitable
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from pipeline.metrics import Sending
from pipeline.wire import Wire

# What finishes work runs though the server's memory is used up: else nothing could ever free any.
WHATEVER_THE_MEMORY = b"#!lua flags=allow-oom\n"
# What only looks runs on a replica, too.
READS = b"#!lua flags=no-writes\n"


class Script:
    """A script by its file name; loads itself again where the server does not know it (restart, flush).
    One that `takes_in` jobs does not run when the server has no memory for them; one that only `reads` runs on
    replicas, too."""

    def __init__(self, name: str, *, takes_in: bool = False, reads: bool = False) -> None:
        folder = files("pipeline") / "lua"
        text = (folder / "prelude.lua").read_bytes() + (folder / f"{name}.lua").read_bytes()
        self._text = text if takes_in else (READS if reads else WHATEVER_THE_MEMORY) + text
        self._attributes = {"script": name}
        self._sha = hashlib.sha1(self._text, usedforsecurity=False).hexdigest()

    def __call__(self, wire: Wire, keys: list[str], args: list[Any]) -> Awaitable[Any]:
        started = time.monotonic() if wire.figures else 0.0
        ended = self._ended(wire, keys, args, wire.begin("EVALSHA", self._sha, len(keys), *keys, *args))
        return self._measured(wire.figures, started, ended) if wire.figures else ended

    async def _measured(self, figures: Sending, started: float, ended: Awaitable[Any]) -> Any:
        try:
            return await ended
        finally:
            figures.called(self._attributes, started)

    async def _ended(self, wire: Wire, keys: list[str], args: list[Any], begun: Awaitable[Any]) -> Any:
        try:
            return await begun
        except NoScriptError:
            return await wire.command("EVAL", self._text, len(keys), *keys, *args)


add = Script("add", takes_in=True)
settle = Script("settle")
park = Script("park")
reclaim = Script("reclaim")
renew = Script("renew")
ages = Script("ages", reads=True)
count = Script("count", reads=True)
position = Script("position", reads=True)
bury = Script("bury")
leave = Script("leave")
letters = Script("letters", reads=True)
replay = Script("replay", takes_in=True)
cancel = Script("cancel")
control = Script("control")
clear = Script("clear")
progress = Script("progress")
follow = Script("follow")
tell = Script("tell")
throttle = Script("throttle")
plan = Script("plan", takes_in=True)
see = Script("see")
advance = Script("advance")
unpause = Script("unpause")
