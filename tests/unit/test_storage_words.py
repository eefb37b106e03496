"""What storage answers comes out of Java's pages as one line, with the exit code it deserves."""

from __future__ import annotations

import pytest
from py4j.protocol import Py4JJavaError
from pyspark.errors import PythonException

from raretrail.errors import RaretrailError, SparkError, UsageError
from raretrail.s3 import from_spark, is_denied, is_expired
from raretrail.session import in_words

LOG = "s3a://bkt/t/_delta_log"
_S3 = "software.amazon.awssdk.services.s3.model.S3Exception"
_SAID = "(Service: S3, Status Code: {}, Request ID: 1)"


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        (
            "An error occurred while calling o169.save.\n: org.apache.spark.SparkException: "
            "[TASK_WRITE_FAILED] Task failed while writing rows to s3a://bkt/t. SQLSTATE: 58030\n\tat x\n"
            "Caused by: java.nio.file.AccessDeniedException: t/p.parquet: Writing Object on t/p.parquet: "
            f"{_S3}: Access Denied {_SAID.format(403)}:AccessDenied\n",
            UsageError,
            "s3a://bkt/t: AccessDenied: s3:PutObject is not allowed; allow it",
        ),
        (
            f": java.nio.file.AccessDeniedException: {LOG}: getFileStatus on {LOG}: {_S3}: Access Denied "
            f"{_SAID.format(403)}:AccessDenied",
            UsageError,
            f"{LOG}: AccessDenied: s3:ListBucket is not allowed; allow it",
        ),
        (
            f": java.nio.file.AccessDeniedException: {LOG}: getFileStatus on {LOG}: {_S3}: Forbidden "
            f"{_SAID.format(403)}:null",
            UsageError,
            f"{LOG}: AccessDenied: s3:GetObject or s3:ListBucket is not allowed; allow it",
        ),
        (
            f"Caused by: java.nio.file.AccessDeniedException: {LOG}/0.json: open {LOG}/0.json at 0 on "
            f"{LOG}/0.json: {_S3}: User: arn:aws:sts::1:assumed-role/r/s is not authorized to perform: "
            f"kms:Decrypt on resource: arn:aws:kms:eu-west-1:1:key/k {_SAID.format(403)}:AccessDenied",
            UsageError,
            f"{LOG}/0.json: AccessDenied: kms:Decrypt is not allowed; allow it",
        ),
        (
            f": java.nio.file.AccessDeniedException: {LOG}: getFileStatus on {LOG}: {_S3}: The AWS Access "
            f"Key Id you provided does not exist in our records. {_SAID.format(403)}:InvalidAccessKeyId",
            UsageError,
            f"{LOG}: InvalidAccessKeyId: S3 does not take these keys",
        ),
        (
            f": org.apache.hadoop.fs.s3a.AWSBadRequestException: getFileStatus on {LOG}: {_S3}: Bad Request "
            f"{_SAID.format(400)}:null: Bad Request {_SAID.format(400)}",
            RaretrailError,
            f"{LOG}: S3 refuses the request and does not say why (400); most often credentials have expired",
        ),
        (
            f": org.apache.hadoop.fs.s3a.AWSBadRequestException: Writing Object on t/p: {_S3}: The provided "
            f"token has expired. {_SAID.format(400)}:ExpiredToken: The provided token has expired.",
            RaretrailError,
            "S3: ExpiredToken: the credentials have expired",
        ),
        (
            f"Caused by: org.apache.hadoop.fs.s3a.AWSStatus500Exception: PUT on {LOG}/1.json: {_S3}: We "
            f"encountered an internal error. Please try again. {_SAID.format(500)}:InternalError",
            RaretrailError,
            f"{LOG}/1.json: InternalError: We encountered an internal error.",
        ),
        (
            "Caused by: org.apache.hadoop.fs.s3a.auth.NoAuthWithAWSException: DefaultCredentialsProvider: "
            "software.amazon.awssdk.core.exception.SdkClientException: Unable to load credentials from any",
            UsageError,
            "S3: no credentials are found; give keys and region as for the AWS command line",
        ),
    ],
)
def test_java_s_pages_become_a_line(text: str, kind: type[RaretrailError], told: str) -> None:
    found = from_spark(text)
    assert type(found) is kind
    assert str(found).startswith(told)
    assert "\n" not in str(found)
    assert len(str(found)) < 300


def test_what_is_not_of_storage_is_left_to_others() -> None:
    assert from_spark("[DIVIDE_BY_ZERO] Division by zero.\n\tat org.apache.spark.x") is None
    assert not is_denied("Permission denied; make it readable")
    assert not is_expired("AccessDenied: s3:GetObject is not allowed")


class _Java(Py4JJavaError):  # type: ignore[misc]
    """What py4j raises, which asks a JVM for its text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


def test_java_s_errors_are_told_by_their_cause() -> None:
    said = (
        "An error occurred while calling o1.save.\n: org.apache.spark.SparkException: Job aborted.\n\tat x\n"
    )
    found = in_words(_Java(f"{said}Caused by: java.io.IOException: No space left on device\n\tat y\n"))
    assert isinstance(found, SparkError)
    assert str(found) == "failed: java.io.IOException: No space left on device; --debug shows where"
    refused = (
        f"{said}Caused by: java.nio.file.AccessDeniedException: {LOG}: open {LOG}: {_S3}: Access Denied "
    )
    assert isinstance(in_words(_Java(f"{refused}{_SAID.format(403)}:AccessDenied")), UsageError)


def test_a_worker_s_error_is_told_by_its_last_line() -> None:
    pages = (
        "An exception was thrown from the Python worker.\nTraceback (most recent call last):\n  File 'x'\n"
    )
    found = in_words(PythonException(f"{pages}OSError: s3://b/k: changed while it was read; run again\n"))
    assert str(found).startswith("failed: OSError: s3://b/k: changed while it was read; run again; --debug")
