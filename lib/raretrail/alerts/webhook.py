"""Posting alerts to a webhook: signed, tried again where that may help, within a bound of seconds.

Nothing here raises for what a receiver does or fails to do, and no message names more of its URL than the
host: path and query of a webhook are mostly its key.
"""

from __future__ import annotations

import email.utils
import hmac
import os
import random
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import urlsplit

from raretrail import __version__
from raretrail.errors import UsageError
from raretrail.settings import WebhookSettings

URL_VARIABLE = "RARETRAIL_WEBHOOK_URL"
SECRET_VARIABLE = "RARETRAIL_WEBHOOK_SECRET"
# All posting of a run ends within so many seconds.
SECONDS_PER_RUN = 60.0
# Tries of one alert in a run, and the wait after the first of them; it doubles.
TRIES_PER_RUN = 4
_FIRST_WAIT = 1.0
# Alerts in a row that nobody takes, after which a run leaves the others for the next one.
_SILENT_AFTER = 3
# What is left of the bound is not worth a try.
_LEAST_SECONDS = 0.5
_AGAIN = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}


@dataclass(frozen=True)
class Target:
    """Where alerts go. Its text shows neither URL nor secret."""

    url: str = field(repr=False)
    secret: bytes | None = field(repr=False, default=None)
    timeout: float = 10.0
    max_attempts: int = 500

    @property
    def host(self) -> str:
        """What messages may name of it."""
        return urlsplit(self.url).hostname or "?"


@dataclass(frozen=True)
class Alert:
    """One alert to be posted: its row's key, its text, how often it was tried so far."""

    incident_id: str
    revision: int
    payload: str
    attempts: int = 0

    @property
    def key(self) -> str:
        """The same for every try of this alert, and of no other."""
        return f"{self.incident_id}:{self.revision}"


@dataclass(frozen=True)
class Outcome:
    """What became of an alert in a run: its tries so far, when the last was, what went wrong with it."""

    alert: Alert
    attempts: int
    tried_at: datetime
    error: str | None = None
    given_up: bool = False

    @property
    def status(self) -> str:
        """As `tables.ALERT_STATUSES` names it."""
        return "delivered" if self.error is None else "given_up" if self.given_up else "pending"


@dataclass(frozen=True)
class Answer:
    """What one request came to: no error, or what went wrong, whether another try may help, and how long
    the receiver asks to wait."""

    error: str | None = None
    again: bool = False
    wait: float | None = None


def target_of(settings: WebhookSettings) -> Target | None:
    """Where alerts go by the environment, else by the settings; None where neither says. UsageError for what
    nothing can be posted to."""
    given = os.environ.get(URL_VARIABLE)
    url = given or settings.url
    if not url:
        return None
    if not _can_be_posted_to(url):
        where = URL_VARIABLE if given else "alerts.webhook.url"
        raise UsageError(f"{where}: is no http or https URL, or has a user or password in it")
    secret = os.environ.get(SECRET_VARIABLE, "").encode() or None
    return Target(url, secret, settings.timeout.total_seconds(), settings.max_attempts)


def _can_be_posted_to(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and " " not in url
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """The value of X-Raretrail-Signature: HMAC-SHA256 over timestamp, a dot and the body as posted."""
    return "v1=" + hmac.digest(secret, timestamp.encode() + b"." + body, "sha256").hex()


def headers(target: Target, key: str, body: bytes, now: datetime) -> dict[str, str]:
    """The headers of a request made now; without a secret it is not signed."""
    timestamp = str(int(now.timestamp()))
    made = {
        "Content-Type": "application/json",
        "Idempotency-Key": key,
        "User-Agent": f"raretrail/{__version__}",
        "X-Raretrail-Timestamp": timestamp,
    }
    if target.secret:
        made["X-Raretrail-Signature"] = signature(target.secret, timestamp, body)
    return made


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer: what is signed for one receiver goes to no other."""

    def redirect_request(self, *args: object) -> None:
        return None


def post(target: Target, key: str, body: bytes, now: datetime, timeout: float) -> Answer:
    """Post once. It ends within timeout seconds, however slowly the receiver answers."""
    answers: list[Answer] = []

    def work() -> None:
        answers.append(_post(target, key, body, now, timeout))

    # A timeout of urllib is one of each read from the socket, and an answer may come a byte at a time.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(timeout + _LEAST_SECONDS)
    return answers[0] if answers else Answer("not answered in time", again=True)


def _post(target: Target, key: str, body: bytes, now: datetime, timeout: float) -> Answer:
    try:
        request = urllib.request.Request(
            target.url, data=body, method="POST", headers=headers(target, key, body, now)
        )
        opener = urllib.request.build_opener(_NoRedirects)
        with opener.open(request, timeout=timeout) as answer:
            answer.read(1)
            return Answer()
    except urllib.error.HTTPError as error:
        with error:
            return _refused(target, error, now)
    except TimeoutError:
        return Answer("not answered in time", again=True)
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            return Answer("not answered in time", again=True)
        return Answer(f"not reached ({type(error.reason).__name__})", again=True)
    except OSError as error:
        return Answer(f"not reached ({type(error).__name__})", again=True)
    except Exception as error:  # http.client's own: whatever the other side says must not fail a run
        return Answer(f"not understood ({type(error).__name__})", again=True)


def _refused(target: Target, error: urllib.error.HTTPError, now: datetime) -> Answer:
    try:
        phrase = f" {HTTPStatus(error.code).phrase}"
    except ValueError:
        phrase = ""
    said = f"answered {error.code}{phrase}{_word(target, error)}"
    if error.code in _AGAIN or error.code >= 500:
        return Answer(said, again=True, wait=_retry_after(error.headers.get("Retry-After"), now))
    if 300 <= error.code < 400:
        said += "; redirects are not followed"
    return Answer(said)


def _word(target: Target, error: urllib.error.HTTPError) -> str:
    """The word some receivers (Slack) answer with, where it is one and holds nothing of the URL."""
    try:
        word = error.read(100).decode().strip()
    except Exception:
        return ""
    parts = urlsplit(target.url)
    secret = [piece for piece in re.split(r"[/?&=#]", f"{parts.path}?{parts.query}") if piece]
    if not re.fullmatch(r"[a-z]+(_[a-z]+)+", word) or any(p in word or word in p for p in secret):
        return ""
    return f" ({word})"


def _retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait by a Retry-After in seconds or as a date; None without one that can be read."""
    if value is None:
        return None
    if re.fullmatch(r"\d{1,9}", value.strip()):
        return float(value)
    try:
        time = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time
    return max(0.0, (time - now).total_seconds())


# --------------------------------------------------------------------------------------- a run's worth


@dataclass(frozen=True)
class Means:
    """What delivery takes from the world besides the network."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    monotonic: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random


def deliver(
    target: Target, alerts: Sequence[Alert], *, seconds: float = SECONDS_PER_RUN, means: Means | None = None
) -> list[Outcome]:
    """Post the alerts in this order, each up to `TRIES_PER_RUN` times; what became of those that were tried.

    It ends within `seconds`, or earlier: when several alerts in a row found nobody, or the receiver asks to
    wait for longer than is left. What was not tried or not taken waits for the next run.
    """
    return _Delivery(target, seconds, means or Means()).all(alerts)


class _Delivery:
    def __init__(self, target: Target, seconds: float, means: Means) -> None:
        self._target, self._means = target, means
        self._end = means.monotonic() + seconds
        self._stopped = False

    def all(self, alerts: Sequence[Alert]) -> list[Outcome]:
        done: list[Outcome] = []
        silent = 0
        for alert in alerts:
            if self._stopped or silent >= _SILENT_AFTER or self._left() < _LEAST_SECONDS:
                break
            outcome = self._one(alert)
            done.append(outcome)
            silent = silent + 1 if outcome.status == "pending" else 0
        return done

    def _left(self) -> float:
        return self._end - self._means.monotonic()

    def _one(self, alert: Alert) -> Outcome:
        """Try until it is delivered or refused, or tries or seconds are spent."""
        attempts = alert.attempts
        for number in range(TRIES_PER_RUN):
            now = self._means.now()
            timeout = min(self._target.timeout, self._left())
            answer = post(self._target, alert.key, alert.payload.encode(), now, timeout)
            attempts += 1
            outcome = Outcome(alert, attempts, now, answer.error)
            if answer.error is None:
                return outcome
            if not answer.again:
                return replace(outcome, given_up=True)
            if attempts >= self._target.max_attempts:
                error = f"{answer.error}; tried {attempts} times (alerts.webhook.max_attempts)"
                return replace(outcome, given_up=True, error=error)
            wait = _FIRST_WAIT * 2**number * (0.5 + self._means.chance() / 2)
            if answer.wait is not None:
                # It is the receiver that is busy, so the other alerts wait with this one.
                wait = max(wait, answer.wait)
                self._stopped = wait + _LEAST_SECONDS > self._left()
            if self._stopped or number + 1 == TRIES_PER_RUN or wait + _LEAST_SECONDS > self._left():
                break
            self._means.pause(wait)
        return outcome
