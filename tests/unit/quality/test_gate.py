from __future__ import annotations

from datetime import UTC, datetime

from raretrail.quality.gate import gate
from raretrail.quality.judge import Verdict


def verdict(
    severity: str = "critical",
    success: bool = False,
    scope: tuple[str | None, str | None] = (None, None),
    detail: str = "events.e failed: 3 of 9 events. Do that.",
) -> Verdict:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    return Verdict("r", "events", "e", severity, *scope, success, 3.0, 3, 9, detail, "{}", "1", now)


def test_nothing_wrong_holds_nothing() -> None:
    opened = gate([verdict(success=True), verdict("warning", success=True)])
    assert not opened.held
    assert (opened.messages, opened.warnings) == ((), ())


def test_a_warning_is_said_and_holds_nothing() -> None:
    opened = gate([verdict("warning", scope=("detector", "rarity"))])
    assert not opened.held
    assert opened.warnings == ("events.e failed: 3 of 9 events. Do that.",)
    assert opened.messages == ()


def test_a_critical_failure_without_scope_holds_everything() -> None:
    closed = gate([verdict(success=True), verdict()])
    assert closed.held and closed.held_all
    assert closed.messages == ("Everything is held: events.e failed: 3 of 9 events. Do that.",)


def test_a_critical_failure_with_scope_holds_that_scope_alone() -> None:
    closed = gate(
        [
            verdict(scope=("recipient_account_id", "111")),
            verdict(scope=("recipient_account_id", None), success=True),
            verdict(scope=("detector", "rarity")),
            verdict(scope=("detector", "rarity"), detail="events.f failed."),
        ]
    )
    assert closed.held and not closed.held_all
    assert closed.held_scopes == {("recipient_account_id", "111"), ("detector", "rarity")}
    assert closed.messages == (
        "The findings of recipient_account_id 111 are held: events.e failed: 3 of 9 events. Do that.",
        "The findings of detector rarity are held: events.e failed: 3 of 9 events. Do that.",
        "The findings of detector rarity are held: events.f failed.",
    )


def test_a_scoped_failure_of_no_value_in_particular_holds_everything() -> None:
    assert gate([verdict(scope=("detector", None))]).held_all
    assert gate([verdict(scope=("detector", "null"))]).held_all
