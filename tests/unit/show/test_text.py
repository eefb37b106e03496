"""Text: nothing a log holds acts on a terminal; widths, lengths of time and JSON are kept."""

from __future__ import annotations

import io
import json
import unicodedata
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from raretrail.show.text import Screen, cut, cut_head, cut_middle, inert, lasting, render, styled, to_json

# All of Unicode, with a preference for what terminals and readers act on.
NASTY = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("\x00\x07\x08\x1b\x7f\x85\x9b\x9d\u200b\u202e\u2028\u2066\ufeff\U000e0041"),
    ),
    max_size=60,
)
ACTING = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def acting(text: str) -> set[str]:
    return {char for char in text if unicodedata.category(char) in ACTING}


@given(NASTY)
@example("\x1b]0;owned\x07")
@example("\ud800")
def test_inert_text_holds_nothing_that_acts(text: str) -> None:
    assert acting(inert(text)) == set()


@given(st.text(st.characters(exclude_categories=sorted(ACTING))))
def test_inert_leaves_ordinary_text_alone(text: str) -> None:
    assert inert(text) == text


def test_inert_shows_what_was_there() -> None:
    assert inert("a\x1b[31mb\u202ec\n") == r"a\x1b[31mb\u202ec\n"


@given(st.dictionaries(NASTY, st.one_of(NASTY, st.lists(NASTY, max_size=3), st.integers())))
def test_json_is_inert_and_reads_back(value: dict[str, object]) -> None:
    text = to_json(value)
    assert acting(text) == set()
    assert json.loads(text) == value


def test_json_writes_times_in_utc() -> None:
    assert to_json({"at": datetime(2026, 2, 15, 5, 43, 35, tzinfo=UTC)}) == '{"at": "2026-02-15T05:43:35Z"}'


@given(st.text(st.characters(exclude_categories=sorted(ACTING)), max_size=40), st.integers(1, 30))
@pytest.mark.parametrize("shorten", [cut, cut_middle, cut_head])
def test_what_is_cut_fits(shorten: object, text: str, width: int) -> None:
    assert callable(shorten)
    shortened = shorten(text, width)
    assert cell_len(shortened) <= width
    if cell_len(text) <= width:
        assert shortened == text


def test_cut_head_keeps_the_name() -> None:
    assert cut_head("role/quillon-admin/yusuf.becker", 26) == "role/quillon…/yusuf.becker"
    assert cut_head("role/quillon-admin/yusuf.becker", 17) == "…/yusuf.becker"


@given(NASTY)
def test_rendering_in_colour_adds_only_its_own_escapes(text: str) -> None:
    screen = Screen(width=80, colour=True)
    plain = render(styled("x" + inert(text), "bold"), screen).replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert acting(plain) <= {"\n"}


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0.0 s"),
        (42, "42 s"),
        (324, "5 min 24 s"),
        (300, "5 min"),
        (11_100, "3 h 5 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_lengths_of_time(seconds: float, said: str) -> None:
    assert lasting(seconds) == said


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_only_on_a_terminal_that_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Screen.of(_Terminal()).colour
    assert not Screen.of(io.StringIO()).colour
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Screen.of(_Terminal()).colour


def test_the_width_is_the_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "63")
    assert Screen.of(io.StringIO()).width == 63
