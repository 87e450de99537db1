"""Buckets in S3, and in stores that speak its protocol. Credentials and region come from AWS's own variables."""

from typing import TYPE_CHECKING

from obstore.store import S3Store

if TYPE_CHECKING:
    from obstore.store import ClientConfig


def bucket_at(
    endpoint: str, bucket: str, *, prefix: str | None = None, retries: int, options: "ClientConfig | None" = None
) -> S3Store:
    """A bucket, of AWS where `endpoint` is empty; nothing is asked of the store yet."""
    # AWS's own endpoints are https whatever this says; AWS_ENDPOINT_URL is the operator's word.
    client: ClientConfig = {**(options or {}), "allow_http": not endpoint.startswith("https://")}
    return S3Store(
        bucket,
        prefix=prefix,
        # Under the name that goes over all of AWS's variables.
        config={"aws_endpoint_url_s3": endpoint} if endpoint else {},
        client_options=client,
        retry_config={"max_retries": retries},
    )
