"""Alerts posted to a real server that takes them, fails, hangs, cuts, refuses and asks to wait."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from raretrail import cli
from raretrail.alerts.webhook import (
    SECONDS_PER_RUN,
    SECRET_VARIABLE,
    TRIES_PER_RUN,
    URL_VARIABLE,
    Alert,
    Means,
    Outcome,
    Target,
    deliver,
    signature,
    target_of,
)
from raretrail.errors import EXIT_USAGE, UsageError
from raretrail.settings import WebhookSettings
from receiver import Receiver, receiver

NOW = datetime(2026, 2, 1, 12, 0, tzinfo=UTC)
TOKEN, SECRET = "T0KEN-in-the-path", b"planted-secret"
ALERT = Alert("48f5d7ce", 1, '{"a":1}')


class World:
    """Time that passes only by what is waited for, so that no test waits."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.pauses: list[float] = []
        self.means = Means(
            now=lambda: NOW + timedelta(seconds=self.passed),
            monotonic=lambda: self.passed,
            pause=self._pause,
            chance=lambda: 1.0,
        )

    def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.passed += seconds


Serve = Callable[..., tuple[Receiver, Target]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(*answers: str, timeout: float = 5.0, max_attempts: int = 500) -> tuple[Receiver, Target]:
            server = stack.enter_context(receiver(tmp_path, answers))
            url = f"{server.base}/services/{TOKEN}?key={TOKEN}"
            return server, Target(url, SECRET, timeout, max_attempts)

        yield start


def sent(target: Target, *alerts: Alert, seconds: float = SECONDS_PER_RUN) -> tuple[list[Outcome], World]:
    world = World()
    return deliver(target, alerts or (ALERT,), seconds=seconds, means=world.means), world


def test_a_request_is_signed_and_says_whose_it_is(serve: Serve) -> None:
    server, target = serve("200")
    (outcome,), world = sent(target)
    assert (outcome.status, outcome.attempts, outcome.error) == ("delivered", 1, None)
    assert world.pauses == []
    (request,) = server.requests()
    assert (request["method"], request["path"]) == ("POST", f"/services/{TOKEN}?key={TOKEN}")
    found = request["headers"]
    assert request["body"] == ALERT.payload
    assert found["Content-Type"] == "application/json"
    assert found["Idempotency-Key"] == "48f5d7ce:1"
    assert found["X-Raretrail-Timestamp"] == str(int(NOW.timestamp()))
    # The arithmetic once more, in the words of the standard library.
    text = f"{found['X-Raretrail-Timestamp']}.{request['body']}".encode()
    assert found["X-Raretrail-Signature"] == "v1=" + hmac.new(SECRET, text, hashlib.sha256).hexdigest()


def test_a_signature_is_of_the_time_the_body_and_the_secret() -> None:
    usual = signature(SECRET, "1", b"body")
    others = {signature(SECRET, "2", b"body"), signature(SECRET, "1", b"Body"), signature(b"x", "1", b"body")}
    assert usual not in others and len(others) == 3


def test_without_a_secret_nothing_is_signed(serve: Serve) -> None:
    server, target = serve("204")
    (outcome,), _ = sent(Target(target.url))
    assert outcome.status == "delivered"
    assert "X-Raretrail-Signature" not in server.requests()[0]["headers"]


def test_a_server_in_trouble_is_asked_again_later_and_later(serve: Serve) -> None:
    server, target = serve("500", "503", "200")
    (outcome,), world = sent(target)
    assert (outcome.status, outcome.attempts) == ("delivered", 3)
    assert world.pauses == [1.0, 2.0]
    keys = [request["headers"]["Idempotency-Key"] for request in server.requests()]
    assert keys == ["48f5d7ce:1"] * 3
    stamps = [request["headers"]["X-Raretrail-Timestamp"] for request in server.requests()]
    assert len(set(stamps)) == 3, "each request is signed for its own time"


def test_waits_are_shortened_by_chance(serve: Serve) -> None:
    _, target = serve("500", "500", "200")
    world = World()
    chances = iter([0.0, 0.5])
    means = Means(world.means.now, world.means.monotonic, world.means.pause, lambda: next(chances))
    assert deliver(target, [ALERT], means=means)[0].status == "delivered"
    assert world.pauses == [0.5, 1.5]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("408", "answered 408 Request Timeout"),
        ("500", "answered 500 Internal Server Error"),
        ("599", "answered 599"),
        ("cut", "not reached (RemoteDisconnected)"),
        ("garbage", "not understood (BadStatusLine)"),
    ],
)
def test_what_may_pass_is_left_for_the_next_run(serve: Serve, answer: str, error: str) -> None:
    server, target = serve(answer)
    (outcome,), world = sent(target)
    assert (outcome.status, outcome.error) == ("pending", error)
    assert outcome.attempts == TRIES_PER_RUN == len(server.requests())
    assert world.pauses == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("answer", ["hang", "drip"])
def test_no_answer_in_time_is_no_delivery(serve: Serve, answer: str) -> None:
    server, target = serve(answer, "200", timeout=0.2)
    (outcome,), world = sent(target)
    assert (outcome.status, outcome.attempts) == ("delivered", 2)
    assert world.pauses == [1.0]
    assert len(server.requests()) == 2


def test_a_receiver_that_is_not_there_is_left_for_the_next_run(serve: Serve) -> None:
    server, target = serve("200")
    server.end()
    (outcome,), _ = sent(target)
    assert (outcome.status, outcome.error) == ("pending", "not reached (ConnectionRefusedError)")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("400|invalid_payload", "answered 400 Bad Request (invalid_payload)"),
        ("404|<html>no such hook</html>", "answered 404 Not Found"),
        ("410|no_such_hook\n", "answered 410 Gone (no_such_hook)"),
        ("403|" + "x" * 5000, "answered 403 Forbidden"),
    ],
)
def test_a_refusal_is_given_up_at_once_with_its_reason(serve: Serve, answer: str, error: str) -> None:
    server, target = serve(answer)
    (outcome,), world = sent(target)
    assert (outcome.status, outcome.error, outcome.attempts) == ("given_up", error, 1)
    assert len(server.requests()) == 1 and world.pauses == []


@pytest.mark.parametrize("body", [TOKEN, "token_like_word_key", "services_down", f"no_such_{TOKEN}"])
def test_no_reason_repeats_a_part_of_the_url(serve: Serve, body: str) -> None:
    server, _ = serve(f"400|{body}")
    target = Target(f"{server.base}/services/token_like_word?key=abc")
    (outcome,), _ = sent(target)
    assert outcome.error == "answered 400 Bad Request"


def test_no_redirect_is_followed(serve: Serve, tmp_path: Path) -> None:
    with receiver(tmp_path / "other", ["200"]) as other:
        for status in ("301", "302", "303", "307", "308"):
            _, target = serve(f"{status} Location={other.base}/elsewhere")
            (outcome,), _ = sent(target)
            assert outcome.status == "given_up"
            assert outcome.error is not None and outcome.error.endswith("; redirects are not followed")
        assert other.requests() == []


def test_a_receiver_that_is_busy_is_given_the_time_it_asks_for(serve: Serve) -> None:
    server, target = serve("429 Retry-After=17", "503 Retry-After=9", "200")
    (outcome,), world = sent(target)
    assert outcome.status == "delivered"
    assert world.pauses == [17.0, 9.0]
    assert len(server.requests()) == 3


def test_the_time_asked_for_may_be_a_date_or_nonsense(serve: Serve) -> None:
    date = "Sun,_01_Feb_2026_12:00:20_GMT"
    _, target = serve(f"429 Retry-After={date}", "429 Retry-After=soon", "200")
    (outcome,), world = sent(target)
    assert outcome.status == "delivered"
    assert world.pauses == [20.0, 2.0]


def test_who_asks_for_more_than_a_run_has_is_asked_by_the_next_run(serve: Serve) -> None:
    server, target = serve("429 Retry-After=3600", "200")
    outcomes, world = sent(target, ALERT, Alert("other", 0, "{}"))
    assert [one.status for one in outcomes] == ["pending"]
    assert world.pauses == [] and len(server.requests()) == 1, "the others wait too"


def test_a_run_ends_within_its_seconds(serve: Serve) -> None:
    server, target = serve("500")
    alerts = [Alert(str(number), 0, "{}") for number in range(9)]
    outcomes, world = sent(target, *alerts, seconds=5)
    assert world.passed <= 5
    assert [one.attempts for one in outcomes] == [3, 2, 1], "fewer tries as it runs out"
    assert len(server.requests()) == 6
    assert sent(target, seconds=0.1)[0] == []


def test_nobody_there_for_three_is_nobody_for_the_rest(serve: Serve) -> None:
    server, target = serve("500")
    outcomes, _ = sent(target, *[Alert(str(number), 0, "{}") for number in range(9)])
    assert len(outcomes) == 3
    assert len(server.requests()) == 3 * TRIES_PER_RUN


def test_one_that_nobody_takes_keeps_no_other_waiting(serve: Serve) -> None:
    _, target = serve(*["500"] * TRIES_PER_RUN, "200")
    outcomes, _ = sent(target, Alert("poison", 0, "{}"), Alert("other", 0, "{}"))
    assert [(one.alert.incident_id, one.status) for one in outcomes] == [
        ("poison", "pending"),
        ("other", "delivered"),
    ]


def test_tries_over_all_runs_have_an_end(serve: Serve) -> None:
    server, target = serve("500", max_attempts=6)
    (outcome,), _ = sent(target, Alert("a", 0, "{}", attempts=4))
    assert (outcome.status, outcome.attempts) == ("given_up", 6)
    assert outcome.error == (
        "answered 500 Internal Server Error; tried 6 times (alerts.webhook.max_attempts)"
    )
    assert len(server.requests()) == 2


def test_text_of_a_target_shows_neither_url_nor_secret() -> None:
    target = Target(f"https://hooks.example.com/{TOKEN}", SECRET)
    assert TOKEN not in repr(target) and SECRET.decode() not in repr(target)
    assert target.host == "hooks.example.com"


# ---------------------------------------------------------------------------------- where alerts go


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (URL_VARIABLE, SECRET_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_the_environment_goes_before_the_settings(environment: pytest.MonkeyPatch) -> None:
    assert target_of(WebhookSettings()) is None
    settings = WebhookSettings(url="https://one.example.com/x", timeout=timedelta(seconds=3), max_attempts=7)
    assert target_of(settings) == Target("https://one.example.com/x", None, 3.0, 7)
    environment.setenv(URL_VARIABLE, "https://two.example.com/y")
    environment.setenv(SECRET_VARIABLE, SECRET.decode())
    assert target_of(settings) == Target("https://two.example.com/y", SECRET, 3.0, 7)
    assert target_of(WebhookSettings()) is not None


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/token", "file:///etc/passwd", "https://", "token", "https://u:token@example.com/",
        "https://example.com:port/token", "https://example.com/to ken", "https://exämple.com/token",
        "https://example.com/token\n", "http://[token/",
    ],
)  # fmt: skip
def test_what_nothing_can_be_posted_to_is_refused(environment: pytest.MonkeyPatch, url: str) -> None:
    environment.setenv(URL_VARIABLE, url)
    with pytest.raises(UsageError) as refused:
        target_of(WebhookSettings())
    assert str(refused.value).startswith(URL_VARIABLE)
    assert "token" not in str(refused.value)


def _conf(tmp_path: Path, url: str) -> str:
    file = tmp_path / "settings.yml"
    file.write_text(json.dumps({"alerts": {"webhook": {"url": url, "timeout": "3s"}}}))
    return str(file)


def test_a_run_is_told_where_alerts_go(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import raretrail.stages.run as stage

    told: list[Target | None] = []

    def ended(*arguments: object, target: Target | None, **more: object) -> object:
        told.append(target)
        counts = {"alerts_sent": 1}
        record = {"status": "done", "mode": "scheduled", "counts": counts, "seconds": {}, "run_id": "r"}
        return SimpleNamespace(exit_code=0, messages=(), record=record)

    environment.setattr(stage, "run", ended)
    environment.setattr(cli, "_spark", lambda settings, size: nullcontext())
    options = ["run", "--quiet", "--warehouse", str(tmp_path / "w")]
    assert cli.main([*options, "--conf", _conf(tmp_path, "https://a.example.com/x")]) == 0
    environment.setenv(SECRET_VARIABLE, SECRET.decode())
    environment.setenv(URL_VARIABLE, "https://b.example.com/y")
    assert cli.main([*options, "--conf", _conf(tmp_path, "https://a.example.com/x")]) == 0
    assert told == [
        Target("https://a.example.com/x", None, 3.0, 500),
        Target("https://b.example.com/y", SECRET, 3.0, 500),
    ]


def test_a_url_nothing_can_be_posted_to_is_said_before_anything_starts(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv(URL_VARIABLE, f"ftp://example.com/{TOKEN}")
    assert cli.main(["run", "--trail", "t", "--warehouse", "w"]) == EXIT_USAGE
    told = capsys.readouterr()
    assert URL_VARIABLE in told.err and TOKEN not in told.err + told.out


@pytest.mark.parametrize("rest", [f"/{TOKEN}", f"?key={TOKEN}", f"#{TOKEN}", f":8443/x?{TOKEN}"])
def test_printed_settings_keep_the_url_to_themselves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rest: str
) -> None:
    conf = _conf(tmp_path, f"https://hooks.example.com{rest}")
    assert cli.main(["run", "--conf", conf, "--print-settings"]) == 0
    out = capsys.readouterr().out
    assert "hooks.example.com" in out and TOKEN not in out
