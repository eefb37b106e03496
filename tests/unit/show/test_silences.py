"""What fell silent, in words."""

from __future__ import annotations

from typing import Any

from raretrail.show.silences import in_words, outermost


def row(account: str, region: str, bits: float = 30.0, hours: int = 6) -> dict[str, Any]:
    return {
        "recipient_account_id": account, "aws_region": region, "silent_bits": bits,
        "silent_hours": hours, "silent_expected": 1234.5,
    }  # fmt: skip


def test_a_silence_is_told_by_the_widest_that_holds_it() -> None:
    rows = [row("1", "a"), row("1", "all", 40), row("2", "a"), row("2", "b"), row("3", "b"), row("all", "b")]
    names = [(r["recipient_account_id"], r["aws_region"]) for r in outermost(rows)]
    assert names == [("1", "all"), ("2", "a"), ("all", "b")]
    assert [r["aws_region"] for r in outermost([*rows, row("all", "all")])] == ["all"]
    assert outermost([]) == []


def test_the_words_name_who_for_how_long_and_the_first_five() -> None:
    assert in_words([row("all", "all")]) == "the whole trail for 6 hours, 1,234 events expected"
    assert in_words([row("all", "b"), row("1", "all"), row("1", "b")]) == (
        "region b for 6 hours, 1,234 events expected; account 1 for 6 hours, 1,234 events expected; "
        "account 1 in b for 6 hours, 1,234 events expected"
    )
    assert in_words([row(str(n), "all") for n in range(7)]).endswith("; 2 more")


def test_names_that_a_log_made_up_steer_no_terminal() -> None:
    told = in_words([row("1", "\x1b]0;owned\x07" + "x" * 500)])
    assert "\x1b" not in told and len(told) < 120
