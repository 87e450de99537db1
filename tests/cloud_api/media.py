"""Uploads: of a kind WhatsApp takes, within its size, kept for the number that they were made for."""

from collections.abc import Mapping
from typing import NamedTuple

from aiohttp import BodyPartReader, web

from tests.cloud_api.errors import MetaError

_MB = 1024 * 1024
LARGEST = 100 * _MB
_LIMITS = {"audio": 16 * _MB, "image": 5 * _MB, "document": LARGEST}
_OFFICE = "application/vnd.openxmlformats-officedocument"
_KINDS = {
    "audio/aac": "audio",
    "audio/amr": "audio",
    "audio/mpeg": "audio",
    "audio/mp4": "audio",
    "audio/ogg": "audio",
    "image/jpeg": "image",
    "image/png": "image",
    "text/plain": "document",
    "application/pdf": "document",
    "application/msword": "document",
    "application/vnd.ms-excel": "document",
    "application/vnd.ms-powerpoint": "document",
    f"{_OFFICE}.wordprocessingml.document": "document",
    f"{_OFFICE}.spreadsheetml.sheet": "document",
    f"{_OFFICE}.presentationml.presentation": "document",
}


class Upload(NamedTuple):
    """A file as it was uploaded; `kind` is the type of message that it can go with."""

    number: str
    kind: str
    mime: str
    content: bytes


async def read_upload(request: web.BaseRequest, number: str) -> Upload:
    """The file of a call. Raises MetaError."""
    if request.content_type != "multipart/form-data":
        raise _malformed(f"an upload is multipart/form-data, not {request.content_type}")
    try:
        fields, mime, content = await _parts(request)
    except (ValueError, AssertionError, web.HTTPException) as error:  # what aiohttp makes of bytes it cannot read
        raise _malformed(str(error)) from None
    _check_fields(fields)
    upload = Upload(number, _KINDS.get(mime, ""), mime, content)
    _check_file(upload, fields["type"])
    return upload


async def _parts(request: web.BaseRequest) -> tuple[dict[str, str], str, bytes]:
    fields: dict[str, str] = {}
    mime, content = "", b""
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader):
            raise _malformed("there is a multipart within the multipart")
        if part.name == "file":
            mime, content = _base(part.headers.get("Content-Type", "")), bytes(await part.read())
            if not part.filename:
                raise _malformed("the file has no filename")
        else:
            fields[part.name or ""] = await part.text()
    return fields, mime, content


def _check_fields(fields: Mapping[str, str]) -> None:
    if set(fields) != {"messaging_product", "type"}:
        raise _malformed(f"the fields beside the file are {sorted(fields)}, not messaging_product and type")
    if fields["messaging_product"] != "whatsapp":
        raise _malformed("messaging_product is not whatsapp")


def _check_file(upload: Upload, named: str) -> None:
    if not upload.kind:
        allowed = ", ".join(_KINDS)
        raise _malformed(f"Param file must be one of {allowed}. Received file of type '{upload.mime}'")
    if _base(named) != upload.mime:
        raise _malformed(f"type is {named!r}, and the file comes as {upload.mime!r}")
    if not upload.content:
        raise _malformed("the file is empty")
    if len(upload.content) > _LIMITS[upload.kind]:
        raise _malformed(f"{len(upload.content)} bytes are too many for {upload.kind}")
    if upload.mime == "audio/ogg" and not _is_opus(upload.content):
        raise _malformed("of audio/ogg only the opus codec is supported")


def _is_opus(content: bytes) -> bool:
    return content.startswith(b"OggS") and b"OpusHead" in content[:64]


def _base(mime: str) -> str:
    return mime.partition(";")[0].strip().lower()


def _malformed(what: str) -> MetaError:
    return MetaError(100, what, violation=f"malformed upload: {what}")
