"""The numbers and names of refusals, close reasons and drop reasons: they are on the wire, in logs and in metrics."""

from __future__ import annotations

import re

from triorelay.protocol import CloseReason, DropReason, Refusal


def test_the_refusal_codes_are_those_of_the_protocol() -> None:
    assert {code.name: int(code) for code in Refusal} == {
        "WELCOME": 0,
        "TAKEN": 1,
        "NOT_ALLOWED": 2,
        "BAD_HELLO": 3,
        "FULL": 4,
        "DRAINING": 5,
        "AUTHENTICATION": 6,
        "UNAVAILABLE": 7,
    }


def test_a_refusal_is_found_by_its_code_and_says_what_it_means() -> None:
    assert Refusal(1) is Refusal.TAKEN
    assert Refusal.TAKEN.meaning == "the id is taken"
    assert len({code.meaning for code in Refusal}) == len(Refusal)


def test_the_close_reasons_keep_their_numbers() -> None:
    assert {reason.name: int(reason) for reason in CloseReason} == {
        "LEFT": 1,
        "RESET": 2,
        "SLOW_CONSUMER": 3,
        "REPLACED": 4,
        "DRAINING": 5,
        "CLOSED": 6,
        "DENIED": 7,
        "FENCED": 8,
        "HELLO_TIMEOUT": 9,
        "REFUSED": 10,
        "CROWDED_OUT": 11,
        "ERROR": 12,
    }


def test_the_drop_reasons_are_those_of_the_ledger() -> None:
    assert {reason.value for reason in DropReason} == {
        "no_route",
        "queue_full",
        "slow_consumer",
        "peer_gone",
        "source_closed",
        "hold_expired",
        "denied",
        "draining",
        "cluster_down",
        "fenced",
    }


def test_labels_are_fit_for_metrics() -> None:
    labels = [reason.label for reason in (*Refusal, *CloseReason)] + [reason.value for reason in DropReason]
    assert all(re.fullmatch("[a-z]+(_[a-z]+)*", label) for label in labels)
    assert Refusal.BAD_HELLO.label == "bad_hello"
    assert CloseReason.SLOW_CONSUMER.label == DropReason.SLOW_CONSUMER.value
