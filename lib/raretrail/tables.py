"""Every table of the warehouse: name, columns, comments, keys, partitions, retention.

This is the one place that says what a table looks like. The warehouse creates tables from it,
writers select by it, tests hold the code to it, and the manual is generated from it.

Types are named as Spark's DDL names them; only those in `_SPARK_TYPES` are used, so that delta-rs
and DuckDB read every table. A column marked `arrival` depends on the order in which files came
(all others must not). What `raretrail forget` has to find stands in `_HOLDS`: every column of text says
whether it holds a person, an address, words that may name either, or neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql.types import StructType


# What a column of text holds: whom the row is of; a person beside them; an address; words, lists or JSON that
# may name either; or nothing of the kind.
Holds = Literal["subject", "person", "address", "words", "neither"]

# By the column's name, which means the same in every table; a column may say otherwise itself.
_HOLDS: dict[str, Holds] = {
    **dict.fromkeys(
        (
            "access_key_id", "access_key_ids", "actor", "identity", "judged_as", "principal", "principals",
            "session_issuer_arn", "session_name", "user_identity_arn", "user_identity_principal_id",
            "user_identity_user_name",
        ),
        "subject",
    ),
    **dict.fromkeys(
        (
            "account_owners", "assignee", "author", "became", "given_by", "identity_created_by",
            "issued_arn", "issued_key_id", "key_created_by", "origin_access_key_id", "origin_principal",
            "origin_principals", "session_chain", "verdict_by",
        ),
        "person",
    ),
    **dict.fromkeys(
        (
            "address_key", "from_address", "origin_source_ip_address", "source_ip_address",
            "source_ip_addresses",
        ),
        "address",
    ),
    **dict.fromkeys(
        (
            "additional_event_data", "addendum", "agent_family", "detail", "error_message", "error_template",
            "held_scopes", "holder", "last_error", "made", "message", "other_fields",
            "own_instance_profile", "own_resource", "own_resources", "payload", "policies_seen", "raw",
            "reason", "request_parameters", "resources", "response_elements", "response_steps",
            "scope_value", "service_event_details", "session_context", "subject", "summary", "ticket",
            "tls_details", "touched_resources", "user_agent", "user_identity_invoked_by", "value",
        ),
        "words",
    ),
    **dict.fromkeys(
        (
            # Services, commands and what CloudTrail and the databases number or enumerate.
            "aws_region", "change", "command", "commands", "credential", "credentials", "criticality",
            "dimension", "error_code", "event_category", "event_id", "event_name", "event_source",
            "event_type", "event_version", "evidence_event_ids", "given_command", "given_event_id",
            "outcome", "principal_kind", "request_id", "session_command", "shared_event_id",
            "touched_regions", "touched_services", "user_identity_type", "vpc_endpoint_id",
            # Accounts, and what conf says of these.
            "account_data", "account_environments", "account_names", "own_account_id",
            "recipient_account_id", "recipient_account_ids", "regulations", "touched_accounts",
            "user_identity_account_id",
            # Places and networks: a network is an AS, or a block of 256 addresses and more.
            "as_organization", "city_name", "country", "country_iso_code", "country_name", "geo_build",
            "geo_status", "jump_place", "known_countries", "known_network", "known_network_kind", "nearest_place", "network",
            "networks", "place", "place_name", "prefix", "region_iso_code", "region_name", "time_zone",
            # Files, by the path they lie at; hashes and ids of ours; the closed lists of this file.
            "anomaly_id", "content_hash", "counts", "detector", "detectors", "digest_file",
            "disposition_id", "earlier_findings", "expectation", "expected_by", "expected_sha256",
            "format", "found_sha256", "gx_version", "hash", "incident_id", "input_versions", "key_id",
            "kind", "kwargs", "mode", "program_version", "quality", "receipt_id", "record_hash",
            "rule_severity", "run_id", "scope", "scope_column", "seconds", "settings_hash", "severity",
            "shape", "source_file", "spike_scope", "state", "status", "suite", "suppressed_by",
            "table_name", "trail", "verdict", "window_id", "withdraws",
            "changed", "corrects_event_id", "former_incident_ids", "supersedes", "was_incident_id",
        ),
        "neither",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One column: its name, its Spark type, what it holds. holds is None for what is no text."""

    name: str
    type: str
    comment: str
    arrival: bool = False
    holds: Holds | None = None


@dataclass(frozen=True)
class Table:
    """One table. `key` names the columns that identify a row; `retain_days` None keeps for ever."""

    name: str
    comment: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partition_by: tuple[str, ...] = ()
    stats: tuple[str, ...] = field(default=())
    retain_days: int | None = None
    # Delta CHECK constraints by name: SQL that Spark and delta-rs share, true also where columns are null.
    checks: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def column_names(self) -> list[str]:
        """The columns in the order of declaration."""
        return [column.name for column in self.columns]

    def spark_schema(self) -> StructType:
        """The columns as a Spark schema (comments left to the table)."""
        from pyspark.sql import types as T

        return T.StructType([T.StructField(c.name, _spark_type(c.type), True) for c in self.columns])

    def arrow_schema(self) -> pa.Schema:
        """The columns as an Arrow schema; timestamps in UTC microseconds."""
        import pyarrow as pa

        return pa.schema([pa.field(c.name, _arrow_type(c.type)) for c in self.columns])


def _spark_type(name: str):  # type: ignore[no-untyped-def]
    from pyspark.sql import types as T

    if name.startswith("array<"):
        return T.ArrayType(_spark_type(name[6:-1]), True)
    if name.startswith("map<"):
        key, value = name[4:-1].split(",")
        return T.MapType(_spark_type(key), _spark_type(value), True)
    return {
        "string": T.StringType(),
        "boolean": T.BooleanType(),
        "int": T.IntegerType(),
        "bigint": T.LongType(),
        "double": T.DoubleType(),
        "date": T.DateType(),
        "timestamp": T.TimestampType(),
    }[name]


def _arrow_type(name: str) -> pa.DataType:
    import pyarrow as pa

    if name.startswith("array<"):
        return pa.list_(_arrow_type(name[6:-1]))
    if name.startswith("map<"):
        key, value = name[4:-1].split(",")
        return pa.map_(_arrow_type(key), _arrow_type(value))
    return {
        "string": pa.string(),
        "boolean": pa.bool_(),
        "int": pa.int32(),
        "bigint": pa.int64(),
        "double": pa.float64(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }[name]


def _c(name: str, type: str, comment: str, arrival: bool = False, holds: Holds | None = None) -> Column:
    return Column(name, type, comment, arrival, holds or (_HOLDS.get(name) if "string" in type else None))


# ------------------------------------------------------------------------------------------ place

GEO_STATUSES = (
    "city",
    "region",
    "country",
    "not_found",
    "private",
    "vpc_endpoint",
    "aws_service",
    "aws_internal",
    "unparseable",
    "missing",
)

PLACE_COLUMNS: tuple[Column, ...] = (
    _c(
        "geo_status",
        "string",
        "How well the address could be placed: one of " + ", ".join(GEO_STATUSES),
    ),
    _c(
        "place",
        "string",
        "Key of the place: city:<geoname id>, region:<CC>-<ISO>, country:<CC>, or the geo_status",
    ),
    _c("place_name", "string", "The place in words: 'Lisbon, PT', 'Portugal', 'private'"),
    _c("city_name", "string", "City, English name"),
    _c("city_geoname_id", "bigint", "City, geonames.org id; empty where the database has none"),
    _c("region_iso_code", "string", "First subdivision, ISO 3166-2 without the country"),
    _c("region_name", "string", "First subdivision, English name"),
    _c("country_iso_code", "string", "Country, ISO 3166-1 alpha-2"),
    _c("country_name", "string", "Country, English name"),
    _c("latitude", "double", "Degrees north"),
    _c("longitude", "double", "Degrees east"),
    _c(
        "accuracy_radius",
        "int",
        "Kilometres around the point that hold the address two times in three",
    ),
    _c("time_zone", "string", "IANA time zone of the place"),
    _c("as_number", "bigint", "Autonomous system of the address; empty without an ASN database"),
    _c("as_organization", "string", "Who runs that autonomous system"),
    _c("network", "string", "AS<number>, or without an ASN database the /24 (IPv4) or /48 (IPv6)"),
)

# What an address is, whoever places it; by the text of the address alone.
_ADDRESS: tuple[Column, ...] = (
    _c(
        "address_key",
        "string",
        "The address as text that sorts as addresses do: 4 and 8 or 6 and 32 hexadecimal digits; "
        "empty for what is no address",
    ),
    _c("prefix", "string", "The /24 (IPv4) or /48 (IPv6) it lies in; empty for what is no address"),
)

PLACES = Table(
    "places",
    "One source address as one build of the databases places it",
    (
        _c("source_ip_address", "string", "The address as CloudTrail wrote it"),
        _c(
            "geo_build",
            "string",
            "Which databases placed it: type@build date of the city and the ASN database",
        ),
        *PLACE_COLUMNS,
        *_ADDRESS,
        _c("located_at", "timestamp", "When it was looked up", arrival=True),
    ),
    key=("source_ip_address", "geo_build"),
)

# --------------------------------------------------------------------------------- what was read

_WHERE_FROM: tuple[Column, ...] = (
    _c("source_file", "string", "File it came from", arrival=True),
    _c("source_position", "bigint", "Its position among the file's records, from 0", arrival=True),
)

# What decoding one record yields, before places are known.
DECODED_COLUMNS: tuple[Column, ...] = (
    _c("event_time", "timestamp", "When the request completed (eventTime), UTC"),
    _c("event_date", "date", "UTC day of event_time"),
    _c("event_id", "string", "eventID, or sha256:<hash of the record> where it has none"),
    _c(
        "recipient_account_id",
        "string",
        "Account that logged it, else the identity's, else the path's, else 'unknown'",
    ),
    _c("event_version", "string", "Version of the record format, as text"),
    _c("event_type", "string", "AwsApiCall, AwsServiceEvent, AwsConsoleSignIn, ..."),
    _c("event_category", "string", "Management, Data, NetworkActivity"),
    _c("management_event", "boolean", "Is it a management event"),
    _c("read_only", "boolean", "Does the command only read"),
    _c("event_source", "string", "Service, e.g. iam.amazonaws.com"),
    _c("event_name", "string", "API action, e.g. CreateUser"),
    _c("command", "string", "Service and action, e.g. iam:CreateUser"),
    _c("aws_region", "string", "Region the request was made to"),
    _c(
        "source_ip_address",
        "string",
        "sourceIPAddress as written: an address, a service's name, AWS Internal",
    ),
    _c("user_agent", "string", "userAgent as written"),
    _c(
        "agent_family",
        "string",
        "Product, major version (browsers: none) and operating system of the user agent",
    ),
    _c("principal", "string", "Identity that stays the same between sessions (conf/principals.yml)"),
    _c(
        "principal_kind",
        "string",
        "person, role, user, root, service, account, anonymous or unknown",
    ),
    _c(
        "actor",
        "string",
        "The name all identities of one person or program share, else the principal (conf/principals.yml)",
    ),
    _c("user_identity_type", "string", "userIdentity.type"),
    _c("user_identity_arn", "string", "userIdentity.arn"),
    _c("user_identity_principal_id", "string", "userIdentity.principalId"),
    _c("user_identity_account_id", "string", "userIdentity.accountId"),
    _c(
        "user_identity_user_name",
        "string",
        "userIdentity.userName, else that of the session issuer",
    ),
    _c("user_identity_invoked_by", "string", "Service that made the call on the identity's behalf"),
    _c("access_key_id", "string", "userIdentity.accessKeyId"),
    _c("session_issuer_arn", "string", "Role or user that issued the session"),
    _c("session_name", "string", "Role session name"),
    _c("session_created_at", "timestamp", "When the session was created"),
    _c("mfa_authenticated", "boolean", "Was the session opened with MFA"),
    _c("error_code", "string", "errorCode; Failure for a failed console login, which carries none"),
    _c("error_message", "string", "errorMessage"),
    _c("error_template", "string", "errorMessage with names, ids, ARNs and numbers taken out"),
    _c(
        "request_parameters",
        "string",
        "requestParameters, compact JSON text as delivered but for secrets (conf/redaction.yml)",
    ),
    _c("response_elements", "string", "responseElements, compact JSON text as delivered"),
    _c("additional_event_data", "string", "additionalEventData, compact JSON text as delivered"),
    _c("service_event_details", "string", "serviceEventDetails, compact JSON text as delivered"),
    _c("resources", "string", "resources, compact JSON text as delivered"),
    _c("session_context", "string", "userIdentity.sessionContext, compact JSON text as delivered"),
    _c("tls_details", "string", "tlsDetails, compact JSON text as delivered"),
    _c(
        "addendum",
        "string",
        "addendum, compact JSON text as delivered: why a record came late or again",
    ),
    _c(
        "corrects_event_id",
        "string",
        "originalEventID, where the addendum says UPDATED_DATA: the event this one takes the place of",
    ),
    _c("other_fields", "string", "Top-level keys this schema does not name, as one JSON object"),
    _c("request_id", "string", "requestID"),
    _c("shared_event_id", "string", "sharedEventID: one call logged in several accounts"),
    _c("vpc_endpoint_id", "string", "VPC endpoint the request came through"),
    _c("session_credential_from_console", "boolean", "Was the call made from the console"),
    _c(
        "record_hash",
        "string",
        "Hash of the record's compact JSON before redaction: tells a copy from an id used twice",
    ),
    *_WHERE_FROM,
)

EVENTS = Table(
    "events",
    "One CloudTrail record, flattened; the place columns are what was known when it was taken in",
    (
        *DECODED_COLUMNS,
        *(replace(c, arrival=True) for c in PLACE_COLUMNS),
        _c("geo_build", "string", "Build of the databases that placed it", arrival=True),
        _c("run_id", "string", "Run that took it in", arrival=True),
        _c("ingested_at", "timestamp", "When it was taken in", arrival=True),
    ),
    key=("recipient_account_id", "event_id"),
    partition_by=("event_date",),
    stats=(
        "event_time",
        "principal",
        "command",
        "source_ip_address",
        "recipient_account_id",
        "event_id",
    ),
    retain_days=400,
)

QUARANTINE_REASONS: dict[str, str] = {
    "not_json": "text that is not JSON",
    "truncated": "the file ends in the middle of a record or of its compression",
    "csv": "a table exported as CSV, which has lost the record's structure",
    "not_cloudtrail": "JSON, but not one of the shapes CloudTrail comes in",
    "s3_notification": "Records of an S3 notification, not of CloudTrail",
    "not_an_object": "a record that is not a JSON object",
    "insight": "a CloudTrail Insights record outside its own folder",
    "unsupported_version": "eventVersion with a major number other than 1",
    "missing_event_time": "a record without eventTime",
    "bad_event_time": "an eventTime that is no time between 2000 and 2100",
    "missing_event_name": "a record without eventName",
    "too_large": "a file or record over the bounds of size or nesting",
    "id_reused": "an event id already taken by a record with other content",
    "superseded": "corrected by another record, whose corrects_event_id names it",
}

QUARANTINE = Table(
    "quarantine",
    "One file or record that could not be taken, with its text and the reason",
    (
        *_WHERE_FROM,
        _c(
            "file_date",
            "date",
            "Day of delivery, from the path, else from the file's time",
            arrival=True,
        ),
        _c("reason", "string", "One of: " + ", ".join(QUARANTINE_REASONS)),
        _c("detail", "string", "What exactly was wrong", arrival=True),
        _c(
            "raw",
            "string",
            "The text without secrets, up to 1 MiB; of what was an event first, its row as JSON",
            arrival=True,
        ),
        _c("raw_bytes", "bigint", "Length of the whole text in bytes", arrival=True),
        _c("record_hash", "string", "Hash of the text"),
        _c("event_id", "string", "eventID, where it could be read"),
        _c("recipient_account_id", "string", "Account, where it could be read"),
        _c("event_time", "timestamp", "eventTime, where it could be read"),
        _c("run_id", "string", "Run that set it aside", arrival=True),
        _c("ingested_at", "timestamp", "When it was set aside", arrival=True),
    ),
    key=("source_file", "source_position"),
    partition_by=("file_date",),
    retain_days=400,
)

FILE_STATUSES: dict[str, str] = {
    "taken": "read; its records are events, duplicates or in quarantine",
    "empty": "read; it holds no record",
    "skipped": "not of the trail's events (digest, Insights), known by its folder or content",
    "unreadable": "could not be opened or changed while being read; tried again by the next run",
}

INGEST_FILES = Table(
    "ingest_files",
    "One trail file as it was read and what became of it: records = events + duplicates + quarantined "
    "+ forgotten",
    (
        _c("source_file", "string", "The file", arrival=True),
        _c("content_hash", "string", "Hash of its bytes", arrival=True),
        _c(
            "file_date",
            "date",
            "Day of delivery, from the path, else from the file's time",
            arrival=True,
        ),
        _c("bytes", "bigint", "Its size as stored", arrival=True),
        _c("modified_at", "timestamp", "Its time of modification", arrival=True),
        _c("status", "string", "One of: " + ", ".join(FILE_STATUSES), arrival=True),
        _c(
            "shape",
            "string",
            "records, array, single, json_lines, lookup_events, eventbridge, digest, insight, ...",
            arrival=True,
        ),
        _c("records", "bigint", "Records found", arrival=True),
        _c("events", "bigint", "Of these, in events", arrival=True),
        _c("duplicates", "bigint", "Of these, copies of an event or of a record set aside", arrival=True),
        _c("quarantined", "bigint", "Of these, in quarantine", arrival=True),
        _c(
            "forgotten",
            "bigint",
            "Of these, left out or removed as those of somebody forgotten; empty for none",
            arrival=True,
        ),
        _c("detail", "string", "What was odd about the file", arrival=True),
        _c("run_id", "string", "Run that read it", arrival=True),
        _c("ingested_at", "timestamp", "When it was read", arrival=True),
    ),
    key=("source_file", "content_hash"),
    partition_by=("file_date",),
)

DIGEST_STATUSES: dict[str, str] = {
    "valid": "as CloudTrail delivered it: hash and signature hold",
    "unproven": "nothing speaks against it, but the signature that would prove it is not here",
    "altered": "its content or its place is not what was signed",
    "missing": "named by a digest, and not there",
    "unlisted": "a log file that no digest names, though digests cover its time",
    "unreadable": "a digest that cannot be read",
}

DIGEST_RESULTS = Table(
    "digest_results",
    "What the trail's digests say of one of its files, as of the last `raretrail verify-trail`",
    (
        _c("source_file", "string", "The file, also where nothing lies there", arrival=True),
        _c("kind", "string", "digest or log"),
        _c("status", "string", "One of: " + ", ".join(DIGEST_STATUSES), arrival=True),
        _c("detail", "string", "What exactly was found", arrival=True),
        _c("digest_file", "string", "The digest that names it", arrival=True),
        _c("recipient_account_id", "string", "Account, from the path"),
        _c("aws_region", "string", "Region, from the path"),
        _c(
            "digest_start",
            "timestamp",
            "Start of the digest's time; of an unlisted file when it was delivered",
        ),
        _c("digest_end", "timestamp", "End of the digest's time"),
        _c("expected_sha256", "string", "SHA-256 of the decompressed file that a digest names"),
        _c("found_sha256", "string", "SHA-256 of the decompressed file that is there", arrival=True),
        _c("checked_at", "timestamp", "When it was checked", arrival=True),
    ),
    key=("source_file",),
)

STAGED_LISTING = Table(
    "staged_listing",
    "Files of a trail that a stream has named and no run has taken in yet",
    (
        _c("trail", "string", "Root of the trail, as the settings name it", arrival=True),
        _c("source_file", "string", "The file", arrival=True),
        _c("bytes", "bigint", "Its size as stored", arrival=True),
        _c("modified_at", "timestamp", "Its time of modification", arrival=True),
        _c("file_date", "date", "Day of delivery, from the path, else from the file's time", arrival=True),
    ),
    key=("source_file", "modified_at"),
    partition_by=("file_date",),
)

STAGED_CENSUS = Table(
    "staged_census",
    "What a batch of files holds, before duplicates are found: a row a record, a quarantined piece, a file",
    (
        _c("kind", "string", "record, quarantined, file, or part: a file of events that was written"),
        *_WHERE_FROM,
        _c("event_id", "string", "eventID, or sha256:<hash of the record>"),
        _c("recipient_account_id", "string", "Account"),
        _c("corrects_event_id", "string", "The event it takes the place of"),
        _c("record_hash", "string", "Hash of the record's compact JSON"),
        _c("event_time", "timestamp", "eventTime"),
        _c("event_date", "date", "UTC day of event_time"),
        _c("source_ip_address", "string", "sourceIPAddress"),
        _c("reason", "string", "Why it is set aside"),
        _c("detail", "string", "What was wrong with the piece or odd about the file"),
        _c("raw", "string", "Its text"),
        _c("raw_bytes", "bigint", "Length of the whole text"),
        _c("content_hash", "string", "Hash of the file"),
        _c("status", "string", "Status of the file"),
        _c("shape", "string", "Shape of the file"),
        _c("records", "bigint", "Records and pieces in the file"),
        _c("forgotten", "bigint", "Of these, left out as those of somebody forgotten"),
        _c("written", "bigint", "Of these, records that are in parts"),
    ),
    key=("source_file", "source_position", "kind"),
)

# ------------------------------------------------------------------------------------------ facts

_COUNTED: tuple[Column, ...] = (
    _c("event_count", "bigint", "Events"),
    _c("first_time", "timestamp", "First of them"),
    _c("last_time", "timestamp", "Last of them"),
)

_WHO: tuple[Column, ...] = (
    _c("recipient_account_id", "string", "Account"),
    _c("principal", "string", "Principal"),
    _c("principal_kind", "string", "Kind of principal"),
    _c("actor", "string", "The person or program behind it, else the principal"),
)

PRESENCE_DAILY = Table(
    "presence_daily",
    "Who ran which command from which address on which day, and with what outcome",
    (
        _c("event_date", "date", "UTC day"),
        *_WHO,
        _c("command", "string", "Command"),
        _c("source_ip_address", "string", "Address as written; empty where missing"),
        _c("outcome", "string", "Empty for success, else the error code"),
        *_COUNTED,
        _c("hours", "int", "In which hours, UTC: the bit of hour h, from 0, is set"),
    ),
    key=(
        "event_date",
        "recipient_account_id",
        "principal",
        "actor",
        "command",
        "source_ip_address",
        "outcome",
    ),
    partition_by=("event_date",),
)

AGENT_DAILY = Table(
    "agent_daily",
    "Which user agent families a principal used on which day",
    (
        _c("event_date", "date", "UTC day"),
        *_WHO,
        _c("agent_family", "string", "User agent family"),
        *_COUNTED,
    ),
    key=("event_date", "recipient_account_id", "principal", "actor", "agent_family"),
    partition_by=("event_date",),
)

HOUR_DAILY = Table(
    "hour_daily",
    "In which hours of which day a principal was active",
    (
        _c("event_date", "date", "UTC day"),
        *_WHO,
        _c("hour", "int", "Hour of the day, UTC"),
        *_COUNTED,
    ),
    key=("event_date", "recipient_account_id", "principal", "actor", "hour"),
    partition_by=("event_date",),
)

ERROR_QUARTER_HOUR = Table(
    "error_quarter_hour",
    "Errors by template and quarter of an hour",
    (
        _c("event_date", "date", "UTC day"),
        _c("quarter_start", "timestamp", "Start of the quarter of an hour"),
        *_WHO,
        _c("error_code", "string", "Error code"),
        _c("error_template", "string", "Error message without names, ids and numbers"),
        *_COUNTED,
        _c("distinct_messages", "bigint", "Distinct messages as written"),
    ),
    key=("quarter_start", "recipient_account_id", "principal", "actor", "error_code", "error_template"),
    partition_by=("event_date",),
)

MOVES_DAILY = Table(
    "moves_daily",
    "Which addresses somebody changed between on which day, and how quickly",
    (
        _c("event_date", "date", "UTC day"),
        _c("actor", "string", "The person or program, else the principal"),
        _c("from_address", "string", "Address left"),
        _c("source_ip_address", "string", "Address gone to"),
        _c("seconds", "bigint", "Between the last event there and the first here, at the quickest"),
        _c("first_time", "timestamp", "First event here after one there"),
    ),
    key=("event_date", "actor", "from_address", "source_ip_address"),
    partition_by=("event_date",),
)

_CALL: tuple[Column, ...] = (
    _c("event_date", "date", "UTC day"),
    _c("event_time", "timestamp", "When the call was made"),
    _c("event_id", "string", "Its event"),
    _c("recipient_account_id", "string", "Account"),
    _c("principal", "string", "Principal that made it"),
    _c("actor", "string", "The person or program behind it, else the principal"),
    _c("source_ip_address", "string", "Address as written"),
    _c("access_key_id", "string", "Access key it was made with"),
    _c("command", "string", "Command"),
)

CHANGE_KINDS: dict[str, str] = {
    "key": "a long-lived access key; held by: user/<name>",
    "user": "an IAM user, by its name",
    "role": "a role, by its name",
    "password": "a user's console password, by the user's name",
    "mfa": "a user's second factor, by the user's name",
    "policy": "a policy attached, by its ARN, or inline:<name>; held by: user/, role/ or group/<name>",
    "policy document": "the text of a managed policy, by its ARN",
    "group": "a group's membership, by the group's name; held by: user/<name>",
    "trust": "who may assume a role, by the role's name",
    "identity provider": "a SAML or OpenID Connect provider",
    "key pair": "an EC2 key pair, by its name",
    "instance": "an instance; held by: its instance profile",
    "interface": "a network interface or NAT gateway",
    "address": "an address; held by: its allocation, instance, network interface or accelerator",
    "lent": "an allocation associated; held by: the instance, network interface or NAT gateway",
}

CHANGES_DAILY = Table(
    "changes_daily",
    "What a call made, gave or took away: keys, users, policies, instances, addresses; and the first use of "
    "each long-lived key on a day",
    (
        *_CALL,
        _c("kind", "string", "One of: " + ", ".join(CHANGE_KINDS)),
        _c("change", "string", "given, taken, or used"),
        _c(
            "subject",
            "string",
            "The key, user, policy, instance, address; empty where only the holder is named",
        ),
        _c("holder", "string", "Whom or what it belongs to; empty where there is nothing to name"),
    ),
    key=("event_date", "recipient_account_id", "event_id", "kind", "subject", "holder"),
    partition_by=("event_date",),
)

SESSIONS_DAILY = Table(
    "sessions_daily",
    "A session that a call handed out: who gave whom which temporary access key",
    (
        *_CALL,
        _c("issued_key_id", "string", "Access key of the session"),
        _c("issued_arn", "string", "Whom the session is of"),
    ),
    key=("event_date", "issued_key_id"),
    partition_by=("event_date",),
)

REGION_HOUR = Table(
    "region_hour",
    "How many events an account had in a region in which hour",
    (
        _c("event_date", "date", "UTC day"),
        _c("hour_start", "timestamp", "Start of the hour"),
        _c("recipient_account_id", "string", "Account"),
        _c("aws_region", "string", "Region; empty where missing"),
        *_COUNTED,
    ),
    key=("hour_start", "recipient_account_id", "aws_region"),
    partition_by=("event_date",),
)

FACTS = (
    PRESENCE_DAILY,
    AGENT_DAILY,
    HOUR_DAILY,
    ERROR_QUARTER_HOUR,
    MOVES_DAILY,
    CHANGES_DAILY,
    SESSIONS_DAILY,
    REGION_HOUR,
)

# --------------------------------------------------------------------------------------- baseline

_AS_OF = _c("as_of", "date", "The baseline holds the days before this one")
_SCOPE = _c("scope", "string", "organization")

_DAYS: tuple[Column, ...] = (
    _c("days_7", "int", "Days seen among the last 7"),
    _c("days_30", "int", "Days seen among the last 30"),
    _c("days_90", "int", "Days seen among the last 90"),
    _c("days_decayed", "double", "Days seen, each halved for every 30 days of age"),
    _c("first_day", "date", "First day seen among the last 90"),
    _c("last_day", "date", "Last day seen"),
)

_PRINCIPALS: tuple[Column, ...] = (
    _c("principals_7", "bigint", "Principals behind it in the last 7 days, those of one actor counted once"),
    _c("principals_30", "bigint", "The same in the last 30 days"),
    _c("principals_90", "bigint", "The same in the last 90 days"),
)

_PLACED: tuple[Column, ...] = (
    _c("place", "string", "Key of the place"),
    _c("place_name", "string", "The place in words"),
    _c("country_iso_code", "string", "Country of the place"),
)

BASELINE_PRESENCE = Table(
    "baseline_presence",
    "The last 90 days of presence_daily folded into one row a key, with a bit for each day",
    (
        _AS_OF,
        *_WHO,
        _c("command", "string", "Command"),
        _c("source_ip_address", "string", "Address as written"),
        _c("outcome", "string", "Empty for success, else the error code"),
        _c("seen_low", "bigint", "Bit i is set when seen i + 1 days before as_of, i in 0..44"),
        _c("seen_high", "bigint", "Bit i is set when seen i + 46 days before as_of, i in 0..44"),
    ),
    key=("as_of", "recipient_account_id", "principal", "actor", "command", "source_ip_address", "outcome"),
    partition_by=("as_of",),
    retain_days=35,
)

BASELINE_COMMAND_PLACE = Table(
    "baseline_command_place",
    "How usual it is that a command comes from a place, organisation-wide",
    (_AS_OF, _SCOPE, _c("command", "string", "Command"), *_PLACED, *_DAYS, *_PRINCIPALS),
    key=("as_of", "scope", "command", "place"),
    partition_by=("as_of",),
    retain_days=35,
)

BASELINE_COMMAND_COUNTRY = Table(
    "baseline_command_country",
    "How usual it is that a command comes from a country, organisation-wide",
    (
        _AS_OF,
        _SCOPE,
        _c("command", "string", "Command"),
        _c("country", "string", "Country, or the geo_status"),
        *_DAYS,
        *_PRINCIPALS,
    ),
    key=("as_of", "scope", "command", "country"),
    partition_by=("as_of",),
    retain_days=35,
)

BASELINE_VALUE = Table(
    "baseline_value",
    "How usual a place, network, command, agent, ... is in the organisation",
    (
        _AS_OF,
        _SCOPE,
        _c(
            "dimension",
            "string",
            "place, area, country, network, prefix, command, agent, error, hour or jump",
        ),
        _c("value", "string", "The place, network, command, ..."),
        *_DAYS,
        *_PRINCIPALS,
        _c("settled_90", "bigint", "principals_90 without the last two days"),
    ),
    key=("as_of", "scope", "dimension", "value"),
    partition_by=("as_of",),
    retain_days=35,
)

_IDENTITY = _c("identity", "string", "An actor, or a principal judged by its own habit")

BASELINE_IDENTITY_VALUE = Table(
    "baseline_identity_value",
    "How usual a place, network, command, agent, ... is for an actor or principal",
    (
        _AS_OF,
        _IDENTITY,
        _c(
            "dimension",
            "string",
            "place, area, country, network, prefix, command, agent, error, hour or jump",
        ),
        _c("value", "string", "The place, network, command, ..."),
        *_DAYS,
        _c("recent_5", "int", "Days seen among the identity's last 5 active days"),
        _c("on_last_day", "int", "1 when seen on the identity's last active day, else 0"),
        _c("last_gap", "int", "Days between the last two uses of the 90 days"),
        _c("gap_before", "int", "Days between the two before"),
    ),
    key=("as_of", "identity", "dimension", "value"),
    partition_by=("as_of",),
    retain_days=35,
)

FIRST_USES = Table(
    "first_uses",
    "What somebody did on a day for the first time in 90 days, and how many others did it before",
    (
        _c("event_date", "date", "UTC day"),
        _IDENTITY,
        _c(
            "dimension",
            "string",
            "place, area, country, network, prefix, command, agent, error, hour or jump",
        ),
        _c("value", "string", "The place, network, command, ..."),
        _c("others", "bigint", "Actors who did so in the 90 days before, the last two left out"),
        _c("active_days", "bigint", "Days the identity was active in the 90 days before"),
        _c("is_actor", "boolean", "Whether it counts in the organisation's numbers"),
    ),
    key=("event_date", "identity", "dimension", "value"),
    partition_by=("event_date",),
)

BASELINE_IDENTITY = Table(
    "baseline_identity",
    "How old an actor or principal is and how often it does something new",
    (
        _AS_OF,
        _IDENTITY,
        _c(
            "dimension",
            "string",
            "place, area, country, network, prefix, command, agent, error, hour or jump",
        ),
        _c("active_days", "bigint", "Days active among the last 90"),
        _c(
            "new_days",
            "bigint",
            "Of these, days with a first use in this dimension (its first active day aside)",
        ),
    ),
    key=("as_of", "identity", "dimension"),
    partition_by=("as_of",),
    retain_days=35,
)

BASELINE_DIMENSION = Table(
    "baseline_dimension",
    "How often the organisation sees something new, by dimension",
    (
        _AS_OF,
        _SCOPE,
        _c(
            "dimension",
            "string",
            "place, area, country, network, prefix, command, agent, error, hour or jump",
        ),
        _c("value_days", "bigint", "Sum over values of days seen, last 90 days"),
        _c("values_seen", "bigint", "Distinct values, last 90 days"),
        _c("values_once", "bigint", "Of these, seen on one day only"),
        _c(
            "active_days",
            "bigint",
            "Sum over actors of active days with anything in this dimension, last 90 days",
        ),
        _c("new_days", "bigint", "Sum over actors of days with a first use"),
        _c(
            "first_uses",
            "array<bigint>",
            "First uses by how many others did it before: 0, 1, 2, 3-4, 5-9, 10 and more",
        ),
        _c("baseline_days", "int", "Days of facts the organisation had, 90 at most"),
    ),
    key=("as_of", "scope", "dimension"),
    partition_by=("as_of",),
    retain_days=35,
)

BASELINE_ERROR_HOUR = Table(
    "baseline_error_hour",
    "How many kinds of error a quarter of an hour has had, by hour of the week, over the last 90 days",
    (
        _AS_OF,
        _c("scope", "string", "actor, account or organization"),
        _c("value", "string", "The actor or account; empty for the organization", holds="subject"),
        _c("hour_of_week", "int", "Hours since Monday midnight, UTC"),
        _c("error_quarters", "bigint", "Quarter hours that had an error"),
        _c("kinds", "bigint", "Sum over these of their distinct error codes and templates"),
        _c("kinds_squared", "bigint", "Sum over these of the square of that number"),
    ),
    key=("as_of", "scope", "value", "hour_of_week"),
    partition_by=("as_of",),
    retain_days=35,
)

BASELINE_CITY_ACTION = Table(
    "baseline_city_action",
    "What an API action weighs in its city in the model of Elastic's job, for the score kept beside ours",
    (
        _AS_OF,
        _c("city_name", "string", "City, English name; those of one name fall together, as there"),
        _c("event_name", "string", "API action without its service, as there"),
        _c("weight", "double", "Hours it was seen in the last 90 days, decayed by the city's active hours"),
    ),
    key=("as_of", "city_name", "event_name"),
    partition_by=("as_of",),
    retain_days=35,
)

BASELINE_HOLDINGS = Table(
    "baseline_holdings",
    "Keys, users, policies, instances, addresses: when each was given and taken last, by what the trail tells",
    (
        _AS_OF,
        _c("kind", "string", "One of: " + ", ".join(CHANGE_KINDS)),
        _c("recipient_account_id", "string", "Account"),
        _c("subject", "string", "The key, user, policy, instance, address"),
        _c("holder", "string", "Whom or what it belongs to"),
        _c("given_at", "timestamp", "When it was made or given last; empty where the trail does not show it"),
        _c("given_by", "string", "Principal that did"),
        _c("given_command", "string", "By which command"),
        _c("given_event_id", "string", "In which event"),
        _c("taken_at", "timestamp", "When it was taken away last"),
        _c("first_used_at", "timestamp", "First use the trail shows, of a long-lived key"),
    ),
    key=("as_of", "kind", "recipient_account_id", "subject", "holder"),
    partition_by=("as_of",),
    retain_days=35,
)

WITHHELD = Table(
    "withheld",
    "Facts of presence_daily that no baseline holds: those of malicious and of unjudged incidents",
    (
        *(column for column in PRESENCE_DAILY.columns if column.name in PRESENCE_DAILY.key),
        _c(
            "reason",
            "string",
            "malicious: never learnt; unjudged: not while its alert waits, 14 days at most",
        ),
        _c("incident_id", "string", "The incident it belongs to, one of them where there are several"),
    ),
    key=PRESENCE_DAILY.key,
    partition_by=("event_date",),
)

BASELINES = (
    BASELINE_PRESENCE,
    BASELINE_COMMAND_PLACE,
    BASELINE_COMMAND_COUNTRY,
    BASELINE_VALUE,
    BASELINE_IDENTITY_VALUE,
    BASELINE_IDENTITY,
    BASELINE_DIMENSION,
    BASELINE_ERROR_HOUR,
    BASELINE_CITY_ACTION,
    BASELINE_HOLDINGS,
)

# --------------------------------------------------------------------------------------- coverage

EXPECTED_BY: dict[str, str] = {
    "hour_of_week": "the same hour of the same weekday, of which 4 or more are recorded",
    "hour_of_day": "the same hour of its working days, or of its rest days, 4 or more",
    "any_hour": "all its hours",
}

COVERAGE_STATUSES: dict[str, str] = {
    "ok": "as usual; silence that is usual, or not yet improbable, is ok too",
    "low": "less than a tenth of what is expected, where that is 20 events or more, and than ever then",
    "silent": "nothing for so long that it is improbable, and longer than ever in the 56 days before",
    "gone": "silent for 14 days or more: told often enough",
    "new": "an account or region not seen in the 56 days before",
    "unknown": "less than 14 days of its own record to compare with",
    "late": "so young that CloudTrail may not have delivered all of it: not judged",
}

# Stands for all accounts or all regions in what sums them up.
EVERY = "all"

_OF_SCOPE: tuple[Column, ...] = (
    _c("recipient_account_id", "string", "Account; all for all of them together"),
    _c("aws_region", "string", "Region; all for all of them together"),
)

_EXPECTED: tuple[Column, ...] = (
    _c("expected", "double", "Events usual in this hour: the median of the hours compared, empty ones too"),
    _c("expected_by", "string", "Hours compared: one of " + ", ".join(EXPECTED_BY)),
    _c("expected_share", "double", "How often such an hour has any event, from 0 to 1"),
)

_RECORDED: tuple[Column, ...] = (
    _c("recorded_days", "int", "Days from its first event to its last, of the 56 before"),
    _c("longest_silence", "bigint", "Most hours in a row without an event between these"),
)

BASELINE_COVERAGE_HOUR = Table(
    "baseline_coverage_hour",
    "How much comes from an account and region in each hour of the day as_of, and how long it was silent then",
    (
        _AS_OF,
        *_OF_SCOPE,
        _c("hour", "int", "Hour of the day as_of, UTC"),
        *_EXPECTED,
        _c("least_count", "bigint", "Fewest events in one of the hours compared"),
        _c("silent_bits", "double", "Bits that this hour without an event counts, 4 at most"),
        _c("off_bits", "double", "The same if the day were one of its rest days"),
        *_RECORDED,
        _c("last_hour", "timestamp", "Its last hour with an event before as_of"),
        _c("silent_bits_before", "double", "Bits of the silence from then to the beginning of as_of"),
        _c("silent_expected_before", "double", "Events usual in that time"),
    ),
    key=("as_of", "recipient_account_id", "aws_region", "hour"),
    partition_by=("as_of",),
    retain_days=35,
)

COVERAGE_HOURLY = Table(
    "coverage_hourly",
    "What came from an account and region in an hour beside what was expected; rows of all regions of an "
    "account, of a region in all accounts, and of everything stand beside those they sum up",
    (
        _c("event_date", "date", "UTC day"),
        _c("hour_start", "timestamp", "Start of the hour"),
        *_OF_SCOPE,
        _c("came", "bigint", "Events that came"),
        *_EXPECTED,
        *_RECORDED,
        _c("silent_hours", "bigint", "Hours without an event up to the end of this one"),
        _c("silent_expected", "double", "Events usual in these hours"),
        _c("silent_bits", "double", "How improbable their silence is; silent from 20 on"),
        _c("status", "string", "One of: " + ", ".join(COVERAGE_STATUSES)),
    ),
    key=("hour_start", "recipient_account_id", "aws_region"),
    partition_by=("event_date",),
    retain_days=400,
)

# --------------------------------------------------------------------------------------- findings

_TERMS: tuple[Column, ...] = (
    _c("as_of", "date", "The baseline it was judged by holds the days before this one"),
    _c("baseline_days", "bigint", "Days of history the organisation had in that baseline"),
    _c(
        "judged_as", "string", "Whose habit it was judged by: the actor, or the principal where that is older"
    ),
    _c("principal_active_days", "bigint", "Days they were active in the 90 days before"),
    _c("principal_place_days", "bigint", "Of these, days at this place"),
    _c(
        "principal_area_days",
        "bigint",
        "Of these, days in the square of one degree, some 100 km, around the place",
    ),
    _c("principal_network_days", "bigint", "Of these, days on this network"),
    _c("principal_prefix_days", "bigint", "Of these, days in this address prefix (/24 or /48)"),
    _c("principal_agent_days", "bigint", "Of these, days with this user agent family"),
    _c("principal_command_days", "bigint", "Of these, days with this command"),
    _c("principal_error_days", "bigint", "Of these, days with this error code"),
    _c("principal_hour_days", "bigint", "Of these, days with events in this hour"),
    _c("principal_jump_days", "bigint", "Of these, days with a jump no traveller can make"),
    _c("place_principals", "bigint", "Others at this place in the 90 days before"),
    _c("area_principals", "bigint", "Others in the area around it: a new place is no more unusual than that"),
    _c("network_principals", "bigint", "Others on this network"),
    _c("prefix_principals", "bigint", "Others in this address prefix"),
    _c("agent_principals", "bigint", "Others with this user agent family"),
    _c("command_principals", "bigint", "Others with this command"),
    _c("error_principals", "bigint", "Others with this error code"),
    _c("command_days", "bigint", "Days the organisation used this command in the 90 days before"),
    _c("place_days", "bigint", "Days the organisation used this place"),
    _c("command_place_days", "bigint", "Days this command came from this place"),
    _c("country_days", "bigint", "Days the organisation used this country"),
    _c("command_country_days", "bigint", "Days this command came from this country"),
    _c("nearest_place", "string", "Their nearest known place, where this one is new to them"),
    _c("nearest_place_km", "double", "Kilometres to it"),
    _c(
        "near_reach_km",
        "double",
        "Kilometres that count as near: baseline.near_km, or both accuracy radii where they reach farther",
    ),
    _c("near_known_place", "boolean", "Guard: a known place is so near that this one is hardly new"),
    _c("known_places", "bigint", "Cities they were seen in in the 90 days before, where this one is new"),
    _c("known_countries", "array<string>", "The countries of these, as codes"),
    _c(
        "vague_place",
        "boolean",
        "Guard: the database places the address no better than 200 km, in a country they know: hardly new",
    ),
    _c(
        "place_spared_bits",
        "double",
        "Bits that these two guards, a known network of kind office or vpn, or the others in the area "
        "around it took off a new place; empty where it is not new",
    ),
    _c("rolled_out", "boolean", "Guard: the command is new to the organisation and others took it up too"),
    _c(
        "settled_range",
        "boolean",
        "Guard: they used this address prefix on 3 days or more; where all findings of an incident say so, "
        "it loses 4 bits",
    ),
    _c(
        "cadence_days",
        "int",
        "Days from one use of the command to the next, where its last three are regular",
    ),
    _c("expected_date", "date", "When that expects the next"),
    _c("on_cadence", "boolean", "Guard: the command comes about when it is expected, so it is no surprise"),
    _c("local_hour", "int", "Hour of the day at the place; empty where its time zone is unknown"),
    _c("hosting_network", "boolean", "Whether the network's name is one of a hoster or cloud"),
    _c("jump_km", "double", "Kilometres of the jump this address was an end of"),
    _c("jump_seconds", "bigint", "Seconds it took"),
    _c("jump_place", "string", "Its other end"),
    _c(
        "jump_least_km_per_hour",
        "double",
        "Speed it takes where both places are as near as their accuracy radii allow",
    ),
    _c("sensitivity", "int", "0-4: what the command can do (conf/sensitivity.yml)"),
    _c("place_given_command_bits", "double", "Evidence: surprise of the place, given the command"),
    _c("command_given_place_bits", "double", "Evidence: surprise of the command, given the place"),
    _c("country_given_command_bits", "double", "Evidence: surprise of the country, given the command"),
    _c("command_given_country_bits", "double", "Evidence: surprise of the command, given the country"),
    _c("place_bits", "double", "Surprise of the place, given whose habit it is"),
    _c(
        "network_bits",
        "double",
        "Surprise of the network; at a place known on fewer than 3 days only of how few use it",
    ),
    _c("prefix_bits", "double", "Surprise of an address prefix nobody used, on a network somebody did"),
    _c("jump_bits", "double", "Surprise of being at two places faster than anyone can travel"),
    _c("agent_bits", "double", "Surprise of the user agent family"),
    _c(
        "hour_bits", "double", "Surprise of the hour: the lesser of their own habit's and of the local time's"
    ),
    _c("host_bits", "double", "Surprise of a person on a hoster's network new to them"),
    _c("command_bits", "double", "Surprise of the command, raised by its sensitivity where it is new"),
    _c("error_bits", "double", "Surprise of the error code"),
    _c(
        "spike_bits",
        "double",
        "Surprise of the kinds of error in the quarter hour; empty but for findings of a spike",
    ),
    _c(
        "spike_count",
        "bigint",
        "Kinds of error in it, distinct codes and message templates; outside an actor's own scope "
        "all those of the leading actor count as one",
    ),
    _c("spike_expected", "double", "Kinds expected in a quarter hour of this hour that has an error"),
    _c("spike_scope", "string", "Where they were counted: actor, account or organization"),
    _c("distinct_messages", "bigint", "Distinct messages as written in it, organisation-wide"),
    _c("where_bits", "double", "place_bits + network_bits + prefix_bits / 2 + jump_bits"),
    _c("how_bits", "double", "agent_bits + hour_bits + host_bits"),
    _c("what_bits", "double", "The greatest of command_bits, error_bits and spike_bits"),
    _c("maturity", "double", "0..1: how far their history can be trusted"),
)

EVIDENCE: tuple[Column, ...] = (
    _c("user_identity_type", "string", "userIdentity.type of the first event"),
    _c("user_identity_arn", "string", "userIdentity.arn of the first event"),
    _c("session_issuer_arn", "string", "Role or user that issued the session"),
    _c(
        "credential",
        "string",
        "How the credentials were obtained: access key, console, identity center, instance role, assumed role, "
        "saml, web identity, federation token, session token, root session, root, service or unknown",
        arrival=True,
    ),
    _c("session_created_at", "timestamp", "When the session was created"),
    _c("mfa_authenticated", "boolean", "Was the session opened with MFA"),
    _c("aws_region", "string", "Region of the first event"),
    _c("request_parameters", "string", "Request of the first event without secrets, first 1,000 characters"),
    _c(
        "session_command",
        "string",
        "Call that handed out the session, where the trail shows it",
        arrival=True,
    ),
    _c(
        "session_chain",
        "array<string>",
        "Principals from the one that handed it out back to the first",
        arrival=True,
    ),
    _c("origin_principal", "string", "The first of that chain", arrival=True),
    _c("origin_access_key_id", "string", "The access key it used", arrival=True),
    _c("origin_source_ip_address", "string", "The address it called from", arrival=True),
    _c("origin_time", "timestamp", "When", arrival=True),
    _c("key_created_at", "timestamp", "When the access key was made, where the trail shows it", arrival=True),
    _c("key_created_by", "string", "Principal that made it", arrival=True),
    _c(
        "key_first_used_at",
        "timestamp",
        "First use of a long-lived key the trail shows, to this event",
        arrival=True,
    ),
    _c(
        "identity_created_at",
        "timestamp",
        "When the user or role was made, where the trail shows it",
        arrival=True,
    ),
    _c("identity_created_by", "string", "Principal that made it", arrival=True),
    _c(
        "policies_seen",
        "array<string>",
        "Policies attached to the user or role and not detached, as far as the trail shows; first 50",
        arrival=True,
    ),
    _c("aws_network", "boolean", "Whether the address is Amazon's; empty without an ASN database"),
    _c(
        "own_resource",
        "string",
        "The organisation's own instance, network interface, NAT gateway or allocation that had the address then",
        arrival=True,
    ),
    _c("own_account_id", "string", "The account it is in", arrival=True),
    _c("own_since", "timestamp", "Since when it had the address", arrival=True),
    _c("own_instance_profile", "string", "The instance profile it was launched with", arrival=True),
)

_ELASTIC: tuple[Column, ...] = (
    _c(
        "elastic_record_score",
        "double",
        "The most Elastic's job for cities would give this command here in this hour, 0-100; "
        "empty without a city",
    ),
    _c(
        "elastic_probability",
        "double",
        "Its probability there: that of an action no more likely, given the city",
    ),
)

_SCORE: tuple[Column, ...] = (
    _c(
        "score",
        "double",
        "0-100 by rank: (100 - score) / score incidents a day at least this unusual are expected",
        # By the calibration of its day, which what comes later does not change.
        arrival=True,
    ),
    _c("bits", "double", "How surprising it is, in bits; orders what ties in score"),
    _c("severity", "string", "low, medium, high or critical, by score band", arrival=True),
)

_FINDING: tuple[Column, ...] = (
    _c("anomaly_id", "string", "Hash of detector, bucket and the key the detector counts"),
    _c("detector", "string", "Detector that found it"),
    _c("bucket_start", "timestamp", "Start of the bucket, UTC"),
    _c("bucket_end", "timestamp", "End of the bucket, exclusive"),
    _c("bucket_date", "date", "UTC day of the bucket"),
    *_WHO,
    _c("command", "string", "Command"),
    _c("source_ip_address", "string", "Address as written"),
    _c("error_code", "string", "Error code; empty for success"),
    _c("user_agent", "string", "User agent of the first event"),
    _c("agent_family", "string", "Its family"),
    _c("access_key_id", "string", "Access key of the first event"),
    _c("event_count", "bigint", "Events in the bucket under this key"),
    _c("first_time", "timestamp", "First of them"),
    _c("last_time", "timestamp", "Last of them"),
    _c(
        "late_minutes",
        "bigint",
        "Minutes from when the slowest of them happened to when it was taken in",
        arrival=True,
    ),
    *PLACE_COLUMNS,
    *_ADDRESS,
    _c("geo_build", "string", "Build of the databases that placed it"),
    _c("known_network", "string", "The organisation's name for the network (conf/networks.yml)"),
    _c("known_network_kind", "string", "office, vpn, vendor, hosting or hostile"),
    *_TERMS,
    *EVIDENCE,
    *_ELASTIC,
    *_SCORE,
    _c("rule_severity", "string", "Severity of the detector's rule"),
    _c("risk_score", "int", "Risk score of the detector's rule"),
    _c("summary", "string", "What happened and why it is unusual, in a sentence"),
    _c("evidence_event_ids", "array<string>", "Event ids of its events, first 100"),
    _c("settings_hash", "string", "Hash of the settings it was judged under"),
    _c("run_id", "string", "Run that found it last", arrival=True),
)

VERDICTS: dict[str, str] = {
    "malicious": "an intrusion; its events are never learnt",
    "benign": "looked at and harmless",
    "benign_expected": "harmless, and to be expected again: travel, a new office, a rare duty",
    "false_positive": "should not have been found: wrong place, wrong principal, a fault of raretrail",
    "planned": "part of a planned change or exercise",
}

STATES: dict[str, str] = {
    "open": "nobody has taken it up",
    "acknowledged": "somebody looks at it",
    "closed": "done; a new finding opens it again",
}

STAGED_ANOMALIES = Table(
    "staged_anomalies",
    "Findings of the run in progress, before they are checked",
    _FINDING,
    key=("anomaly_id",),
)

STAGED_TOUCHED = Table(
    "staged_touched",
    "Published findings that rest on what came late, to be judged again beside the window",
    (
        *(
            column
            for column in _FINDING
            if column.name
            in (
                "anomaly_id",
                "bucket_start",
                "bucket_date",
                "recipient_account_id",
                "principal",
                "actor",
                "command",
                "source_ip_address",
                "error_code",
                "spike_bits",
            )
        ),
    ),
    key=("anomaly_id",),
)

ANOMALIES = Table(
    "anomalies",
    "One scored finding: what was unusual, every term of its score with its counts, the evidence",
    (
        *_FINDING,
        _c("incident_id", "string", "Incident it belongs to"),
        _c(
            "quality",
            "string",
            "ok, or the expectations that warned when it was published",
            arrival=True,
        ),
        _c("first_scored_at", "timestamp", "When it was first published", arrival=True),
        _c("score_revision", "int", "How often its row changed since (table revisions)", arrival=True),
        _c(
            "former_incident_ids",
            "array<string>",
            "Ids of incidents it was in before, whose earliest finding became another",
            arrival=True,
        ),
        _c(
            "suppressed_by",
            "string",
            "Disposition or change window that suppresses it; it is kept, counted and not alerted",
            arrival=True,
        ),
    ),
    key=("anomaly_id",),
    partition_by=("bucket_date",),
    stats=("bucket_start", "principal", "command", "incident_id", "detector", "score"),
)

REVISION_REASONS: dict[str, str] = {
    "late_events": "events of its bucket came after the bucket had been judged, or were corrected",
    "late_history": "events came late, or were corrected, that share its principal, command or place",
    "judged_again": "its bucket was judged again within the look-back, or by playing history",
    "settings": "it was judged again under other settings",
}

REVISIONS = Table(
    "revisions",
    "One change of a published finding: what it was, what it became, and why; that an unfinished bucket gained "
    "events which changed no bits is only counted, in score_revision",
    (
        _c("anomaly_id", "string", "The finding", arrival=True),
        _c("score_revision", "int", "Its revision since", arrival=True),
        _c("revised_at", "timestamp", "When it was revised", arrival=True),
        _c("revised_date", "date", "UTC day of that", arrival=True),
        _c("reason", "string", "One of: " + ", ".join(REVISION_REASONS), arrival=True),
        _c(
            "withdrawn",
            "boolean",
            "Whether it no longer stands: then it is in anomalies no more",
            arrival=True,
        ),
        _c("detector", "string", "Its detector", arrival=True),
        _c("bucket_start", "timestamp", "Start of its bucket", arrival=True),
        _c("recipient_account_id", "string", "Account", arrival=True),
        _c("principal", "string", "Principal", arrival=True),
        _c("command", "string", "Command", arrival=True),
        _c("place_name", "string", "The place in words", arrival=True),
        _c("late_minutes", "bigint", "Its late_minutes since", arrival=True),
        _c("was_bits", "double", "Bits before", arrival=True),
        _c("bits", "double", "Bits since", arrival=True),
        _c("was_score", "double", "Score before", arrival=True),
        _c("score", "double", "Score since, by the calibration it was first scored by", arrival=True),
        _c("was_event_count", "bigint", "Events before", arrival=True),
        _c("event_count", "bigint", "Events since", arrival=True),
        _c("changed", "array<string>", "Terms that changed: 'place_bits 6.97 to 0.0'", arrival=True),
        _c("was_incident_id", "string", "Incident it was in", arrival=True),
        _c("incident_id", "string", "Incident it is in since", arrival=True),
        _c("run_id", "string", "Run that revised it", arrival=True),
    ),
    key=("anomaly_id", "score_revision", "revised_date"),
    partition_by=("revised_date",),
    retain_days=400,
)

INCIDENT_EVIDENCE: tuple[Column, ...] = (
    _c("access_key_ids", "array<string>", "Access keys of its findings, first 50, as all lists that follow"),
    _c("credentials", "array<string>", "How they were obtained", arrival=True),
    _c("key_created_at", "timestamp", "When the oldest was made, where the trail shows it", arrival=True),
    _c(
        "key_first_used_at",
        "timestamp",
        "First use of the oldest long-lived one the trail shows",
        arrival=True,
    ),
    _c("any_mfa", "boolean", "Whether any of its sessions was opened with MFA"),
    _c(
        "origin_principals",
        "array<string>",
        "Who first handed out its sessions, where the trail shows it",
        arrival=True,
    ),
    _c(
        "became",
        "array<string>",
        "Identities whose sessions its principals took from its addresses",
        arrival=True,
    ),
    _c(
        "policies_seen",
        "array<string>",
        "Policies attached to its users and roles, as far as the trail shows",
        arrival=True,
    ),
    _c(
        "own_resources",
        "array<string>",
        "The organisation's own resources that had its addresses",
        arrival=True,
    ),
    _c(
        "earlier_findings",
        "array<string>",
        "Other findings of its actors in the 48 hours before",
        arrival=True,
    ),
    _c("earlier_count", "bigint", "How many", arrival=True),
    _c(
        "touched_services",
        "array<string>",
        "Services its principals used in the 24 hours up to its last event",
        arrival=True,
    ),
    _c("touched_accounts", "array<string>", "Accounts", arrival=True),
    _c("touched_regions", "array<string>", "Regions", arrival=True),
    _c("touched_resources", "array<string>", "ARNs of the resources", arrival=True),
    _c("resource_count", "bigint", "How many", arrival=True),
    _c("touched_writes", "bigint", "Calls among them that did not only read", arrival=True),
    _c("bytes_out", "bigint", "Bytes handed out, where events tell it (data events of S3 do)", arrival=True),
    _c(
        "made",
        "array<string>",
        "What its principals made or gave during it: keys, users, roles, policies, ...",
        arrival=True,
    ),
    _c("account_names", "array<string>", "Names of its accounts (conf/accounts.yml)", arrival=True),
    _c("account_owners", "array<string>", "Their owners and how to reach them", arrival=True),
    _c("account_environments", "array<string>", "Their environments", arrival=True),
    _c("account_data", "array<string>", "Kinds of data they hold", arrival=True),
    _c("regulations", "array<string>", "What these fall under", arrival=True),
    _c("criticality", "string", "The highest of theirs: low, medium, high or critical", arrival=True),
    _c(
        "response_steps",
        "array<string>",
        "AWS CLI commands that stop its identities and take away what they made: text, never run",
        arrival=True,
    ),
)

INCIDENTS = Table(
    "incidents",
    "Findings of one actor in one place, close in time",
    (
        _c("incident_id", "string", "anomaly_id of its earliest finding"),
        _c("first_date", "date", "UTC day of its first finding"),
        _c("actor", "string", "The person or program it is of, else the principal"),
        _c("principal", "string", "Principal of its most surprising finding"),
        _c("principal_kind", "string", "Kind of principal"),
        _c("principals", "array<string>", "All its principals"),
        _c("recipient_account_ids", "array<string>", "Accounts it happened in"),
        *(
            column
            for column in PLACE_COLUMNS
            if column.name not in ("as_number", "as_organization", "network")
        ),
        _c("source_ip_addresses", "array<string>", "Addresses"),
        _c("networks", "array<string>", "Networks"),
        _c("first_time", "timestamp", "Its first event"),
        _c("last_time", "timestamp", "Its last event"),
        *_SCORE,
        _c("where_bits", "double", "Most surprising where of its findings"),
        _c("how_bits", "double", "Most surprising how"),
        _c("what_bits", "double", "Most surprising what, and the burst"),
        _c(
            "home_bits",
            "double",
            "-4 where all its findings came from address prefixes they used on 3 days or more, else 0",
        ),
        _c("detectors", "array<string>", "Detectors that found it"),
        _c("commands", "array<string>", "Commands, most surprising first"),
        _c("findings", "bigint", "Findings in it"),
        _c("event_count", "bigint", "Events of its actor from its addresses in its buckets"),
        _c("evidence_event_ids", "array<string>", "Event ids of all its events, first 1,000"),
        _c("summary", "string", "What happened and why it is unusual, in a few words"),
        *INCIDENT_EVIDENCE,
        _c(
            "supersedes",
            "array<string>",
            "Incidents that became part of it, by their former ids; verdicts on them hold for it",
            arrival=True,
        ),
        _c("quality", "string", "ok, or the expectations that warned", arrival=True),
        _c("alerted_at", "timestamp", "When it was alerted, if it was", arrival=True),
        _c(
            "alert_revision",
            "int",
            "Revision of its latest alert that is to be delivered, from 0; empty where no webhook was set",
            arrival=True,
        ),
        _c(
            "state",
            "string",
            "open, acknowledged or closed; a new finding after closing opens it again",
            arrival=True,
        ),
        _c("assignee", "string", "Who looks after it", arrival=True),
        _c("verdict", "string", "Latest verdict on it: " + ", ".join(VERDICTS), arrival=True),
        _c("verdict_by", "string", "Who gave the verdict", arrival=True),
        _c("verdict_at", "timestamp", "When the verdict was given", arrival=True),
        _c(
            "suppressed_by",
            "string",
            "What suppresses its most surprising finding, when all of its findings are suppressed",
            arrival=True,
        ),
        _c("run_id", "string", "Run that wrote it last", arrival=True),
    ),
    key=("incident_id",),
    partition_by=("first_date",),
)

# ------------------------------------------------------------------------------------------- alerts

ALERT_STATUSES: dict[str, str] = {
    "pending": "not delivered yet; the next run tries",
    "delivered": "a receiver answered that it has it",
    "given_up": "refused for good, or tried too often",
}

OUTBOX = Table(
    "outbox",
    "One alert to be delivered to the webhook, and what became of it",
    (
        _c("incident_id", "string", "Incident"),
        _c(
            "revision",
            "int",
            "0 for its first alert; the next each time it is alerted again, having been closed",
            arrival=True,
        ),
        _c("alerted_at", "timestamp", "When it was alerted", arrival=True),
        _c("alerted_date", "date", "UTC day of that", arrival=True),
        _c("format", "string", "Format of payload: incident, slack, ecs or ocsf"),
        _c("payload", "string", "What is posted, JSON, as of when the row was written", arrival=True),
        _c("created_at", "timestamp", "When the row was written", arrival=True),
        _c("run_id", "string", "Run that wrote it", arrival=True),
        _c("attempts", "int", "How often it was tried", arrival=True),
        _c("last_attempt_at", "timestamp", "When it was last tried", arrival=True),
        _c("last_error", "string", "What went wrong then; empty once delivered", arrival=True),
        _c("delivered_at", "timestamp", "When it was delivered", arrival=True),
        _c("status", "string", "One of: " + ", ".join(ALERT_STATUSES), arrival=True),
    ),
    key=("incident_id", "revision"),
    partition_by=("alerted_date",),
    stats=("incident_id", "revision", "status"),
    retain_days=400,
)

# ----------------------------------------------------------------------------------------- verdicts

_COVERED: tuple[Column, ...] = (
    _c("detector", "string", "Only findings of this detector; empty for any, as all that follow"),
    _c("principal", "string", "Only of this principal"),
    _c("command", "string", "Only of this command, as in iam:CreateUser"),
    _c("place", "string", "Only at this place, by its key"),
    _c("source_ip_address", "string", "Only from this address, or block of addresses in CIDR notation"),
    _c("network", "string", "Only on this network: AS<number>, or the /24 or /48"),
    _c("recipient_account_id", "string", "Only in this account"),
)

_SAID: tuple[Column, ...] = (
    _c("reason", "string", "Why"),
    _c("author", "string", "Who says so"),
    _c("ticket", "string", "Where it is written up"),
    _c("created_at", "timestamp", "When it was said"),
)


def _checks(key: str) -> dict[str, str]:
    return {
        "has_id": f"{key} IS NOT NULL AND {key} <> ''",
        "has_author": "author IS NOT NULL AND author <> ''",
        "has_time": "created_at IS NOT NULL",
    }


def _one_of(column: str, values: Iterable[str]) -> str:
    return f"{column} IS NULL OR {column} IN ({', '.join(repr(value) for value in values)})"


_SCOPED = " OR ".join(f"{column.name} IS NOT NULL" for column in _COVERED)

DISPOSITIONS = Table(
    "dispositions",
    "What an analyst said of an incident, or of all findings of a scope; rows are added, never changed",
    (
        _c("disposition_id", "string", "Its id; any text not used before"),
        _c("incident_id", "string", "Only this incident, under whatever id it has become part of"),
        _c("anomaly_id", "string", "Only this finding"),
        *_COVERED,
        _c("verdict", "string", "One of: " + ", ".join(VERDICTS) + "; empty for none"),
        _c("suppress", "boolean", "Whether findings it covers are suppressed"),
        _c("state", "string", "State the incident is put in: " + ", ".join(STATES)),
        _c("assignee", "string", "Who is to look after the incident"),
        *_SAID,
        _c("expires_at", "timestamp", "Findings with events from here on are not covered; empty for never"),
        _c("withdraws", "string", "Id of an earlier disposition that holds no longer"),
    ),
    key=("disposition_id",),
    checks={
        **_checks("disposition_id"),
        "known_verdict": _one_of("verdict", VERDICTS),
        "known_state": _one_of("state", STATES),
        "suppression_has_reason": (
            "suppress IS NULL OR NOT suppress OR (reason IS NOT NULL AND reason <> '')"
        ),
        "suppression_has_scope": (
            f"suppress IS NULL OR NOT suppress OR incident_id IS NOT NULL OR anomaly_id IS NOT NULL OR {_SCOPED}"
        ),
        "malicious_is_not_suppressed": (
            "suppress IS NULL OR NOT suppress OR verdict IS NULL OR verdict <> 'malicious'"
        ),
        "expires_after_creation": (
            "expires_at IS NULL OR (created_at IS NOT NULL AND expires_at > created_at)"
        ),
    },
)

CHANGE_WINDOWS = Table(
    "change_windows",
    "A planned change: findings of its scope within its time are suppressed, entered before or afterwards",
    (
        _c("window_id", "string", "Its id; any text not used before"),
        *_COVERED,
        _c("starts_at", "timestamp", "Its beginning"),
        _c("ends_at", "timestamp", "Its end, exclusive"),
        *_SAID,
        _c("withdraws", "string", "Id of an earlier window that holds no longer"),
    ),
    key=("window_id",),
    checks={
        **_checks("window_id"),
        "has_reason": "withdraws IS NOT NULL OR (reason IS NOT NULL AND reason <> '')",
        "has_scope": f"withdraws IS NOT NULL OR {_SCOPED}",
        "ends_after_start": (
            "withdraws IS NOT NULL OR (starts_at IS NOT NULL AND ends_at IS NOT NULL AND ends_at > starts_at)"
        ),
    },
)

CALIBRATIONS = Table(
    "calibrations",
    "What bits are worth on a day: those of the incidents before it, kept so that a score stays what it was",
    (
        _c("as_of", "date", "The day whose findings and incidents are scored by it"),
        _c("settings_hash", "string", "Hash of the settings these are judged under"),
        _c("judged_days", "int", "Days judged among the 30 before", arrival=True),
        _c(
            "bits",
            "array<double>",
            "Bits of the incidents of these days as known then, descending, first 1,000",
            arrival=True,
        ),
    ),
    key=("as_of", "settings_hash"),
)

# ------------------------------------------------------------------------------------------- runs

RUNS = Table(
    "runs",
    "One run: what it read, what it found, how it ended, how long each stage took",
    (
        _c("run_id", "string", "Run"),
        _c("started_at", "timestamp", "Start"),
        _c("finished_at", "timestamp", "End"),
        _c(
            "status",
            "string",
            "done, held (published in part or not at all), staged (scored, not published) or failed",
        ),
        _c(
            "mode",
            "string",
            "scheduled, history, or the one step it took: ingest, baseline, score, publish",
        ),
        _c("message", "string", "What went wrong, was held or fell silent, and what to do"),
        _c("as_of", "timestamp", "The time the run took as now"),
        _c("window_from", "timestamp", "Buckets were judged from here"),
        _c("window_to", "timestamp", "to here, exclusive"),
        _c(
            "late_buckets",
            "array<timestamp>",
            "Earlier buckets judged again, because events came late for them",
        ),
        _c("event_days", "array<date>", "Days whose facts it wrote"),
        _c("held_scopes", "array<string>", "What was held back: all, or column=value"),
        _c(
            "counts",
            "map<string,bigint>",
            "files, records, events, duplicates, quarantined, findings, published, suppressed, incidents, alerts, alerts_sent, ...",
        ),
        _c("seconds", "map<string,double>", "Seconds by stage"),
        _c(
            "input_versions",
            "map<string,bigint>",
            "Delta version of each table its findings rest on, and of what was said",
        ),
        _c("settings_hash", "string", "Hash of the settings"),
        _c("geo_build", "string", "Build of the databases"),
        _c("program_version", "string", "Version of raretrail"),
    ),
    key=("run_id",),
    stats=("run_id", "started_at"),
)

# quality

DATA_QUALITY = Table(
    "data_quality",
    "What one expectation found in one run: a row for each scope that failed, one for all that passed",
    (
        _c("run_id", "string", "Run that checked"),
        _c("suite", "string", "Suite: events, baseline, findings, ledger or coverage"),
        _c("expectation", "string", "Expectation, by its name in conf/expectations"),
        _c("severity", "string", "critical (holds publication) or warning"),
        _c(
            "scope_column",
            "string",
            "Column whose values are judged one by one; empty for the whole table",
        ),
        _c(
            "scope_value",
            "string",
            "The value that failed; empty for the whole table or all values that passed",
        ),
        _c("success", "boolean", "Whether it was met"),
        _c("observed_value", "double", "What was measured; the largest where several passed"),
        _c("unexpected_count", "bigint", "Rows that were not as expected, where that was counted"),
        _c("element_count", "bigint", "Rows it looked at"),
        _c("detail", "string", "What failed on how many rows and what to do"),
        _c("kwargs", "string", "Type and arguments of the expectation, JSON"),
        _c("gx_version", "string", "Version of Great Expectations"),
        _c("checked_at", "timestamp", "When it was judged"),
    ),
    key=("run_id", "suite", "expectation", "scope_value"),
)

# --------------------------------------------------------------------------------------- forgotten

TOMBSTONE_KINDS: dict[str, str] = {
    "actor": "records of this actor are left out",
    "principal": "records of this principal are left out",
    "address": "records from this address are left out, and it is taken out of the words of others",
    "name": "it is taken out of the words of others' records",
    "finding": "the anomaly_id or incident_id of what was removed",
}

TOMBSTONES = Table(
    "tombstones",
    "What is not taken in again: keyed hashes of who and what was forgotten, never their names",
    (
        _c("kind", "string", "One of: " + ", ".join(TOMBSTONE_KINDS)),
        _c("hash", "string", "HMAC-SHA256, under the key that is kept elsewhere, of kind and name"),
        _c("recipient_account_id", "string", "Only in this account; empty for all"),
        _c("forgotten_at", "timestamp", "Events before this time are left out; later ones are taken in"),
        _c("key_id", "string", "Which key: a hash of it"),
        _c("receipt_id", "string", "Receipt of the forgetting, in forgettings"),
    ),
    key=("kind", "hash", "recipient_account_id"),
)

FORGETTINGS = Table(
    "forgettings",
    "The receipt of a forgetting: a row for each table, naming nobody",
    (
        _c("receipt_id", "string", "Receipt"),
        _c("kind", "string", "person or address"),
        _c("hash", "string", "Keyed hash of the actor or address: the same whenever it is forgotten"),
        _c("recipient_account_id", "string", "Only in this account; empty for all"),
        _c("table_name", "string", "Table"),
        _c("rows_removed", "bigint", "Rows that went"),
        _c("rows_rewritten", "bigint", "Rows of others from which the name went"),
        _c("rebuilt", "boolean", "Whether it was made anew from what remains"),
        _c(
            "files_removed",
            "bigint",
            "Files deleted, old versions and log entries among them; empty where the storage does not say",
        ),
        _c("forgotten_at", "timestamp", "When"),
        _c("author", "string", "Who did it"),
        _c("key_id", "string", "Under which key the hash was made"),
        _c("program_version", "string", "Version of raretrail"),
    ),
    key=("receipt_id", "table_name"),
)

# The least days a setting may keep a table: what judging, chaining incidents and telling copies look back
# to, so that no finding depends on the setting. All others may be kept for a day.
LEAST_DAYS: dict[str, int] = {
    EVENTS.name: 90,
    INGEST_FILES.name: 90,
    **{table.name: 181 for table in (*FACTS, FIRST_USES, WITHHELD)},
    **{table.name: 8 for table in BASELINES},
    ANOMALIES.name: 90,
    INCIDENTS.name: 90,
}

# The layout of all tables together. A warehouse carries it; a program refuses one that is newer than it.
SCHEMA_VERSION = 1
VERSION_PROPERTY = "raretrail.schema_version"

ALL: tuple[Table, ...] = (
    EVENTS,
    QUARANTINE,
    INGEST_FILES,
    DIGEST_RESULTS,
    PLACES,
    *FACTS,
    FIRST_USES,
    *BASELINES,
    BASELINE_COVERAGE_HOUR,
    COVERAGE_HOURLY,
    WITHHELD,
    STAGED_LISTING,
    STAGED_CENSUS,
    STAGED_ANOMALIES,
    STAGED_TOUCHED,
    ANOMALIES,
    REVISIONS,
    INCIDENTS,
    OUTBOX,
    DISPOSITIONS,
    CHANGE_WINDOWS,
    CALIBRATIONS,
    DATA_QUALITY,
    RUNS,
    TOMBSTONES,
    FORGETTINGS,
)
