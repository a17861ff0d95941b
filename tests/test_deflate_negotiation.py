"""Agreeing on permessage-deflate (RFC 7692, 5, 7.1): offers and answers, as values."""

import pytest

from deflate_cases import ACCEPTED, AGREED, DECLINED, DEFAULT, OFFERED, PMD, REFUSED
from heads import extensions
from rfc6455 import Deflate, InvalidHandshake
from rfc6455.deflate import accept_offer, build_offer, check_answer

requirement = pytest.mark.requirement


# The server


def accept(offer: str, ours: Deflate = DEFAULT) -> str | None:
    """The answer to this offer, None where it is declined."""
    found = accept_offer(extensions(offer), ours)
    return found and found[1]


@requirement("D5.2-1", "D7.1.1.1-2", "D7.1.1.1-3", "D7.1.2.1-2", "D7.1.2.2-1", "D7.1.2.2-3")
@requirement("D7.1.2.2-5", "D7.1.2.2-7")
@pytest.mark.parametrize(("ours", "offered", "answered"), ACCEPTED)
def test_server_accepts_an_offer_with_the_parameters_that_both_sides_need(
    ours: Deflate, offered: str, answered: str
) -> None:
    assert accept(PMD + offered, ours) == f"{PMD}; server_no_context_takeover{answered}"


@requirement("D5.2-1", "D7.1.1.2-1", "D7.1.2.2-5")
@pytest.mark.parametrize(("ours", "offered", "answered"), ACCEPTED)
def test_server_agrees_to_the_parameters_of_its_answer(
    ours: Deflate, offered: str, answered: str
) -> None:
    ours = ours._replace(threshold=77)
    accepted = accept_offer(extensions(PMD + offered), ours)
    assert accepted is not None
    assert accepted.agreed == check_answer(extensions(accepted.answer), Deflate(threshold=77))


@requirement("D7-1", "D7-2", "D7.1.1.1-1", "D7.1.2.1-1", "D7.1.2.2-1", "D7.1.2.2-3", "D7.1.2.2-7")
@pytest.mark.parametrize(("ours", "offered"), DECLINED)
def test_server_declines_an_offer_that_it_cannot_meet(ours: Deflate, offered: str) -> None:
    assert accept(PMD + offered, ours) is None


def test_server_declines_other_extensions_and_the_empty_list() -> None:
    assert accept_offer([], Deflate()) is None
    assert accept("x-webkit-deflate-frame, permessage-bzip2, permessage-deflate2") is None


@requirement("D5-2", "D5-3", "D5-4", "9.1-5")
@pytest.mark.parametrize(
    ("offers", "answered"),
    [
        (f"{PMD}; server_max_window_bits=99, {PMD}", ""),
        (f"{PMD}; server_max_window_bits=8, {PMD}; foo, {PMD}; client_max_window_bits", ""),
        (f"{PMD}; server_max_window_bits=10, {PMD}", "; server_max_window_bits=10"),
        (f"{PMD}, {PMD}; server_max_window_bits=10", ""),
        (f"{PMD}; client_no_context_takeover, {PMD}", "; client_no_context_takeover"),
        (f"{PMD}, {PMD}", ""),
        (f"x-foo; a=1; b, {PMD}, x-bar", ""),
        (f'x-foo; server_max_window_bits="10", {PMD}', ""),
    ],
)
def test_server_takes_the_first_of_several_offers_that_it_can_meet(
    offers: str, answered: str
) -> None:
    assert accept(offers) == f"{PMD}; server_no_context_takeover{answered}"


def test_server_reads_offers_from_several_header_lines_in_order() -> None:
    lines = extensions(f"{PMD}; server_max_window_bits=8", f"foo, {PMD}; server_max_window_bits=11")
    found = accept_offer(lines, Deflate())
    assert found is not None
    assert found[1] == f"{PMD}; server_no_context_takeover; server_max_window_bits=11"


# The client


@requirement("D5-1", "D7.3-1", "9.1-7")
@pytest.mark.parametrize(("ours", "offer"), OFFERED)
def test_client_offers_the_parameters_of_its_caller(ours: Deflate, offer: str) -> None:
    assert build_offer(ours) == offer


@requirement("D7.3-1")
def test_both_sides_use_the_largest_windows_by_default() -> None:
    assert accept(PMD) == f"{PMD}; server_no_context_takeover"
    assert accept(f"{PMD}; client_max_window_bits") == f"{PMD}; server_no_context_takeover"
    assert build_offer(Deflate()) == f"{PMD}; client_max_window_bits"
    assert Deflate()[:4] == (False, False, 15, 15)


@requirement("D5.2-1", "D7.1.1.1-4", "D7.1.1.2-1", "D7.1.1.2-2", "D7.1.2.1-3", "D7.1.2.2-6")
@pytest.mark.parametrize(("ours", "answered", "agreed"), AGREED)
def test_client_agrees_to_an_answer_that_meets_its_offer(
    ours: Deflate, answered: str, agreed: tuple[bool, bool, int, int]
) -> None:
    found = check_answer(extensions(PMD + answered), ours)
    assert found is not None
    assert found[:4] == agreed


@requirement("D5-5", "D5-7", "D5.1-1", "D7-3", "D7-4", "D7.1.1.1-1", "D7.1.2.1-1", "D7.1.2.1-3")
@requirement("D7.1.2.2-2", "D7.1.2.2-4", "4.1-20")
@pytest.mark.parametrize(("ours", "answered"), REFUSED)
def test_client_refuses_an_answer_that_does_not_meet_its_offer(
    ours: Deflate | None, answered: str
) -> None:
    with pytest.raises(InvalidHandshake) as refusal:
        check_answer(extensions(answered), ours)
    assert refusal.value.status == 101


@requirement("D5-6")
def test_client_goes_on_without_compression_when_the_answer_has_none() -> None:
    assert check_answer([], Deflate()) is None
    assert check_answer([], None) is None
