"""Which answers the relay may still drop."""

from __future__ import annotations

import pytest

from tests.client.waiting import woken
from triorelay.client._answers import LOST_KEPT, Answers

A, B = b"AB"


@pytest.fixture
def answers() -> Answers:
    return Answers()


def test_an_answer_that_was_proved_is_forgotten(answers: Answers) -> None:
    answers.sent((A, 1))
    answers.sent((A, 2))
    before = answers.count
    answers.sent((B, 1))
    answers.prove(before)
    answers.dropped(A)
    assert answers.take_lost() == []
    assert len(answers) == 1
    answers.prove(answers.count)
    assert not answers


def test_a_report_makes_all_unproved_answers_to_that_caller_lost(answers: Answers) -> None:
    for caller, number in ((A, 1), (B, 1), (A, 2)):
        answers.sent((caller, number))
    answers.dropped(A)
    answers.prove(answers.count)  # the FLUSH was answered after the report
    assert len(answers) == 2
    assert answers.take_lost() == [(A, 1), (A, 2)]
    assert not answers


def test_a_flush_does_not_prove_a_later_answer_of_the_same_number(answers: Answers) -> None:
    answers.sent((A, 1))
    before = answers.count
    answers.forget({A})  # and another client of that id counts its calls from 1 again
    answers.sent((A, 1))
    answers.prove(before)
    answers.dropped(A)
    assert answers.take_lost() == [(A, 1)]


def test_a_lost_answer_is_taken_once_and_lost_again_if_its_failure_is_dropped(answers: Answers) -> None:
    answers.sent((A, 1))
    answers.dropped(A)
    assert answers.take_lost() == [(A, 1)]
    assert answers.take_lost() == []
    answers.sent((A, 1))
    answers.dropped(A)
    assert answers.take_lost() == [(A, 1)]


def test_a_caller_that_left_is_forgotten(answers: Answers) -> None:
    answers.sent((A, 1))
    answers.dropped(A)
    answers.sent((A, 2))
    answers.forget({A})
    assert not answers
    assert answers.take_lost() == []


def test_a_caller_that_floods_makes_it_keep_the_newest_only(answers: Answers) -> None:
    for number in range(LOST_KEPT + 5):
        answers.sent((A, number))
        answers.dropped(A)
    assert answers.take_lost() == [(A, number) for number in range(5, LOST_KEPT + 5)]


async def test_an_answer_wakes_the_task_that_settles_them(answers: Answers) -> None:
    async with woken(answers.noted.park):
        answers.sent((A, 1))
