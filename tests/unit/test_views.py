"""Views: what they promise holds in DuckDB and in Spark, and their objects fit ECS and OCSF."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable, write_deltalake

from raretrail.look import Condition, DuckLook, SparkLook, open_duckdb, open_rows
from raretrail.settings import Detector, Technique, load_settings
from raretrail.tables import ANOMALIES, INCIDENTS, Table
from raretrail.views import (
    ECS_ANOMALIES,
    OCSF_FINDINGS,
    OCSF_VERSION,
    SHARED_INCIDENTS,
    SHARED_MONTHS,
    View,
    in_dialect,
    literal,
    nested,
    views,
)
from raretrail.warehouse import Warehouse
from small_warehouse import ATTACK_ADDRESS, FARAH, INCIDENT, KEY, SILENT_SINCE, make_small_warehouse

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

VIEWS = views(load_settings()[0].detectors)
NASTY = r"""it's "q" \n `x` ${env:HOME} {y} %s ; -- /* é λ 漢"""
_TYPES = {"bigint": "int", "double": "float", "int": "int", "string": "str", "boolean": "bool"}


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_warehouse(tmp_path_factory.mktemp("views") / "warehouse")


@pytest.fixture(scope="module")
def look(warehouse: Path) -> Iterator[DuckLook]:
    with open_duckdb(str(warehouse)) as opened:
        yield opened


def _ids(view: View) -> str:
    return view.name


@pytest.mark.parametrize("view", VIEWS, ids=_ids)
def test_a_view_has_the_columns_it_declares(view: View, look: DuckLook) -> None:
    result = look.query(f"SELECT * FROM {view.name}")
    rows = list(result.rows())
    assert list(result.columns) == view.column_names
    assert rows
    for column in view.columns:
        kinds = {type(row[column.name]).__name__ for row in rows} - {"NoneType"}
        wanted = {"timestamp": "datetime", "date": "date"}.get(column.type, _TYPES.get(column.type, "list"))
        assert kinds <= {wanted}, f"{view.name}.{column.name}: {kinds}, declared {column.type}"


@pytest.mark.parametrize("view", VIEWS, ids=_ids)
def test_a_view_answers_its_question(view: View, look: DuckLook) -> None:
    assert list(look.query(view.answer).rows()), view.question


@pytest.mark.parametrize("view", VIEWS, ids=_ids)
def test_a_view_of_an_empty_warehouse_is_empty(view: View, tmp_path: Path) -> None:
    write_deltalake(str(tmp_path / "incidents"), INCIDENTS.arrow_schema().empty_table())
    with open_duckdb(str(tmp_path), detectors=[]) as look:
        assert list(look.query(f"SELECT * FROM {view.name}").rows()) == []


@pytest.fixture
def one(look: DuckLook) -> Callable[[str], dict[str, Any]]:
    def query(sql: str) -> dict[str, Any]:
        (row,) = look.query(sql).rows()
        return row

    return query


def test_the_first_of_the_open_incidents_says_how_far_from_home(
    one: Callable[[str], dict[str, Any]],
) -> None:
    row = one("SELECT * FROM open_incidents")
    assert (row["incident_id"], row["nearest_place"], row["nearest_place_km"]) == (
        INCIDENT, "Amsterdam, NL", 9488.0
    )  # fmt: skip
    assert row["minutes"] == pytest.approx(280 / 60)


def test_a_timeline_has_every_event_finding_and_alert_once_in_order(look: DuckLook) -> None:
    rows = list(look.query("SELECT * FROM incident_timeline ORDER BY happened_at, kind, id").rows())
    kinds = [row["kind"] for row in rows]
    assert (kinds.count("event"), kinds.count("finding"), kinds.count("alert")) == (5, 10, 1)
    assert rows[-1]["kind"] == "alert"
    assert {row["source_ip_address"] for row in rows if row["kind"] == "event"} == {ATTACK_ADDRESS}
    assert len({(row["kind"], row["id"]) for row in rows}) == len(rows)


def test_a_profile_counts_days_shares_and_others(look: DuckLook) -> None:
    rows = list(look.query(f"SELECT * FROM principal_profile WHERE principal = '{FARAH}'").rows())
    (place,) = [row for row in rows if row["dimension"] == "place"]
    assert (place["value_name"], place["days_90"], place["active_days"]) == ("Amsterdam, NL", 20, 20)
    assert (place["share"], place["others"]) == (1.0, 1)
    (hour,) = [row for row in rows if row["dimension"] == "hour"]
    assert (hour["value"], hour["days_90"], hour["others"]) == ("17", 20, 0)
    assert hour["last_day"] == date(2026, 2, 20)


def test_views_for_wider_audiences_show_nobody() -> None:
    """Whatever a finding or an incident holds of a person, an address or words, none of it is there."""
    planted = "arn:aws:iam::1:user/planted 198.51.100.77"
    plain = {"date": date(2026, 2, 20), "timestamp": datetime(2026, 2, 20, 9, tzinfo=UTC)}
    rows: dict[Table, list[dict[str, Any]]] = {}
    ids = {"incident_id", "anomaly_id"}
    for table in (INCIDENTS, ANOMALIES):
        row: dict[str, Any] = {column.name: plain.get(column.type) for column in table.columns}
        for column in table.columns:
            if column.holds in ("subject", "person", "address", "words") or column.name in ids:
                row[column.name] = [planted] if column.type.startswith("array") else planted
        rows[table] = [row | {"severity": "high", "score": 61.7}]
    with open_rows(rows) as look:
        for view in (SHARED_INCIDENTS, SHARED_MONTHS):
            (shown,) = look.rows(view)
            assert shown["severity"] == "high"
            assert "planted" not in repr(shown) and "198.51" not in repr(shown)


def test_a_place_only_an_incident_came_from_is_there(one: Callable[[str], dict[str, Any]]) -> None:
    row = one("SELECT * FROM place_profile WHERE place_name = 'Durban, ZA'")
    assert (row["days_90"], row["principals_90"], row["incidents"]) == (0, 0, 1)
    assert row["last_incident"] == datetime(2026, 2, 21, 17, 18, 13, tzinfo=UTC)


def test_a_weekly_command_is_due_a_week_later(one: Callable[[str], dict[str, Any]]) -> None:
    row = one("SELECT * FROM command_profile WHERE command = 'iam:CreateRole'")
    assert (row["days_90"], row["every_days"]) == (4, 7.0)
    assert (row["last_day"], row["next_day"]) == (date(2026, 2, 16), date(2026, 2, 23))
    assert (row["usual_place"], row["usual_place_days"], row["places"]) == ("Amsterdam, NL", 4, 1)


def test_health_tells_silent_detectors_and_how_long_findings_take(look: DuckLook) -> None:
    rows = {row["detector"]: row for row in look.query("SELECT * FROM detector_health").rows()}
    assert set(rows) == {detector.name for detector in load_settings()[0].detectors}
    city, silent = rows["unusual_city_for_command"], rows["rare_error_code"]
    assert (city["findings"], city["incidents"], city["alerts"], city["alone"]) == (5, 1, 1, 0)
    judged = city["judged_days"]
    assert judged == pytest.approx(14 + (17 * 60 + 45) / 1440)
    assert city["alerts_a_day"] == pytest.approx(1 / judged)
    # From 17:18:13 and every 70 seconds to 17:46:00.
    assert city["max_minutes_to_finding"] == pytest.approx((27 * 60 + 47) / 60)
    assert city["median_minutes_to_finding"] == pytest.approx((27 * 60 + 47 - 140) / 60)
    assert (silent["findings"], silent["median_minutes_to_finding"]) == (0, None)
    # The verdict came an hour and a quarter after the finding.
    assert (city["judged"], city["malicious"], city["precision"]) == (1, 1, 1.0)
    assert city["median_minutes_to_verdict"] == 75.0
    assert (silent["judged"], silent["precision"]) == (0, None)


def test_an_address_is_our_own_while_its_instance_has_it(look: DuckLook) -> None:
    (row,) = look.query("SELECT * FROM own_infrastructure").rows()
    assert (row["address"], row["resource"]) == ("203.0.113.7", "i-0123456789abcdef0")
    assert row["instance_profile"].endswith("instance-profile/web") and row["valid_to"] is None
    assert (row["principals"], row["findings"]) == (2, 0)


def test_evidence_tells_peers_and_permissions(one: Callable[[str], dict[str, Any]]) -> None:
    row = one("SELECT * FROM incident_evidence")
    assert (row["incident_id"], row["peers"], row["peers_with_command"]) == (INCIDENT, 1, 0)
    assert row["commands_90"] == 3 and row["later_count"] == 0
    assert row["response_steps"][1].endswith("--status Inactive")


def test_coverage_tells_quiet_from_blind(look: DuckLook) -> None:
    rows = {row["aws_region"]: row for row in look.query("SELECT * FROM coverage").rows()}
    assert set(rows) == {"eu-west-1", "eu-central-1", "all"}, "the late hour is not judged"
    silent, speaks = rows["eu-central-1"], rows["eu-west-1"]
    assert (silent["status"], silent["silent_hours"], silent["silent_expected"]) == ("silent", 20, 800.0)
    assert silent["last_event"] == SILENT_SINCE + timedelta(minutes=30)
    assert silent["last_file"] == datetime(2026, 2, 14, tzinfo=UTC)
    assert silent["last_digest"] == datetime(2026, 2, 21, 16, 45, tzinfo=UTC)
    assert (silent["events_7"], silent["located_share"]) == (0, None)
    # Two events of the week's have no place that could be known.
    assert (speaks["status"], speaks["located_share"]) == ("ok", 1.0)
    week = speaks["events_7"]
    assert week > 10
    assert speaks["quarantined_share"] == silent["quarantined_share"] == pytest.approx(1 / (week + 1))


def test_a_finding_of_a_detector_that_is_gone_still_counts(warehouse: Path) -> None:
    with open_duckdb(str(warehouse), detectors=[]) as look:
        rows = list(look.query("SELECT * FROM detector_health").rows())
        assert {row["detector"] for row in rows} == {
            "unusual_city_for_command",
            "unusual_place_for_principal",
        }
        assert {row["enabled"] for row in rows} == {None}
        assert look.count(ECS_ANOMALIES) == look.count(OCSF_FINDINGS) == 10


def test_a_table_without_a_later_column_reads_as_empty_there(warehouse: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(warehouse, old)
    rows = DeltaTable(str(old / "incidents")).to_pyarrow_table().drop_columns(["alerted_at", "detectors"])
    shutil.rmtree(old / "incidents")
    write_deltalake(str(old / "incidents"), rows, partition_by=["first_date"])
    with open_duckdb(str(old)) as look:
        (row,) = look.query("SELECT alerted_at, detectors FROM open_incidents").rows()
        assert row == {"alerted_at": None, "detectors": None}


# ---------------------------------------------------------------------------------------- literals


def _strange() -> Detector:
    return Detector(
        name="strange", title=NASTY, description="", requires={"place": 1.0}, floor=1.0, runbook=NASTY,
        attack=[Technique(tactic="TA0001", technique="T1078", version="18")],
    )  # fmt: skip


def test_a_literal_is_what_it_was_in_duckdb(warehouse: Path) -> None:
    with open_duckdb(str(warehouse), detectors=[_strange()]) as look:
        (row,) = look.query("SELECT title, runbook, subtechniques FROM detectors").rows()
        assert row == {"title": NASTY, "runbook": NASTY, "subtechniques": [""]}
        assert list(look.query(f"SELECT {literal('')} AS e").rows()) == [{"e": ""}]


@pytest.mark.integration
def test_a_literal_is_what_it_was_in_spark(spark: SparkSession) -> None:
    (view, *_) = views([_strange()])
    (row,) = spark.sql(view.sql("spark")).collect()
    assert (row["title"], row["runbook"], row["subtechniques"]) == (NASTY, NASTY, [""])
    assert spark.sql(views([])[0].sql("spark")).collect() == []


# ------------------------------------------------------------------------------------------- Spark


@pytest.mark.slow
@pytest.mark.integration
def test_spark_and_duckdb_see_the_same(spark: SparkSession, warehouse: Path, look: DuckLook) -> None:
    other = SparkLook(Warehouse(spark, str(warehouse)))

    def told(rows: Iterator[dict[str, Any]]) -> list[str]:
        return sorted(str({name: _plain(value) for name, value in row.items()}) for row in rows)

    for view in VIEWS:
        ours = told(look.query(f"SELECT * FROM {view.name}").rows())
        assert told(other.query(f"SELECT * FROM {view.name}").rows()) == ours, view.name
        answer = told(look.query(view.answer).rows())
        assert told(other.query(in_dialect(view.answer, "spark")).rows()) == answer, view.name
    chosen = (Condition("event.risk_score_norm", ">=", 80.0), Condition("rule.category", "has", "CITY"))
    order = (("@timestamp", "asc"), ("event.id", "asc"))
    ours = told(iter(look.rows(ECS_ANOMALIES, *chosen, order=order)))
    assert told(iter(other.rows(ECS_ANOMALIES, *chosen, order=order))) == ours
    assert len(ours) == 5


@pytest.mark.slow
@pytest.mark.integration
def test_spark_sees_views_of_a_warehouse_that_is_young(spark: SparkSession, tmp_path: Path) -> None:
    for view in VIEWS:
        spark.catalog.dropTempView(view.name)
    rows = INCIDENTS.arrow_schema().empty_table().drop_columns(["summary"])
    write_deltalake(str(tmp_path / "incidents"), rows)
    look = SparkLook(Warehouse(spark, str(tmp_path)))
    detectors = load_settings()[0].detectors
    for view in VIEWS[1:]:
        found = list(look.query(f"SELECT * FROM {view.name}").rows())
        # The detectors are there before they find anything.
        assert len(found) == (len(detectors) if view.name == "detector_health" else 0)


def _plain(value: object) -> object:
    # Spark gives times without their zone, which is UTC here.
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value


# ----------------------------------------------------------------------------------------- objects


def test_a_path_makes_objects_lists_and_leaves_out_what_is_empty() -> None:
    made = nested({
        "a": 1, "b.c": None, "b.d.e": "x", "f[0].g": "y", "f[0].h.i": 2, "k[*].l.m": ["p", "q"],
        "k[*].n": ["", "r"], "o": [], "t": datetime(2026, 2, 21, 17, tzinfo=UTC), "false": False, "zero": 0,
    })  # fmt: skip
    assert made == {
        "a": 1, "b": {"d": {"e": "x"}}, "f": [{"g": "y", "h": {"i": 2}}],
        "k": [{"l": {"m": "p"}}, {"l": {"m": "q"}, "n": "r"}], "t": datetime(2026, 2, 21, 17, tzinfo=UTC),
        "false": False, "zero": 0,
    }  # fmt: skip


def test_ecs_has_the_fields_the_rules_guide_names(look: DuckLook) -> None:
    rows = look.rows(ECS_ANOMALIES, Condition("event.id", "=", INCIDENT))
    document = nested(rows[0])
    assert document["aws"]["cloudtrail"]["user_identity"]["arn"] == FARAH
    assert document["aws"]["cloudtrail"]["user_identity"]["access_key_id"] == KEY
    assert document["user_agent"]["original"].endswith("cloudfox/1.14.1")
    assert document["event"]["action"] == "ListUsers"
    assert document["event"]["provider"] == "iam.amazonaws.com"
    assert document["rule"] == {
        "id": "809b70d3-e2c3-455e-af1b-2626a5a1a276", "name": "Unusual City For an AWS Command",
        "version": "213", "ruleset": "raretrail", "category": "unusual_city_for_command",
    }  # fmt: skip
    assert document["threat"] == {
        "framework": "MITRE ATT&CK", "tactic": {"id": ["TA0001", "TA0005"]},
        "technique": {"id": ["T1078"], "subtechnique": {"id": ["T1078.004"]}},
    }  # fmt: skip
    assert document["source"]["ip"] == ATTACK_ADDRESS
    assert document["source"]["geo"]["location"] == {"lat": -29.86, "lon": 31.03}
    assert document["@timestamp"] == datetime(2026, 2, 21, 17, 18, 13, tzinfo=UTC)
    assert document["raretrail"]["incident_id"] == INCIDENT


# What OCSF 1.6.0 requires of a Detection Finding (class 2004, profile cloud) and of the objects it holds
# here: attributes that must be there, and sets of which at least one must. From the published schema:
# schema.ocsf.io/1.6.0/classes/detection_finding?profiles=cloud and its objects.
_REQUIRED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "": (
        ("activity_id", "category_uid", "class_uid", "cloud", "finding_info", "metadata", "severity_id",
         "time", "type_uid"),
        (),
    ),
    "metadata": (("product", "version"), ()),
    "metadata.product": ((), ("name", "uid")),
    "cloud": (("provider",), ()),
    "cloud.account": ((), ("name", "uid")),
    "finding_info": (("uid",), ()),
    "finding_info.analytic": (("type_id",), ("name", "uid")),
    "finding_info.attacks": ((), ("tactic", "technique", "sub_technique")),
    "evidences": ((), ("actor", "api", "src_endpoint")),
    "evidences.api": (("operation",), ()),
    "evidences.api.request": (("uid",), ()),
    "evidences.api.service": ((), ("name", "uid")),
    "evidences.actor": ((), ("user", "session", "process", "invoked_by", "app_name")),
    "evidences.actor.user": ((), ("account", "name", "uid")),
    "evidences.src_endpoint": ((), ("ip", "uid", "name", "hostname", "svc_name", "instance_uid")),
    "evidences.src_endpoint.autonomous_system": ((), ("name", "number")),
    "evidences.src_endpoint.location": ((), ("city", "country", "postal_code", "region")),
}  # fmt: skip
_SEVERITIES = {1: "Informational", 2: "Low", 3: "Medium", 4: "High", 5: "Critical", 6: "Fatal"}


def _problems(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, list):
        for one in value:
            yield from _problems(one, path)
    elif isinstance(value, dict):
        required, some = _REQUIRED.get(path, ((), ()))
        yield from (f"{path}.{name} is missing" for name in required if name not in value)
        if some and not set(some) & set(value):
            yield f"{path} has none of {some}"
        for name, inside in value.items():
            yield from _problems(inside, f"{path}.{name}".strip("."))


def test_every_finding_is_a_detection_finding_of_ocsf(look: DuckLook) -> None:
    rows = look.rows(OCSF_FINDINGS)
    assert len(rows) == 10
    for row in rows:
        event = nested(row)
        assert list(_problems(event)) == []
        assert (event["class_uid"], event["category_uid"]) == (2004, 2)
        assert event["activity_id"] in (1, 2, 3)
        assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
        assert _SEVERITIES[event["severity_id"]] == event["severity"]
        assert event["metadata"]["version"] == OCSF_VERSION == "1.6.0"
        assert event["metadata"]["profiles"] == ["cloud"]
        assert event["finding_info"]["analytic"]["type_id"] == 3
    event = nested(look.rows(OCSF_FINDINGS, Condition("metadata.uid", "=", INCIDENT))[0])
    assert event["time"] == int(datetime(2026, 2, 21, 17, 46, tzinfo=UTC).timestamp()) * 1000
    assert event["start_time"] == int(datetime(2026, 2, 21, 17, 18, 13, tzinfo=UTC).timestamp()) * 1000
    assert event["is_alert"] is True
    assert event["finding_info"]["attacks"] == [
        {"tactic": {"uid": tactic}, "technique": {"uid": "T1078"}, "sub_technique": {"uid": "T1078.004"}}
        for tactic in ("TA0001", "TA0005")
    ]
    (evidence,) = event["evidences"]
    assert evidence["api"]["operation"] == "ListUsers"
    assert evidence["actor"]["user"] == {
        "uid": FARAH, "name": "farah.evans", "type": "IAMUser", "credential_uid": KEY
    }  # fmt: skip
    assert evidence["src_endpoint"]["location"]["country"] == "ZA"


def test_the_ocsf_check_sees_what_is_missing() -> None:
    problems = list(_problems({"metadata": {"version": "1"}, "finding_info": {"uid": "x", "analytic": {}}}))
    assert "metadata.product is missing" in problems
    assert ".time is missing" in problems
    assert "finding_info.analytic has none of ('name', 'uid')" in problems
