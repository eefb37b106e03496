"""From a run to a receiver: delivered once, later where nobody was there, again only when alerted again."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from test_main_job import AMSTERDAM, BILBAO, MILAN, _deliver, _record

from raretrail.alerts.webhook import Target, signature
from raretrail.cli import GROUPS, main
from raretrail.doctor import examine
from raretrail.errors import EXIT_DONE
from raretrail.look import SparkLook, open_duckdb
from raretrail.settings import Settings, load_settings
from raretrail.stages.run import Ended, run
from raretrail.tables import ALL, INCIDENTS, OUTBOX
from raretrail.warehouse import Warehouse, rows_of
from receiver import receiver

pytestmark = [pytest.mark.slow, pytest.mark.integration]

FIRST, LAST = date(2026, 1, 1), date(2026, 1, 12)
TOKEN, SECRET = "T0KEN-in-the-path", b"planted-secret"


def _noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


class Organisation:
    """Two people at work for twelve days, the warehouse of its runs, and what these said."""

    def __init__(self, spark: SparkSession, folder: Path) -> None:
        self.spark, self.trail, self.where = spark, folder / "trail", str(folder / "w")
        for n in range((LAST - FIRST).days + 1):
            day = FIRST + timedelta(days=n)
            calls = [_record(user, "iam:GetUser", AMSTERDAM, _noon(day)) for user in ("ana", "ben")]
            _deliver(self.trail, day, "a", calls)
        self.conf = folder / "conf.yml"
        self.conf.write_text("alerts: {min_score: 1, max_per_run: 1}")
        self.warehouse = Warehouse(spark, self.where)
        self.said: list[str] = []

    @property
    def settings(self) -> Settings:
        return load_settings(str(self.conf), {"trail": [str(self.trail)], "warehouse": self.where})[0]

    def calls(self, user: str, command: str, address: str, hour: float) -> None:
        at = _noon(LAST) + timedelta(hours=hour)
        _deliver(self.trail, LAST, f"{user}{command[-4:]}", [_record(user, command, address, at)])

    def run(self, target: Target | None, hour: int, **more: Any) -> Ended:
        as_of = _noon(LAST) + timedelta(hours=hour)
        ended = run(self.spark, self.settings, as_of=as_of, progress=self.said.append, target=target, **more)
        assert ended.exit_code == EXIT_DONE
        self.said += [*ended.messages, repr(ended)]
        return ended

    def outbox(self) -> list[dict[str, Any]]:
        return sorted(rows_of(self.warehouse.read(OUTBOX)), key=lambda row: row["revision"])


def _counts(ended: Ended) -> dict[str, int]:
    return {name: n for name, n in ended.record["counts"].items() if name.startswith("alerts")}


def test_an_alert_arrives_whatever_happens_on_the_way(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("raretrail.alerts.webhook._FIRST_WAIT", 0.001)
    here = Organisation(spark, tmp_path)
    with receiver(tmp_path / "gone", ["200"]) as gone:
        nobody = Target(f"{gone.base}/{TOKEN}?key={TOKEN}", SECRET)

    # Nobody there is a warning, and the alert waits; what the most a run may alert cuts is said.
    here.calls("ana", "iam:CreateUser", BILBAO, 1.5)
    here.calls("ben", "iam:CreateUser", MILAN, 1.6)
    ended = here.run(nobody, 2)
    assert _counts(ended) == {
        "alerts": 1, "alerts_cut": 1, "alerts_sent": 0, "alerts_pending": 1, "alerts_given_up": 0,
    }  # fmt: skip
    assert any("alerts.max_per_run (1) cut them" in message for message in ended.messages)
    told = "alerts to 127.0.0.1: 1 not delivered yet (not reached (ConnectionRefusedError))"
    assert any(message.startswith(told) for message in ended.messages), ended.messages
    (row,) = here.outbox()
    assert (row["status"], row["revision"], row["attempts"]) == ("pending", 0, 4)
    assert (row["run_id"], row["delivered_at"]) == (ended.record["run_id"], None)
    (alerted,) = here.warehouse.read(INCIDENTS).where("alerted_at IS NOT NULL").collect()
    assert (alerted.incident_id, alerted.alert_revision) == (row["incident_id"], 0)

    late = examine(here.settings, now=datetime.now(UTC) + timedelta(hours=2), groups=["runs"])
    (line,) = [line for line in late if line.name == "alerts"]
    assert (line.state, "1 wait to be delivered" in line.seen) == ("warn", True)

    with receiver(tmp_path / "there", ["500", "200"]) as there:
        target = Target(f"{there.base}/{TOKEN}?key={TOKEN}", SECRET)
        # The next run delivers it, and what was cut before; the one after that has nothing to deliver.
        assert _counts(here.run(target, 5)) == {
            "alerts": 1, "alerts_cut": 0, "alerts_sent": 2, "alerts_pending": 0, "alerts_given_up": 0,
        }  # fmt: skip
        assert _counts(here.run(target, 8))["alerts_sent"] == 0
        rows = {row["incident_id"]: row for row in here.outbox()}
        waited = rows[row["incident_id"]]
        assert {one["status"] for one in rows.values()} == {"delivered"}
        # The one that was never tried went first, and had the 500.
        assert sorted(one["attempts"] for one in rows.values()) == [2, 5]
        assert (waited["attempts"], waited["last_error"]) == (5, None)
        assert waited["delivered_at"] == waited["last_attempt_at"] is not None
        assert len(there.requests()) == 3
        for request in there.requests():
            incident, _, revision = request["headers"]["Idempotency-Key"].partition(":")
            assert (request["body"], revision) == (rows[incident]["payload"], "0")
            stamp = request["headers"]["X-Raretrail-Timestamp"]
            signed = signature(SECRET, stamp, request["body"].encode())
            assert request["headers"]["X-Raretrail-Signature"] == signed
        posted = [json.loads(one["payload"]) for one in rows.values()]
        assert {one["incident"]["principal"].rpartition("/")[2] for one in posted} == {"ana", "ben"}
        for one in posted:
            assert {finding["command"] for finding in one["findings"]} == {"iam:CreateUser"}

        # A run killed between mark and row leaves the mark alone. History delivers nothing all the same; a
        # run with nothing else to do does.
        spark.sql(f"DELETE FROM {here.warehouse.name(OUTBOX)}").collect()
        span = (_noon(LAST) - timedelta(hours=12), _noon(LAST) + timedelta(hours=12))
        played = here.run(target, 24, span=span)
        assert "alerts_sent" not in played.record["counts"]
        assert (here.outbox(), len(there.requests())) == ([], 3)
        quiet = here.run(target, 25)
        assert "publish" not in quiet.record["seconds"]
        assert quiet.record["counts"]["alerts_sent"] == 2
        assert [(one["revision"], one["status"]) for one in here.outbox()] == [(0, "delivered")] * 2
        keys = [request["headers"]["Idempotency-Key"] for request in there.requests()]
        assert set(keys[3:]) == set(keys[:3]), "the same alerts, under the keys they had"

        _closed_and_open_again(here, target, there.requests)

    _nowhere(here, capsys, monkeypatch, target.url)


def _closed_and_open_again(
    here: Organisation, target: Target, requests: Callable[[], list[dict[str, Any]]]
) -> None:
    """Alerted again it is another alert, of the next revision; one given up can be sent after all."""
    before = next(row for row in here.outbox() if "user/ana" in row["payload"])
    close = ["verdict", before["incident_id"][:8], "--state", "closed", "--author", "bo", "--reason", "seen"]
    assert main([*close, "--warehouse", here.where, "--conf", str(here.conf)]) == EXIT_DONE
    here.calls("ana", "iam:DeleteUser", BILBAO, 1.9)
    here.conf.write_text("alerts: {min_score: 1, webhook: {format: slack}}")
    assert _counts(here.run(target, 26))["alerts_sent"] == 1
    mine = [row for row in here.outbox() if row["incident_id"] == before["incident_id"]]
    assert [row["revision"] for row in mine] == [0, 1]
    assert [row["format"] for row in mine] == ["incident", "slack"]
    assert "alerted again (1)" in mine[1]["payload"]
    assert f"{before['incident_id']}:1" in [one["headers"]["Idempotency-Key"] for one in requests()]

    outbox = here.warehouse.name(OUTBOX)
    here.spark.sql(f"UPDATE {outbox} SET status = 'given_up' WHERE revision = 1").collect()
    sent = len(requests())
    assert _counts(here.run(target, 27))["alerts_sent"] == 0
    after_all = f"UPDATE {outbox} SET status = 'pending', attempts = 0 WHERE status = 'given_up'"
    list(SparkLook(here.warehouse, []).query(after_all).rows())
    assert _counts(here.run(target, 28))["alerts_sent"] == 1
    assert len(requests()) == sent + 1


def _nowhere(
    here: Organisation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """No table, message, setting shown or line of the doctor has the secret or the URL's token."""
    monkeypatch.setenv("RARETRAIL_WEBHOOK_URL", url)
    monkeypatch.setenv("RARETRAIL_WEBHOOK_SECRET", SECRET.decode())
    with open_duckdb(here.where) as look:
        rows = {table.name: look.rows(table) for table in ALL if not table.name.startswith("staged_")}
    assert rows["outbox"] and rows["runs"]
    lines = examine(here.settings, now=datetime.now(UTC), groups=GROUPS)
    (webhook,) = [line for line in lines if line.name == "webhook"]
    assert webhook.seen == "alerts go to 127.0.0.1 as slack"
    assert main(["run", "--conf", str(here.conf), "--print-settings"]) == EXIT_DONE
    everything = "\n".join([repr(rows), *here.said, repr(lines), capsys.readouterr().out])
    assert "127.0.0.1" in everything
    assert TOKEN not in everything
    assert SECRET.decode() not in everything
