"""S3 as this process reaches it, beside what Spark does there by itself.

Who it is, which region and which endpoint come from where the AWS command line takes them (environment,
profile, role of the machine or pod), never from settings.
"""

from __future__ import annotations

_SCHEMES = ("s3://", "s3a://")


def is_s3(location: str) -> bool:
    """Whether a location is an object or prefix of S3."""
    return location.startswith(_SCHEMES)
