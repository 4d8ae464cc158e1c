"""Where S3 is, and how the address of a bucket is formed there: decided once, for delta-rs and boto3.

Belongs here: what the environment says of addresses, and clients that follow it. Does not belong here: what is stored.
Left to themselves, the two read different variables: files would go to one server, and commits that name them to
another.
"""

from __future__ import annotations

import os
from ipaddress import ip_address
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
# What delta-rs takes for true.
_VIRTUAL, _TRUE = "AWS_VIRTUAL_HOSTED_STYLE_REQUEST", ("1", "true", "on", "yes", "y")


class Address(NamedTuple):
    """How a bucket is reached. ``server`` is without the bucket's name; None: Amazon's.

    ``style``: the bucket's name is part of the host's ("virtual") or of the path; None leaves it to each library, for
    at Amazon both lead to the same bucket.
    """

    bucket: str
    server: str | None
    style: Literal["virtual", "path"] | None

    @property
    def endpoint(self) -> str | None:
        """The server as delta-rs wants it: with the bucket's name if that is part of the host's."""
        if self.server is None or self.style != "virtual":
            return self.server
        parts = urlsplit(self.server)
        return parts._replace(netloc=f"{self.bucket}.{parts.netloc}").geturl()


def address_of(bucket: str) -> Address:
    """The address of ``bucket``, as the environment says. The server's may be given with the bucket's name or without.

    Raises ValueError for one that is no address.
    """
    server = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
    said = os.environ.get(_VIRTUAL, "").strip().lower()
    if server is None:
        return Address(bucket, None, None if not said else "virtual" if said in _TRUE else "path")
    parts = urlsplit(server)
    if said not in _TRUE or _is_number(parts.hostname):  # in front of an IP address there is no room for a name
        return Address(bucket, server, "path")
    return Address(bucket, parts._replace(netloc=parts.netloc.removeprefix(f"{bucket}.")).geturl(), "virtual")


def storage_options(bucket: str) -> dict[str, str]:
    """What delta-rs is told of the address of ``bucket``; it wins over what delta-rs would read itself."""
    found = address_of(bucket)
    options = {"aws_endpoint_url_s3": found.endpoint} if found.endpoint else {}
    if found.style:
        options["aws_virtual_hosted_style_request"] = str(found.style == "virtual").lower()
    return options


def client(bucket: str, **config: Any) -> Any:
    """A client of boto3 for ``bucket``; ``config`` are further arguments of botocore's Config.

    Raises ValueError for an address that is none, and what botocore raises.
    """
    import boto3  # here: slow to import, and not needed for a folder
    from botocore.config import Config

    found = address_of(bucket)
    # Of a profile nothing is asked: delta-rs would not.
    own = Config(ignore_configured_endpoint_urls=True, s3={"addressing_style": found.style} if found.style else None)
    # AWS_REGION is read by delta-rs, and not by boto3.
    named = {"region_name": os.environ.get("AWS_REGION"), "endpoint_url": found.server}
    given = {key: value for key, value in named.items() if value}
    return boto3.session.Session().client("s3", config=own.merge(Config(**config)), **given)


def _is_number(host: str | None) -> bool:
    try:
        ip_address(host or "")
    except ValueError:
        return False
    return True
