"""Work beside other work: it ends before the body does, its error is raised where its result is asked for."""

from __future__ import annotations

import threading

import pytest

from raretrail.together import beside, together


def test_work_beside_the_body_gives_its_result() -> None:
    body_is_done = threading.Event()

    def work() -> int:
        assert body_is_done.wait(10)
        return 3

    with beside(work) as result:
        body_is_done.set()
    assert result() == 3


def test_its_error_is_raised_where_the_result_is_asked_for() -> None:
    def work() -> None:
        raise OSError("disk full")

    with beside(work) as result:
        pass
    with pytest.raises(OSError, match="disk full"):
        result()


def test_a_body_that_fails_is_left_only_once_the_work_has_ended() -> None:
    body_failed, ended = threading.Event(), threading.Event()

    def work() -> None:
        assert body_failed.wait(10)
        ended.set()

    with pytest.raises(ValueError, match="body"), beside(work):
        body_failed.set()
        raise ValueError("body")
    assert ended.is_set()


def test_results_come_in_the_order_of_the_work_and_the_first_error_once_all_have_ended() -> None:
    done: list[str] = []

    def fails(word: str) -> str:
        done.append(word)
        raise ValueError(word)

    assert together([lambda: "a", lambda: "b", lambda: "c"]) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="first"):
        together([lambda: fails("first"), lambda: fails("second")])
    assert sorted(done) == ["first", "second"]
