"""When a resident process runs, what it survives, when it opens its session anew, and how it stops."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from raretrail import cli
from raretrail.errors import (
    EXIT_DONE,
    EXIT_HELD,
    EXIT_USAGE,
    BusyError,
    RaretrailError,
    SparkError,
    UsageError,
)
from raretrail.settings import Settings
from raretrail.stages.run import Ended
from raretrail.watch import Watch, stopped_by_signals

QUARTER = timedelta(minutes=15)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass
class Clock:
    """A clock that moves only when somebody waits or works; stop is set at its end."""

    now: datetime = NOON
    stop: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> datetime:
        return self.now

    def event(self) -> threading.Event:
        """An event whose waiting moves the clock."""

        def wait(timeout: float | None = None) -> bool:
            self.now += timedelta(seconds=timeout or 0)
            return self.stop.is_set()

        self.stop.wait = wait  # type: ignore[method-assign, assignment]
        return self.stop


@dataclass
class Sessions:
    """Sessions that are numbers, and what was done with them."""

    done: list[str] = field(default_factory=list)
    fail_first: bool = False

    def open(self) -> int:
        if self.fail_first:
            self.fail_first = False
            raise RaretrailError("Spark did not start")
        self.done.append("open")
        return self.done.count("open")

    def rest(self, session: int) -> None:
        self.done.append(f"rest {session}")

    def close(self, session: int) -> None:
        self.done.append(f"close {session}")


def started(
    run: Callable[[int], object], *, runs: int, sessions: Sessions | None = None, served: int = 96
) -> tuple[list[datetime], list[str], list[Exception]]:
    """When runs began, what was told, what failed."""
    clock = Clock()
    begun: list[datetime] = []
    told: list[str] = []
    failed: list[Exception] = []

    def once(session: int) -> None:
        begun.append(clock.now)
        clock.now += timedelta(seconds=20)
        result = run(len(begun))
        if isinstance(result, timedelta):
            clock.now += result

    watch = Watch(
        every=QUARTER,
        sessions=sessions or Sessions(),
        runs=runs,
        runs_a_session=served,
        clock=clock,
        tell=told.append,
        failed=failed.append,
    )
    assert watch.watch(once, clock.event()) == runs
    return begun, told, failed


def raising(errors: dict[int, Exception]) -> Callable[[int], object]:
    def run(number: int) -> None:
        if number in errors:
            raise errors[number]

    return run


def test_runs_begin_at_once_and_then_from_start_to_start() -> None:
    begun, told, _ = started(lambda number: None, runs=3)
    assert begun == [NOON, NOON + QUARTER, NOON + 2 * QUARTER]
    assert told == []


def test_a_run_that_takes_too_long_is_followed_by_the_next_that_is_due() -> None:
    begun, told, _ = started(lambda n: timedelta(minutes=31) if n == 1 else None, runs=3)
    assert begun == [NOON, NOON + 3 * QUARTER, NOON + 4 * QUARTER]
    assert told == ["the run took longer than 0:15:00: 2 left out"]


def test_a_failed_run_is_told_and_the_next_comes_at_its_time() -> None:
    errors = {2: BusyError("held"), 3: UsageError("no such file"), 4: RaretrailError("refused")}
    sessions = Sessions()
    begun, _, failed = started(raising(errors), runs=5, sessions=sessions)
    assert begun == [NOON + n * QUARTER for n in range(5)]
    assert failed == list(errors.values())
    assert sessions.done.count("open") == 1, "errors of our own do not hurt the session"


@pytest.mark.parametrize("error", [SparkError("analysis"), ConnectionRefusedError(), RuntimeError("odd")])
def test_what_may_have_hurt_the_session_opens_it_anew(error: Exception) -> None:
    sessions = Sessions()
    _, _, failed = started(raising({2: error}), runs=3, sessions=sessions)
    assert failed == [error]
    assert sessions.done == ["open", "rest 1", "close 1", "open", "close 2"]


def test_a_session_that_does_not_open_is_tried_again() -> None:
    clock, sessions, failed = Clock(), Sessions(fail_first=True), list[Exception]()
    watch = Watch(every=QUARTER, sessions=sessions, runs=2, clock=clock, failed=failed.append)
    assert watch.watch(lambda session: None, clock.event()) == 2
    assert [str(error) for error in failed] == ["Spark did not start"]
    assert sessions.done == ["open", "close 1"]


def test_wrong_usage_ends_it_before_anything_went_well() -> None:
    with pytest.raises(UsageError, match="no trail"):
        started(raising({1: UsageError("no trail")}), runs=3)


def test_a_session_serves_so_many_runs() -> None:
    sessions = Sessions()
    started(lambda number: None, runs=5, sessions=sessions, served=2)
    assert sessions.done == ["open", "rest 1", "close 1", "open", "rest 2", "close 2", "open", "close 3"]


def test_a_signal_between_runs_ends_it_and_closes_the_session() -> None:
    sessions, ran = Sessions(), list[int]()
    before = signal.getsignal(signal.SIGTERM)
    with stopped_by_signals(lambda text: None) as (stop, take):

        def run(session: int) -> None:
            take()
            ran.append(session)
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()

        Watch(every=timedelta(hours=1), sessions=sessions).watch(run, stop)
    assert ran == [1]
    assert sessions.done == ["open", "rest 1", "close 1"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_during_a_run_lets_it_end_and_a_second_one_does_not() -> None:
    told: list[str] = []
    with stopped_by_signals(told.append) as (stop, _):
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.is_set()
        assert told == ["SIGINT: stopping when what is under way is done"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    sessions = Sessions()

    def stopping(session: int) -> None:
        stopped.set()

    stopped = threading.Event()
    assert Watch(every=QUARTER, sessions=sessions).watch(stopping, stopped) == 1
    assert sessions.done[-1] == "close 1"


class Resident:
    """In place of Spark's sessions; what the command does around them is real."""

    opened = 0

    def __init__(self, settings: object, opened: Callable[[], None]) -> None:
        self._opened = opened

    def open(self) -> str:
        Resident.opened += 1
        self._opened()
        return f"session {Resident.opened}"

    def rest(self, session: str) -> None:
        pass

    def close(self, session: str) -> None:
        pass


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings with a metrics file and a log of JSON; sessions that start nothing."""
    monkeypatch.setattr("raretrail.session.Resident", Resident)
    monkeypatch.setattr(cli, "_get_ready", lambda settings, steps: None)
    monkeypatch.setattr(Resident, "opened", 0)
    monkeypatch.delenv("RARETRAIL_HEARTBEAT_URL", raising=False)
    path = tmp_path / "settings.yml"
    path.write_text(
        f"warehouse: {tmp_path}\ntrail: [{tmp_path}]\nscore: {{lookback: 2h}}\n"
        f"monitoring: {{metrics_file: {tmp_path / 'metrics.prom'}, log_format: json}}\n"
    )
    return path


def ended(number: int, status: str = "done") -> Ended:
    record = {
        "run_id": f"run {number}", "status": status, "mode": "scheduled", "geo_build": "", "held_scopes": [],
        "counts": {}, "seconds": {"ingest": 1.0}, "window_from": None, "window_to": None,
    }  # fmt: skip
    return Ended(EXIT_DONE if status == "done" else EXIT_HELD, (), record)


def test_each_run_goes_by_the_settings_as_they_are_and_tells_as_one_of_its_own(
    conf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[str, timedelta]] = []

    def run(spark: str, settings: Settings, **given: object) -> Ended:
        assert given["span"] is None
        assert given["steps"] == cli.STEPS["run"]
        seen.append((spark, settings.score.lookback))
        conf.write_text(conf.read_text().replace("lookback: 2h", "lookback: 3h"))
        if len(seen) == 2:
            raise RuntimeError("the JVM went")
        return ended(len(seen))

    monkeypatch.setattr("raretrail.stages.run.run", run)
    words = ["watch", "--every", "1s", "--runs", "3", "--conf", str(conf), "--format", "json"]
    assert cli.main(words) == EXIT_DONE
    hours = [timedelta(hours=n) for n in (2, 3, 3)]
    assert seen == list(zip(["session 1", "session 1", "session 2"], hours, strict=True))
    out, err = capsys.readouterr()
    assert [json.loads(line)["run_id"] for line in out.splitlines()] == ["run 1", "run 3"]
    lines = [json.loads(line) for line in err.splitlines()]
    # On a busy machine a run of nothing may take longer than its second, and says so.
    told = [
        (line["level"], line["message"])
        for line in lines
        if line["message"] != "ingest" and not line["message"].startswith("the run took longer")
    ]
    assert told == [("info", "ended"), ("error", "failed: RuntimeError: the JVM went"), ("info", "ended")]
    assert len({line["invocation"] for line in lines}) == 3
    assert "raretrail_last_run_exit_code 0" in (conf.parent / "metrics.prom").read_text()


def test_a_number_of_runs_ends_as_the_last_of_them_did(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter(["done", "held"])
    monkeypatch.setattr("raretrail.stages.run.run", lambda spark, settings, **given: ended(1, next(states)))
    words = ["watch", "--every", "1s", "--runs", "2", "--conf", str(conf)]
    assert cli.main([*words, "--held-exit", "9"]) == 9


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--every", "soon"], "is no duration"),
        (["--every", "0s"], "longer than nothing"),
        (["--runs", "0"], "starts at 1"),
        (["--as-of", "2026-03-01"], "unrecognized arguments"),
    ],
)
def test_wrong_words_are_refused(
    conf: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = cli.main(["watch", "--conf", str(conf), *words])
    except SystemExit as error:  # how argparse refuses
        code = int(str(error.code))
    assert code == EXIT_USAGE
    assert said in capsys.readouterr().err
    assert Resident.opened == 0


def test_a_single_run_tells_metrics_log_and_exit_code(
    conf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def spark(settings: Settings, size: str) -> Iterator[str]:
        yield "a session"

    given: dict[str, object] = {}

    def run(session: str, settings: Settings, **more: object) -> Ended:
        given.update(more, session=session)
        return ended(1, "held")

    monkeypatch.setattr(cli, "_spark", spark)
    monkeypatch.setattr("raretrail.stages.run.run", run)
    words = ["run", "--conf", str(conf), "--from", "2026-02-01", "--to", "2026-02-02", "--format", "json"]
    assert cli.main(words) == EXIT_HELD
    assert given["session"] == "a session"
    assert given["span"] == (datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 2, 2, tzinfo=UTC))
    assert given["steps"] == cli.STEPS["run"]
    out, err = capsys.readouterr()
    assert json.loads(out)["status"] == "held"
    assert [json.loads(line)["exit_code"] for line in err.splitlines()] == [EXIT_HELD]
    assert f"raretrail_last_run_exit_code {EXIT_HELD}" in (conf.parent / "metrics.prom").read_text()

    def busy(session: str, settings: Settings, **more: object) -> Ended:
        raise BusyError("another run holds it")

    monkeypatch.setattr("raretrail.stages.run.run", busy)
    assert cli.main(words) == BusyError.exit_code
    assert f"raretrail_last_run_exit_code {BusyError.exit_code}" in (conf.parent / "metrics.prom").read_text()
