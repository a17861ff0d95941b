"""Who is here: counts and names, and the pings that ask whether the server is there."""

import contextlib
import json
import threading
import time
from typing import Any

import pytest

from chat.presence import NAMES_TOLD, Here, Person, Presence, pause_after
from chat.resume import Resuming, admit
from chatting import (
    assert_here,
    hear,
    hear_online,
    hear_said,
    introduce,
    leave,
    leave_reading,
    names_in,
    read_close_past_messages,
    resume,
    say,
    tell,
    tell_name,
)
from guests import Guest, broken_sending, guests
from histories import opened
from peers import masked
from programs import Program, chat
from rfc6455 import State, WebSocket

ADA = {
    "username": "Ada",
    "avatar": "cfe00dde46ef942601ffafb9e2825e802858b460e586b8305b344c1eb826357d",
}
BOB = {
    "username": "Bob",
    "avatar": "686b5e4cf4f963adf8f51468a48028ef8d15bd02fa335f821279a3d1678c9615",
}

# Who is here


def test_client_that_tells_its_name_is_named_to_those_who_resume() -> None:
    with chat() as server, resume(server) as ada, resume(server) as bob:
        tell_name(ada, "Ada")
        tell_name(bob, "Bob")
        for peer in (ada, bob):
            # A client may be named before it is admitted, and counted.
            event = hear_online(
                peer, lambda event: event["count"] == 2 and len(event["people"]) == 2
            )
            assert event == {"event": "online", "count": 2, "people": [ADA, BOB]}
        tell_name(bob, "Robert 你好")
        event = hear_online(ada, lambda event: "Bob" not in names_in(event))
        robert = {
            "username": "Robert 你好",
            "avatar": "ccba449923523de80e18e82ac047fd75a957b294ba9cf69eeecb25d4e5e4d787",
        }
        assert event == {"event": "online", "count": 2, "people": [ADA, robert]}
        leave_reading(bob)
        event = hear_online(ada, lambda event: event["count"] == 1)
        assert event == {"event": "online", "count": 1, "people": [ADA]}


def test_people_are_told_by_name_then_avatar_and_each_pair_of_both_once() -> None:
    with chat() as server, contextlib.ExitStack() as stack:
        ada, *others = [stack.enter_context(resume(server)) for _ in range(6)]
        introduce(ada, username="Bob", email="bob@example.org")
        introduce(others[0], username="Bob", email="ada@example.org")
        introduce(others[1], username="Bob", email=" BOB@Example.org\t")
        introduce(others[2], username="Bob")
        introduce(others[3], username="Ada", email="ada@example.org")
        introduce(others[4], username="", email="ada@example.org")
        event = hear_online(ada, lambda event: event["count"] == 6 and len(event["people"]) == 4)
        assert event["people"] == [
            ADA,
            {"username": "Bob", "avatar": ""},
            BOB,
            {"username": "Bob", "avatar": ADA["avatar"]},
        ]


@pytest.mark.parametrize("email", [{}, {"email": ""}, {"email": " \t"}])
def test_client_that_told_no_email_has_no_avatar(server: Program, email: dict[str, str]) -> None:
    with resume(server, "9999999999999") as ada:
        introduce(ada, username="Ada", **email)
        event = hear_online(ada, lambda event: bool(event["people"]))
        assert event["people"] == [{"username": "Ada", "avatar": ""}]


def test_client_that_joins_again_has_the_avatar_of_its_new_email_or_none(server: Program) -> None:
    with resume(server, "9999999999999") as ada:
        introduce(ada, username="Ada", email="bob@example.org")
        bobs = {"username": "Ada", "avatar": BOB["avatar"]}
        hear_online(ada, lambda event: event["people"] == [bobs])
        introduce(ada, username="Ada", email="ada@example.org")
        hear_online(ada, lambda event: event["people"] == [ADA])
        introduce(ada, username="Ada")
        hear_online(ada, lambda event: event["people"] == [{"username": "Ada", "avatar": ""}])


@pytest.mark.parametrize("options", [[], ["--hide-emails"]])
def test_avatar_is_told_without_the_email(options: list[str]) -> None:
    with chat(*options) as server, resume(server) as ada:
        tell_name(ada, "Ada")
        while (payload := ada.read_frame().payload).find(b'"Ada"') < 0:
            pass  # events from before the name was told
        assert payload == (
            b'{"event":"online","count":1,"people":[{"username":"Ada",'
            b'"avatar":"cfe00dde46ef942601ffafb9e2825e802858b460e586b8305b344c1eb826357d"}]}'
        )


def test_client_that_vanishes_is_not_counted_any_more() -> None:
    with chat() as server, resume(server) as ada:
        with resume(server) as bob:
            tell_name(bob, "Bob")
            hear_online(ada, lambda event: names_in(event) == ["Bob"])
        assert hear_online(ada, lambda event: not event["people"])["count"] == 1


def test_join_event_is_neither_saved_nor_shown() -> None:
    with chat() as server, server.join() as plain, resume(server) as ada:
        tell_name(ada, "Ada")
        say(ada, "after")
        assert hear(plain)["message"] == hear_said(ada)["message"] == "after"
        with resume(server) as bob:
            assert hear_said(bob)["message"] == "after"


def test_everyone_is_counted_but_only_names_that_were_told_are_named() -> None:
    with chat() as server, server.join(), resume(server) as ada, resume(server) as bob:
        tell_name(ada, "Ada")
        tell_name(bob, "Ada")
        with resume(server):
            event = hear_online(ada, lambda event: event["count"] == 4)
        assert names_in(event) == ["Ada"]


def test_plain_client_that_comes_and_goes_is_counted_for_those_who_resume() -> None:
    with chat() as server, resume(server) as ada:
        hear_online(ada, lambda event: event["count"] == 1)
        with server.join() as plain:
            hear_online(ada, lambda event: event["count"] == 2)
            leave(plain)
        hear_online(ada, lambda event: event["count"] == 1)


def test_at_most_50_names_are_told() -> None:
    with chat() as server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(resume(server)) for _ in range(60)]
        for number, peer in enumerate(peers):
            tell_name(peer, f"guest {number:02}")
        event = hear_online(
            peers[0], lambda event: event["count"] == 60 and "guest 49" in names_in(event)
        )
        assert names_in(event) == [f"guest {number:02}" for number in range(50)]


def test_name_as_long_as_it_may_be_is_told_whole(server: Program) -> None:
    with resume(server, "9999999999999") as ada:
        tell_name(ada, "好" * 64)
        event = hear_online(ada, lambda event: bool(event["people"]))
        assert names_in(event) == ["好" * 64]


@pytest.mark.parametrize("event", ["join", "ping", "message"])
def test_name_with_one_character_too_many_is_closed_with_1008(server: Program, event: str) -> None:
    with resume(server, "9999999999999") as ada:
        ada.send(masked(0x81, json.dumps({"event": event, "username": "n" * 65}).encode()))
        _, close = read_close_past_messages(ada)
        assert close == (0x88, b"\x03\xf0username has more than 64 characters")


# Whether the server is there


def test_ping_is_answered_at_once_to_who_sent_it_and_to_nobody_else() -> None:
    with chat("--rate", "1") as server, server.join() as plain, resume(server) as bob:
        with resume(server) as ada:
            hear_online(ada, lambda event: event["count"] == 3)
            hear_online(bob, lambda event: event["count"] == 3)
            for _ in range(3):
                ada.send(masked(0x81, b'{"event": "ping"}'))
                assert ada.read_frame() == (0x81, b'{"event":"pong"}')
            assert_here(bob)
            say(plain, "hello")
            assert hear(plain)["message"] == hear_said(bob)["message"] == "hello"
            assert hear_said(ada)["message"] == "hello"


def test_events_for_the_server_do_not_count_for_the_rate() -> None:
    """At this rate a message that follows what counts waits for seven seconds or more."""
    with chat("--rate", "0.1") as server, resume(server) as ada:
        for _ in range(5):
            tell_name(ada, "Ada")
            ada.send(masked(0x81, b'{"event": "ping"}'))
        say(ada, "the first")
        heard = [hear_said(ada) for _ in range(6)]
        assert heard[:5] == [{"event": "pong"}] * 5
        assert heard[5]["message"] == "the first"


def test_ping_behind_a_message_is_answered_at_once_at_the_least_rate() -> None:
    with chat("--rate", "0.1") as server, resume(server) as ada:
        say(ada, "a message that the next one has to wait for")
        assert hear_said(ada)["message"] == "a message that the next one has to wait for"
        begin = time.monotonic()
        ada.send(masked(0x81, b'{"event": "ping"}'))
        assert hear_said(ada) == {"event": "pong"}
        assert time.monotonic() - begin < 5  # seconds; the next message would wait for seven


def test_ping_from_a_plain_client_is_a_message_as_in_the_original(server: Program) -> None:
    with server.join() as ada:
        ada.send(masked(0x81, b'{"event": "ping"}'))
        assert hear(ada)["message"] == ""


def test_name_of_the_event_has_one_spelling_because_the_original_does_not_have_it(
    server: Program,
) -> None:
    since = tell(server, 1)[0]["id"]
    with resume(server, since) as ada:
        ada.send(masked(0x81, b'{"Event": "ping", "message": "a message"}'))
        assert hear_said(ada)["message"] == "a message"


def test_pings_of_a_client_that_is_slowed_lose_nothing() -> None:
    with chat("--rate", "20") as server, resume(server) as ada:
        for number in range(70):
            if number % 3 == 0:  # more of them would be slowed themselves
                ada.send(masked(0x81, b'{"event": "ping"}'))
            say(ada, str(number))
        heard = [hear_said(ada) for _ in range(95)]
        said = [each["message"] for each in heard if "message" in each]
        assert said == list(map(str, range(70)))
        assert heard.count({"event": "pong"}) == 24
        assert heard.count({"event": "slowed", "rate": 20}) == 1


@pytest.mark.parametrize("event", ["ping", "join"])
def test_client_that_sends_events_without_end_is_slowed_and_loses_nothing(event: str) -> None:
    """Thirty are free, and ten come in a second then: without a pace they keep the server busy."""
    text = b'{"event": "%s", "username": "Ada"}' % event.encode()
    with chat("--rate", "20") as server, resume(server) as ada:
        begin = time.monotonic()
        ada.send(masked(0x81, text) * 50)
        say(ada, "behind them")
        while "message" not in (heard := hear_said(ada)):
            assert heard == {"event": "pong"}
        assert heard["message"] == "behind them"
        assert time.monotonic() - begin > 1.5  # seconds; 1.9 by the rule


def test_events_without_end_are_not_slowed_where_there_is_no_rate() -> None:
    with chat("--rate", "0") as server, resume(server) as ada:
        ada.send(masked(0x81, b'{"event": "ping"}') * 1000)
        assert [hear_said(ada) for _ in range(1000)] == [{"event": "pong"}] * 1000


def test_name_that_is_not_a_string_is_closed_with_1008(server: Program) -> None:
    with resume(server, "9999999999999") as ada:
        ada.send(masked(0x81, b'{"event": "join", "username": 7}'))
        _, close = read_close_past_messages(ada)
        assert close.payload[:2] == b"\x03\xf0"


def test_however_many_come_and_go_the_others_are_told_at_most_once_a_second() -> None:
    events = 0
    with chat() as server, resume(server) as witness:
        begin = time.monotonic()
        comings = 0
        while comings < 150:
            with contextlib.ExitStack() as stack:
                for _ in range(10):
                    comings += 1
                    tell_name(stack.enter_context(resume(server)), f"guest {comings}")
        with resume(server) as last:
            tell_name(last, "the last")
            while True:
                events += 1
                event = hear_online(witness, lambda event: True)
                if names_in(event) == ["the last"] and event["count"] == 2:
                    break
        assert events <= time.monotonic() - begin + 1


def test_clients_that_come_back_to_a_chat_that_forgot_everything_are_told_who_is_here() -> None:
    with chat() as server:
        last = tell(server, 3)[-1]["id"]
    with chat() as server, resume(server, last) as ada:
        assert hear(ada) == {"event": "gap"}
        hear_online(ada, lambda event: event["count"] == 1)
        with resume(server, last) as bob:
            assert hear_online(bob, lambda event: True)["count"] == 2
            say(bob, "hello")
            assert hear_said(ada)["message"] == hear_said(bob)["message"] == "hello"


# In this process


def test_client_that_has_got_what_all_others_have_is_admitted_without_reading_the_history(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(message_id: str) -> None:
        raise AssertionError("the history is read")

    clients: set[WebSocket] = set()
    presence = Presence(clients, threading.Lock())
    with guests(1) as (ada,), opened() as history:
        presence.expect(ada.websocket)
        monkeypatch.setattr(history, "since", fail)
        admit(Resuming(ada.websocket, "7-0"), "7-0", history, presence, hide_emails=False)
        assert clients == {ada.websocket}


def test_names_are_sorted_while_others_may_use_the_lock() -> None:
    lock = threading.Lock()
    presence = Presence(set(), lock)
    locked: list[bool] = []

    class Name(str):
        __slots__ = ()

        def __lt__(self, other: str) -> bool:
            locked.append(lock.locked())
            return str(self) < str(other)

    with guests(2) as people:
        for each, name in zip(people, ("Bob", "Ada"), strict=True):
            presence.expect(each.websocket)
            presence.introduce(each.websocket, Person(Name(name), ""))
        assert names_in(json.loads(presence._online())) == ["Ada", "Bob"]
    assert locked == [False]


def test_event_with_as_many_people_and_as_long_names_as_there_may_be_stays_small() -> None:
    presence = Presence(set(), threading.Lock())
    # A control character takes the most bytes in JSON.
    names = [chr(1 + number // 30) + chr(1 + number % 30) * 63 for number in range(100)]
    people = tuple(Person(name, "a" * 64) for name in names)
    presence.note_elsewhere(Here(100, people))
    event = presence._online()
    assert len(json.loads(event)["people"]) == NAMES_TOLD
    assert len(event.encode()) <= 24_000  # bytes, of the 1 MiB that may wait for a client


def test_client_that_left_before_its_turn_came_is_not_admitted() -> None:
    clients: set[WebSocket] = set()
    presence = Presence(clients, threading.Lock())
    with guests(2) as (gone, here), opened() as history:
        for each in (gone, here):
            presence.expect(each.websocket)
        presence.leave(gone.websocket)
        for each in (gone, here):
            admit(Resuming(each.websocket, "0"), "0-0", history, presence, hide_emails=False)
        assert clients == {here.websocket}


def test_client_that_cannot_be_told_an_event_does_not_keep_it_from_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clients: set[WebSocket] = set()
    presence = Presence(clients, threading.Lock())
    with guests(4) as people:
        for each in people:
            presence.expect(each.websocket)
            presence.admit(each.websocket)
        with broken_sending(people[0].websocket, people[1].websocket):
            presence.tell("{}")
        for each in people[2:]:
            assert each.peer.read_frame() == (0x81, b"{}")
            assert each.websocket.state is State.OPEN
        for broken in people[:2]:
            assert broken.websocket.state is State.CLOSED
            with contextlib.suppress(ConnectionError):
                assert broken.peer.read_to_eof() == b""
        assert len([each for each in caplog.records if each.exc_info]) == 2


def test_event_is_sent_only_to_clients_that_can_resume_and_were_admitted() -> None:
    clients: set[WebSocket] = set()
    presence = Presence(clients, threading.Lock())
    with guests(3) as (plain, expected, admitted):
        presence.enter(plain.websocket)
        presence.expect(expected.websocket)
        presence.expect(admitted.websocket)
        presence.admit(admitted.websocket)
        presence.tell("{}")
        assert admitted.peer.read_frame() == (0x81, b"{}")
        for each in (plain, expected):
            each.websocket.post("next")
            assert each.peer.read_frame() == (0x81, b"next")


def test_client_that_left_is_neither_counted_nor_named() -> None:
    clients: set[WebSocket] = set()
    presence = Presence(clients, threading.Lock())
    with guests(2) as (plain, other):
        presence.enter(plain.websocket)
        presence.expect(other.websocket)
        presence.admit(other.websocket)
        presence.introduce(other.websocket, Person("Ada", ""))
        for each in (plain, other):
            presence.leave(each.websocket)
            assert each.websocket not in clients
            assert not presence.can_resume(each.websocket)


def assert_told(guest: Guest, *events: tuple[int, list[str]]) -> None:
    """Check that a client got these `online` events, as counts and names, and no others."""
    guest.websocket.post('{"event":"pong"}')
    heard = [hear(guest.peer)]
    while heard[-1]["event"] != "pong":
        heard.append(hear(guest.peer))
    told: list[tuple[Any, list[str]]] = [(each["count"], names_in(each)) for each in heard[:-1]]
    assert told == list(events)


def come(presence: Presence, guest: Guest, name: str) -> None:
    presence.expect(guest.websocket)
    presence.introduce(guest.websocket, Person(name, ""))
    presence.admit(guest.websocket)


def test_crowd_is_told_later_and_all_that_has_changed_at_once_but_who_comes_is_told_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chat.presence.PRESENCE_RATE", 1)  # byte a second: the next is far
    everyone = Presence(set(), threading.Lock())
    with guests(4) as (ada, bob, carl, plain):
        come(everyone, ada, "Ada")
        everyone._tell_online()
        assert_told(ada, (1, ["Ada"]))
        for guest, name in ((bob, "Bob"), (carl, "Carl")):
            come(everyone, guest, name)
            everyone._tell_online()
        everyone.enter(plain.websocket)
        everyone._tell_online()
        assert_told(ada)
        assert_told(bob, (2, ["Ada", "Bob"]))
        assert_told(carl, (3, ["Ada", "Bob", "Carl"]))
        assert everyone._changed.is_set()
        everyone._due = 0.0  # time has passed
        everyone._tell_online()
        for guest in (ada, bob, carl):
            assert_told(guest, (4, ["Ada", "Bob", "Carl"]))


def test_nobody_is_told_what_they_know_and_who_knows_something_else_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chat.presence.PRESENCE_RATE", 1)
    everyone = Presence(set(), threading.Lock())
    with guests(3) as (ada, bob, carl):
        for guest in (ada, bob):
            come(everyone, guest, "")
        everyone._tell_online()
        everyone._due = 0.0
        everyone._tell_online()
        for guest in (ada, bob):
            assert_told(guest, (2, []))
        come(everyone, carl, "")
        everyone._due = time.monotonic() + 1000
        everyone._tell_online()
        everyone.leave(bob.websocket)
        everyone._due = 0.0
        everyone._tell_online()
        assert_told(carl, (3, []), (2, []))


def test_newcomers_who_were_not_told_because_of_a_fault_are_told_by_the_next_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    everyone = Presence(set(), threading.Lock())
    with guests(1) as (ada,):
        come(everyone, ada, "Ada")
        with monkeypatch.context() as patch:
            patch.setattr("chat.presence.broadcast", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                everyone._tell_online()
        everyone._tell_online()
        assert_told(ada, (1, ["Ada"]))


def test_pause_grows_with_what_was_sent_up_to_half_a_minute() -> None:
    for size, pause in ((0, 0), (1_048_576, 1), (5_242_880, 5), (1 << 40, 30)):
        assert pause_after(size) == pause
