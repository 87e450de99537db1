"""Objects in S3, and in stores that speak its protocol. Credentials and region come from AWS's own variables."""

import re
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec
import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from pipeline import Permanent
from stages.audio.sources.web import CHUNK, Timeouts
from stages.object_store import bucket_at

if TYPE_CHECKING:
    from obstore.store import ClientConfig

# What AWS lets a bucket be called: nothing that would mean something else in an address.
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class ObjectStore(msgspec.Struct, frozen=True):
    """`endpoint`: of an S3-compatible store; empty: AWS. `buckets`: that may be read; none: every one."""

    endpoint: str = ""
    buckets: frozenset[str] = frozenset()


class S3:
    """Fetches objects; a bucket's connections are kept."""

    def __init__(self, store: ObjectStore, timeouts: Timeouts) -> None:
        self._store, self._timeouts = store, timeouts
        self._bucket = lru_cache(maxsize=32)(self._opened)

    async def download(self, place: str, *, limit: int) -> bytes:
        """The object at `bucket/key`, the key as it is.

        Raises Permanent where another try would not help, and ConnectionError where it may.
        """
        bucket, _, key = place.partition("/")
        self._check(bucket, key)
        try:
            return await self._get(bucket, key, limit)
        except FileNotFoundError:
            raise Permanent(f"there is no s3://{place}: no such bucket, or no such key in it") from None
        except (PermissionDeniedError, UnauthenticatedError):
            raise Permanent(f"s3://{place} may not be read with the credentials in AWS_ACCESS_KEY_ID…") from None
        except ValueError:
            raise Permanent(f"s3://{place} cannot be an object: {key!r} is no key") from None
        except BaseError as error:  # its text has the server's answer in it, and that what was signed
            raise ConnectionError(f"cannot read s3://{place}: {_reason(error)}") from None

    def _check(self, bucket: str, key: str) -> None:
        if not BUCKET.fullmatch(bucket):
            raise Permanent(f"{bucket!r} is no name of a bucket; expected s3://bucket/key")
        if self._store.buckets and bucket not in self._store.buckets:
            raise Permanent(f"audio may not come from the bucket {bucket}; see the setting s3.buckets")
        if key.strip("/") != key or not key:  # the library would take it for another key, or the whole bucket
            raise Permanent(f"{key!r} is no key of an object; expected s3://bucket/key")

    async def _get(self, bucket: str, key: str, limit: int) -> bytes:
        found = await obstore.get_async(self._bucket(bucket), key)
        content = bytearray()
        too_much = found.meta["size"] > limit
        if not too_much:
            async for chunk in found.stream(CHUNK):
                content += chunk
                if too_much := len(content) > limit:
                    break
        if too_much:
            raise Permanent(f"s3://{bucket}/{key} is over the limit of {limit:,} bytes")
        return bytes(content)

    def _opened(self, bucket: str) -> S3Store:
        timeouts: ClientConfig = {
            "connect_timeout": timedelta(seconds=self._timeouts.connect),
            "read_timeout": timedelta(seconds=self._timeouts.read),
            "timeout": timedelta(seconds=self._timeouts.total),
        }
        # No retries: a try of the job is one try.
        return bucket_at(self._store.endpoint, bucket, retries=0, options=timeouts)


def _reason(error: BaseError) -> str:
    status = re.search(r"status code: (\d{3})", str(error))
    return f"it answered {status[1]}" if status else "no answer, or too late, or of another region (AWS_REGION)"
