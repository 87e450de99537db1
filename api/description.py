"""GET /openapi.json: what the service can be asked, itself included."""

from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from api.openapi import document
from api.operations import JSON, Operation
from api.page import KNOWN, answer, file_answers, file_of

DOCUMENT = web.AppKey("document", bytes)  # as it is served


class Description:
    """Describes operations, and its own beside them; `operations` are all of them. Raises Undescribed."""

    def __init__(self, others: Sequence[Operation]) -> None:
        self.operations = [*others, self._own()]
        self.body = msgspec.json.encode(document(self.operations))
        self._file = file_of(self.body, JSON)

    async def openapi(self, request: web.Request) -> web.Response:
        """GET /openapi.json."""
        return answer(request, self._file)

    def _own(self) -> Operation:
        return Operation(
            method="GET",
            path="/openapi.json",
            handler=self.openapi,
            scope=None,
            group="page",
            name="openapi",
            summary="This document, for programs",
            parameters=(KNOWN,),
            answers=file_answers(f"{JSON}; charset=utf-8", form=dict[str, Any]),
            asks_redis=False,
        )
