"""Settings: one typed tree, parsed once at the edge, unknown keys refused.

Defaults come from `conf/` (inside the wheel, or beside the checkout); `--conf` lays a file or a
folder over them; options lay over both. `Settings.hash` names the result in every row it decided.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from datetime import timedelta
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from raretrail.errors import UsageError

_M = TypeVar("_M", bound=BaseModel)

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_duration(text: str | timedelta) -> timedelta:
    """'2h', '15m', '90d', '30s' as a timedelta; ValueError otherwise."""
    if isinstance(text, timedelta):
        return text
    match = re.fullmatch(r"\s*(\d+)\s*([smhd])\s*", str(text))
    if not match:
        raise ValueError(f"{text!r} is no duration: write a number and s, m, h or d, as in 2h or 90d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def format_duration(value: timedelta) -> str:
    """The shortest of `parse_duration`'s forms that is exact."""
    seconds = int(value.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


Duration = Annotated[
    timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration, return_type=str)
]


def _several(value: object) -> object:
    """One value or a list of them, as a list."""
    return value if isinstance(value, list | tuple) else [value]


class Model(BaseModel):
    """A settings node: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SparkSettings(Model):
    """How a session is opened where raretrail opens it itself."""

    remote: str | None = None
    driver_memory: str = ""
    cores: str = "*"
    ui: bool = False
    size: Literal["auto", "small", "large"] = "auto"


class IngestSettings(Model):
    """What of the trail is read, and how much at a time."""

    history: Duration = timedelta(days=90)
    recent_days: Annotated[int, Field(ge=1)] = 2
    batch_bytes: Annotated[int, Field(ge=1)] = 1024 * 1024 * 1024
    task_bytes: Annotated[int, Field(ge=1)] = 16 * 1024 * 1024
    driver_bytes: Annotated[int, Field(ge=0)] = 8 * 1024 * 1024
    duplicate_days: Annotated[int, Field(ge=1)] = 7
    s3_reader: Literal["auto", "python", "spark"] = "auto"
    files_from: str | None = None
    direct: bool = True
    listing: Literal["folders", "stream", "autoloader"] = "folders"
    listing_state: str | None = None
    listing_options: dict[str, str] = {}
    time_column: str | None = None


# How files are found and read decides nothing of what they hold.
_HOW_READ = {
    "recent_days", "batch_bytes", "task_bytes", "driver_bytes", "s3_reader", "files_from", "direct",
    "listing", "listing_state", "listing_options", "time_column",
}  # fmt: skip


class GeoSettings(Model):
    """The GeoIP databases; empty city_db is the embedded one."""

    city_db: str | None = None
    asn_db: str | None = None


class BaselineSettings(Model):
    """What is counted as usual."""

    near_km: Annotated[float, Field(ge=0)] = 100.0


class ScoreSettings(Model):
    """What is judged, and what of it is kept."""

    lookback: Duration = timedelta(hours=2)
    incident_gap: Duration = timedelta(hours=4)
    severity: dict[Literal["medium", "high", "critical"], float] = {
        "medium": 50.0,
        "high": 75.0,
        "critical": 90.0,
    }


def _http_url(text: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]+\S*", text):
        raise ValueError("is no http or https URL")
    return text


class WebhookSettings(Model):
    """Where and how alerts are delivered; decides no finding.

    `url` may also come from the environment, as RARETRAIL_WEBHOOK_URL, where it is a secret. What signs the
    requests comes from there alone: RARETRAIL_WEBHOOK_SECRET.
    """

    url: Annotated[str, AfterValidator(_http_url)] | None = None
    format: Literal["incident", "slack", "ecs", "ocsf"] = "incident"
    timeout: Annotated[Duration, Field(ge=timedelta(seconds=1))] = timedelta(seconds=10)
    max_attempts: Annotated[int, Field(ge=1)] = 500


class AlertSettings(Model):
    """Which incidents a run alerts, and whom."""

    min_score: Annotated[float, Field(ge=0, le=100)] = 50.0
    max_per_run: Annotated[int, Field(ge=0)] = 100
    webhook: WebhookSettings = WebhookSettings()


class MonitoringSettings(Model):
    """How a run tells other systems how it went.

    `heartbeat_url` may also come from the environment, as RARETRAIL_HEARTBEAT_URL, where it is a secret.
    """

    log_format: Literal["text", "json"] = "text"
    metrics_file: str | None = None
    heartbeat_url: Annotated[str, AfterValidator(_http_url)] | None = None
    stale_after: Duration = timedelta(hours=1)


class Rule(Model):
    """The published rule a detector answers to."""

    id: str
    name: str
    version: int


class Technique(Model):
    """An ATT&CK technique under a tactic, in a version of ATT&CK."""

    tactic: str
    technique: str
    version: str


class Use(Model):
    """What somebody does in an example: calls of these commands from a city, a minute apart.

    In a history it is done on each of the last `days` days, or on every `every`-th of these. line tells
    networks of one city apart. With error each call fails with it, refused by name.
    """

    who: str
    commands: Annotated[list[str], Field(min_length=1)]
    city: str
    line: Annotated[int, Field(ge=1)] = 1
    tool: str | None = None
    error: str | None = None
    days: Annotated[int, Field(ge=1)] = 1
    every: Annotated[int, Field(ge=1)] = 1


class Example(Model):
    """What happens within an hour, and why the detector finds it or leaves it."""

    why: str
    events: Annotated[list[Use], Field(min_length=1)]


class Examples(Model):
    """What a detector finds and what it leaves, told on one history; tests execute them."""

    history: list[Use] = []
    positive: Annotated[list[Example], Field(min_length=1)]
    negative: Annotated[list[Example], Field(min_length=1)]


class Detector(Model):
    """One detector: which terms must be how surprising for a bucket to become its finding.

    `requires` maps a term (a `*_bits` column of `anomalies` without the suffix) to the least bits
    it must have; all must hold. `geo_status` limits it to addresses placed so well. A finding
    below `floor` bits in sum is not kept.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    title: str
    description: str
    requires: Annotated[dict[str, float], Field(min_length=1)]
    floor: Annotated[float, Field(ge=0)]
    geo_status: list[str] = []
    severity: Literal["low", "medium", "high", "critical"] = "low"
    risk_score: Annotated[int, Field(ge=0, le=100)] = 21
    rule: Rule | None = None
    attack: list[Technique] = []
    runbook: str = ""
    enabled: bool = True
    examples: Examples | None = None

    @field_validator("requires")
    @classmethod
    def _of_terms(cls, requires: dict[str, float]) -> dict[str, float]:
        from raretrail.tables import ANOMALIES

        terms = {name.removesuffix("_bits") for name in ANOMALIES.column_names if name.endswith("_bits")}
        if unknown := sorted(set(requires) - terms):
            raise ValueError(f"{', '.join(unknown)}: no such term; there are {', '.join(sorted(terms))}")
        return requires


class KnownNetwork(Model):
    """A network the organisation knows, by blocks of addresses or by numbers of autonomous systems."""

    name: Annotated[str, Field(min_length=1)]
    kind: Literal["office", "vpn", "vendor", "hosting", "hostile"]
    cidr: Annotated[tuple[str, ...], BeforeValidator(_several)] = ()
    as_number: Annotated[tuple[Annotated[int, Field(ge=1, lt=2**32)], ...], BeforeValidator(_several)] = ()

    @field_validator("cidr")
    @classmethod
    def _blocks(cls, blocks: tuple[str, ...]) -> tuple[str, ...]:
        for block in blocks:
            try:
                ipaddress.ip_network(block)
            except ValueError as error:
                raise ValueError(f"{error}; write a block as 203.0.113.0/24 or 2001:db8::/32") from None
        return tuple(str(ipaddress.ip_network(block)) for block in blocks)

    @model_validator(mode="after")
    def _is_somewhere(self) -> KnownNetwork:
        if not self.cidr and not self.as_number:
            raise ValueError(f"network {self.name!r} needs a cidr or an as_number")
        return self


class _NetworksFile(Model):
    """conf/networks.yml."""

    networks: list[KnownNetwork] = []

    @field_validator("networks")
    @classmethod
    def _each_once(cls, networks: list[KnownNetwork]) -> list[KnownNetwork]:
        names: dict[str, str] = {}
        for network in networks:
            for known in (*network.cidr, *(f"AS{number}" for number in network.as_number)):
                if known in names:
                    raise ValueError(f"{known} is both {names[known]!r} and {network.name!r}")
                names[known] = network.name
        return networks


class Account(Model):
    """An account: whose it is and what hangs on it."""

    id: Annotated[str, Field(pattern=r"^\d{12}$")]
    name: Annotated[str, Field(min_length=1)]
    owner: str | None = None
    contact: str | None = None
    criticality: Literal["low", "medium", "high", "critical"] = "medium"
    environment: str | None = None
    data: str | None = None
    regulation: Annotated[tuple[str, ...], BeforeValidator(_several)] = ()

    @property
    def told_owner(self) -> str:
        """'Payments (payments@example.com)', or as much of that as is known."""
        if self.owner and self.contact:
            return f"{self.owner} ({self.contact})"
        return self.owner or self.contact or ""


class _AccountsFile(Model):
    """conf/accounts.yml."""

    accounts: list[Account] = []

    @field_validator("accounts")
    @classmethod
    def _each_once(cls, accounts: list[Account]) -> list[Account]:
        ids = [account.id for account in accounts]
        if twice := sorted({one for one in ids if ids.count(one) > 1}):
            raise ValueError(f"{', '.join(twice)} stands there twice")
        return accounts


class Settings(Model):
    """Everything a run depends on besides its input."""

    trail: list[str] = []
    warehouse: str | None = None
    spark: SparkSettings = SparkSettings()
    ingest: IngestSettings = IngestSettings()
    geo: GeoSettings = GeoSettings()
    baseline: BaselineSettings = BaselineSettings()
    score: ScoreSettings = ScoreSettings()
    alerts: AlertSettings = AlertSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    detectors: list[Detector] = []
    broken_detectors: dict[str, str] = {}
    networks: list[KnownNetwork] = []
    accounts: list[Account] = []
    retention: dict[str, Annotated[int, Field(ge=1)]] = {}
    conf_dirs: list[str] = []

    @field_validator("retention")
    @classmethod
    def _of_tables(cls, retention: dict[str, int]) -> dict[str, int]:
        from raretrail.tables import ALL, LEAST_DAYS

        dated = {t.name for t in ALL if t.partition_by and not t.name.startswith("staged_")}
        for name, days in retention.items():
            if name not in dated:
                raise ValueError(f"{name!r} is none of the tables with days: {', '.join(sorted(dated))}")
            least = LEAST_DAYS.get(name, 1)
            if days < least:
                raise ValueError(f"{name} must be kept {least} days at least, which later runs look back to")
        return retention

    @model_validator(mode="after")
    def _keeps_what_is_read_again(self) -> Settings:
        for name in ("events", "ingest_files"):
            days = self.retention.get(name)
            if days is not None and timedelta(days=days) < self.ingest.history:
                raise ValueError(
                    f"retention.{name} of {days} days is less than ingest.history "
                    f"({format_duration(self.ingest.history)}): files would be taken in again"
                )
        return self

    def require_warehouse(self) -> str:
        """Where the warehouse is; UsageError where nothing says so."""
        if not self.warehouse:
            raise UsageError("no warehouse: give --warehouse DIRECTORY, URI or catalog.schema")
        return self.warehouse

    @cached_property
    def hash(self) -> str:
        """Hash of what decides results, the files of conf among it; where things lie, how Spark runs,
        where alerts go, whose an account is and how long rows are kept is left out."""
        aside = ("trail", "warehouse", "spark", "monitoring", "accounts", "retention", "conf_dirs")
        # That the broken ones are missing among the detectors decides, not why.
        left_out = dict.fromkeys(aside, True)
        left_out["broken_detectors"] = True
        tree = self.model_dump(mode="json", exclude={**left_out, "alerts": {"webhook"}, "ingest": _HOW_READ})
        for detector in tree["detectors"]:
            del detector["examples"]  # they decide nothing
        tree["files"] = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in self._deciding_files()
        }
        text = json.dumps(tree, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def conf_file(self, relative: str) -> Path:
        """The file `relative` of the uppermost layer of conf that has it."""
        for folder in [*reversed(self.conf_dirs), str(default_conf_dir())]:
            candidate = Path(folder) / relative
            if candidate.exists():
                return candidate
        raise UsageError(f"conf has no {relative}; looked in {self.conf_dirs} and the defaults")

    def _deciding_files(self) -> list[Path]:
        """The files of conf that decide results beside the settings: expectations, principals,
        redaction."""
        layered = [path for folder in self.conf_folders("expectations") for path in folder.glob("*.yml")]
        uppermost = {path.name: path for path in layered}
        single = ("principals.yml", "redaction.yml", "sensitivity.yml", "hosting.yml")
        return [*sorted(uppermost.values()), *map(self.conf_file, single)]

    def conf_folders(self, name: str) -> list[Path]:
        """The folders `name` of all layers of conf that have one, defaults first."""
        folders = [default_conf_dir(), *map(Path, self.conf_dirs)]
        return [folder / name for folder in folders if (folder / name).is_dir()]


def default_conf_dir() -> Path:
    """The folder of defaults: inside the installed package, else beside a checkout's lib/."""
    packaged = Path(str(files("raretrail") / "conf"))
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "conf"


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise UsageError(f"{path}: must be a mapping of settings")
    return tree


def _overlay(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _overlay(merged[key], value)
        else:
            merged[key] = value
    return merged


class _Sources(dict[str, str]):
    """Dotted key → the layer that set it."""

    def note(self, tree: dict[str, Any], layer: str, prefix: str = "") -> None:
        for key, value in tree.items():
            if isinstance(value, dict):
                self.note(value, layer, f"{prefix}{key}.")
            else:
                self[prefix + key] = layer


def load_settings(
    conf: str | None = None, options: dict[str, Any] | None = None
) -> tuple[Settings, dict[str, str]]:
    """The settings and, by dotted key, where each came from.

    conf is a YAML file laid over the defaults, or a folder with settings.yml and detectors/ laid
    over theirs. options is a tree of the same form, from the command line. Raises UsageError that
    names the file and the key.
    """
    folders = [default_conf_dir()]
    layers: list[tuple[str, dict[str, Any]]] = []
    if conf:
        path = Path(conf)
        if not path.exists():
            raise UsageError(f"--conf {conf}: no such file or folder")
        if path.is_dir():
            folders.append(path)
        else:
            layers.append((str(path), _read_yaml(path)))
    for folder in reversed(folders):
        if (folder / "settings.yml").exists():
            name = "defaults" if folder == folders[0] else str(folder / "settings.yml")
            layers.insert(0, (name, _read_yaml(folder / "settings.yml")))
    layers.append(("command line", options or {}))
    tree: dict[str, Any] = {}
    sources = _Sources()
    for name, layer in layers:
        tree = _overlay(tree, layer)
        sources.note(layer, name)
    detectors: dict[str, Any] = {}
    broken: dict[str, str] = {}
    for folder in folders:
        for file in sorted((folder / "detectors").glob("*.yml")):
            try:
                detectors[file.stem] = _detector(file)
                broken.pop(file.stem, None)
            except UsageError as error:
                # It holds back itself and no other: a run goes on, and ends as held.
                detectors.pop(file.stem, None)
                broken[file.stem] = str(error)
    tree["detectors"] = [detectors[name] for name in sorted(detectors)]
    tree["broken_detectors"] = broken
    kinds: dict[str, type[BaseModel]] = {"networks": _NetworksFile, "accounts": _AccountsFile}
    for name, model in kinds.items():
        whole = [folder / f"{name}.yml" for folder in folders if (folder / f"{name}.yml").exists()]
        if whole and name not in tree:
            tree[name] = getattr(_parse(model, _read_yaml(whole[-1]), str(whole[-1])), name)
    tree["conf_dirs"] = [str(folder) for folder in folders[1:]]
    return _parse(Settings, tree, " + ".join(name for name, layer in layers if layer)), dict(sources)


def _detector(file: Path) -> Detector:
    try:
        detector = _parse(Detector, _read_yaml(file), str(file))
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: not UTF-8: {error}") from None
    if detector.name != file.stem:
        raise UsageError(f"{file}: name must be {file.stem!r}, the file's own name")
    return detector


def _parse(model: type[_M], tree: dict[str, Any], where: str) -> _M:
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"])
            what = problem["msg"].removeprefix("Value error, ")
            lines.append(f"  {key}: {'unknown setting' if problem['type'] == 'extra_forbidden' else what}")
        raise UsageError(f"{where}: settings that cannot be used:\n" + "\n".join(lines)) from None
