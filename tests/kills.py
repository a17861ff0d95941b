"""Kills servers while people talk: `python3 tests/kills.py [--redis] [--kills 20]`.

Four senders give each message a key, and send again what has not come back to them. They and a
watcher resume with `since` after each lost connection. A message that the history had already comes
once more to the client that has sent it again, and to nobody else.

At the end every message must be in the history once, with rising ids, and each of the five clients
must have seen exactly the history, in its order. With `--redis` there are two servers on one Redis;
any of them may be killed, and Redis too. Exit status 1 if something was lost or doubled.
"""

import argparse
import contextlib
import functools
import importlib.util
import itertools
import json
import random
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from chat.entry import order, pages  # noqa: E402  # not installed
from chat.history import SqliteHistory  # noqa: E402
from peers import free_port  # noqa: E402
from programs import Program  # noqa: E402
from redis_server import Redis  # noqa: E402
from rfc6455 import ConnectionClosed, InvalidHandshake, WebSocket, connect  # noqa: E402

SENDERS = 4
UNDER_WAY = 25  # messages of one sender that may be without their copy
LEAD = 300  # messages from the first to the last of the five; after 500 the server tells of a gap
RESTLESS = 0.01  # seconds between two attempts to connect
MOST = 50_000  # messages; so that none is deleted from the history


class Heard(NamedTuple):
    """What a person remembers of a message."""

    message_id: str
    key: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="of servers (%(default)s)")
    parser.add_argument("--messages", type=int, default=10_000, help="(%(default)s)")
    parser.add_argument("--redis", action="store_true", help="two servers on one Redis")
    parser.add_argument("--patience", type=float, default=600, help="seconds (%(default)s)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    options = parser.parse_args()
    if not 0 <= options.kills < options.messages <= MOST:
        parser.error(f"kills are fewer than messages, and these at most {MOST}")
    if options.redis and not (shutil.which("redis-server") and importlib.util.find_spec("redis")):
        parser.error("--redis needs redis-server, and pip install redis")
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(options.kills, options.messages, options.patience, options.seed)
        scene: Scene
        with OnRedis(Path(folder)) if options.redis else OnFile(Path(folder)) as scene:
            trial.run(scene)
    print(trial.summary())
    return 1 if trial.faults else 0


# Processes


class Place:
    """A port, and the chat server that runs there, from time to time."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}/ws"
        self._options = ("--rate", "0", "--port", str(self.port), *options)
        self.start()

    def start(self) -> None:
        self.program = Program("chat_server.py", *self._options)

    def kill(self) -> None:
        """SIGKILL; and an AssertionError if the server had failed before."""
        self.program.process.kill()
        self.program.process.wait()
        log = self.program.log
        self.program.discard()
        assert "Traceback" not in log, log

    def discard(self) -> None:
        self.program.discard()


class Scene:
    """The servers of a trial. Each strike kills something, and starts it again."""

    places: list[Place]

    def __init__(self) -> None:
        self.struck: Counter[str] = Counter()
        self._running = contextlib.ExitStack()

    def strike(self, dice: random.Random) -> None:
        raise NotImplementedError

    def history(self) -> list[Heard]:
        """What the history has; the servers are gone by now."""
        raise NotImplementedError

    def open(self, *options: str) -> Place:
        place = Place(*options)
        self._running.callback(place.discard)
        return place

    def __enter__(self) -> "Scene":
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()


class OnFile(Scene):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.file = folder / "history"
        self.places = [self.open("--history", str(self.file))]

    def strike(self, dice: random.Random) -> None:
        self.places[0].kill()
        self.struck["server"] += 1
        self.places[0].start()

    def history(self) -> list[Heard]:
        with contextlib.closing(SqliteHistory(str(self.file))) as history:
            entries = [entry for page in pages(history, "0") for entry in page.entries]
        return [Heard(entry.message_id, entry.key or "") for entry in entries]


class OnRedis(Scene):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.redis = Redis(folder / "redis")
        self._running.callback(self.redis.kill)
        try:
            self.places = [self.open("--redis", self.redis.url) for _ in range(2)]
        except BaseException:
            self._running.close()
            raise

    def strike(self, dice: random.Random) -> None:
        """A server; each fourth time Redis before it, which goes on when the server is gone."""
        with_redis = self.struck["server"] % 4 == 1
        if with_redis:
            self.redis.kill()
            self.struck["Redis"] += 1
            time.sleep(dice.uniform(0.0, 0.2))
        place = dice.choice(self.places)
        place.kill()
        self.struck["server"] += 1
        if with_redis:
            self.redis.start()
        place.start()

    def history(self) -> list[Heard]:
        import redis

        with redis.Redis.from_url(self.redis.url, decode_responses=True) as client:
            found = client.xrange("chat")
        assert isinstance(found, list)
        return [Heard(message_id, fields["key"]) for message_id, fields in found]


# People


@dataclass
class Person:
    """Resumes where it was, and says again what it has not heard, until it has heard everything."""

    name: str
    trial: "Trial"
    urls: list[str]
    to_say: Iterator[int] = field(default_factory=lambda: iter(()))
    under_way: dict[str, None] = field(default_factory=dict)  # keys, in the order of saying
    heard: list[Heard] = field(default_factory=list)
    again: Counter[str] = field(default_factory=Counter)  # keys said again on this connection
    copies: list[Heard] = field(
        default_factory=list
    )  # of what the history had when it was said again
    lost: int = 0  # connections
    said_again: int = 0  # messages

    def live(self) -> None:
        dice = random.Random(f"{self.trial.seed} {self.name}")
        while not self.trial.over(self):
            since = self.heard[-1].message_id if self.heard else "0"
            try:
                with connect(f"{dice.choice(self.urls)}?since={since}") as websocket:
                    self.talk(websocket)
            except (OSError, InvalidHandshake, ConnectionClosed):
                self.lost += 1
                self.trial.stopped.wait(RESTLESS)

    def talk(self, websocket: WebSocket) -> None:
        self.again = Counter(self.under_way.keys())
        for key in self.under_way:
            self.say(websocket, key)
            self.said_again += 1
        while not self.trial.over(self):
            while len(self.under_way) < UNDER_WAY and self.trial.may_go_on():
                number = next(self.to_say, None)
                if number is None:
                    break
                key = f"{self.name} {number}"
                self.under_way[key] = None
                self.say(websocket, key)
            text = websocket.receive(timeout=0.02)
            if text is not None:
                self.hear(json.loads(text))

    def say(self, websocket: WebSocket, key: str) -> None:
        message = {"email": "", "username": self.name, "message": f"I am {key}", "key": key}
        websocket.send(json.dumps(message))
        self.trial.note()

    def hear(self, message: dict[str, str]) -> None:
        if "event" in message:
            assert message["event"] != "gap", f"{self.name} was told of a gap"
            return
        heard = Heard(message["id"], message["key"])
        is_old = bool(self.heard) and order(heard.message_id) <= order(self.heard[-1].message_id)
        if is_old and self.again[heard.key]:
            self.again[heard.key] -= 1  # the history had it: this copy is for us alone
            self.copies.append(heard)
        else:
            self.heard.append(heard)
        self.under_way.pop(heard.key, None)
        self.trial.note()


# The trial


class Trial:
    def __init__(self, kills: int, messages: int, patience: float, seed: int) -> None:
        self.kills = kills
        self.messages = messages
        self.seed = seed
        self.stopped = threading.Event()
        self.faults: list[str] = []
        self.in_the_middle = 0  # strikes with messages under way
        self.people: list[Person] = []
        self.struck: Counter[str] = Counter()
        self.kept = 0
        self._most = 0.0  # messages that may be said so far
        self._patience = patience
        self._began = time.monotonic()
        self._progress = threading.Condition()

    def run(self, scene: Scene) -> None:
        urls = [place.url for place in scene.places]
        shares = [range(number, self.messages, SENDERS) for number in range(SENDERS)]
        self.people = [
            Person(f"sender {number}", self, urls, iter(share))
            for number, share in enumerate(shares)
        ]
        self.people.append(Person("watcher", self, urls))
        threads = [
            threading.Thread(target=self._watched, args=(person.live,)) for person in self.people
        ]
        for thread in threads:
            thread.start()
        self._watched(lambda: self._strike_again_and_again(scene))
        for thread in threads:
            thread.join()
        for place in scene.places:
            self._watched(place.kill)
        self.struck = scene.struck
        self._watched(lambda: self._examine(scene.history()))

    def _strike_again_and_again(self, scene: Scene) -> None:
        dice = random.Random(self.seed)
        share = self.messages / (self.kills + 2)
        for strike in range(self.kills):
            self._most = (strike + 2) * share  # or all would be said at the other server meanwhile
            self._await(functools.partial(self._have_heard, (strike + dice.random()) * share))
            self._await(self._is_under_way_or_done)
            time.sleep(dice.uniform(0.0, 0.02))  # or all strikes would follow upon a delivery
            if self.over():
                return
            self.in_the_middle += self._is_under_way()
            scene.strike(dice)
        self._most = self.messages

    def _await(self, check: Callable[[], bool]) -> None:
        """Wait until it is so, or the trial is over."""
        left = self._began + self._patience - time.monotonic()
        with self._progress:
            self._progress.wait_for(lambda: self.stopped.is_set() or check(), left)

    def _have_heard(self, count: float) -> bool:
        return self._least() >= count

    def _is_under_way(self) -> bool:
        return any(person.under_way for person in self.people)

    def _is_under_way_or_done(self) -> bool:
        """Done is what may be said up to this strike; on a busy machine perhaps before we look."""
        return self._is_under_way() or self._least() >= self._most

    def _watched(self, do: Callable[[], None]) -> None:
        """Do it; a failure ends the trial."""
        try:
            do()
        except BaseException as error:
            self.faults.append(f"{type(error).__name__}: {error}")
            self.stopped.set()
            self.note()

    def _least(self) -> int:
        return min(len(person.heard) for person in self.people)

    # What people ask and tell

    def may_go_on(self) -> bool:
        """Whether nobody is so far behind that a gap would be all right, and a strike not due."""
        said = max(len(person.heard) for person in self.people)
        said += sum(len(person.under_way) for person in self.people)
        return said < min(self._least() + LEAD, self._most)

    def over(self, person: Person | None = None) -> bool:
        if time.monotonic() > self._began + self._patience and not self.stopped.is_set():
            self.faults.append(f"not done in {self._patience:g} s")
            self.stopped.set()
        heard_all = person is not None and len(person.heard) >= self.messages
        return self.stopped.is_set() or heard_all

    def note(self) -> None:
        with self._progress:
            self._progress.notify_all()

    # The verdict

    def _examine(self, history: list[Heard]) -> None:
        self.kept = len(history)
        said = {f"sender {number % SENDERS} {number}" for number in range(self.messages)}
        times = Counter(each.key for each in history)
        self._count("lost", said - times.keys())
        self._count("twice in the history", [key for key, count in times.items() if count > 1])
        self._count("in the history though nobody said it", times.keys() - said)
        orders = [tuple(map(int, each.message_id.split("-"))) for each in history]
        self._count(
            "with an id that does not rise",
            [after for before, after in itertools.pairwise(orders) if before >= after],
        )
        own: dict[str, list[int]] = {}
        for each in history:
            name, _, number = each.key.rpartition(" ")
            own.setdefault(name, []).append(int(number))
        for name, numbers in own.items():
            if numbers != sorted(numbers):
                self.faults.append(f"{name}: not in the order of saying")
        for person in self.people:
            strange = set(person.copies) - set(history)
            self._count(f"copies for {person.name} of no message", strange)
            if person.heard != history:
                self.faults.append(self._difference(person, history))

    def _difference(self, person: Person, history: list[Heard]) -> str:
        pairs = zip(person.heard, history, strict=False)
        where = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
        return (
            f"{person.name} heard {len(person.heard)} messages, the history has {len(history)};"
            f" they differ from number {where} on:"
            f" {person.heard[where : where + 3]}, {history[where : where + 3]}"
        )

    def _count(self, what: str, found: "Sequence[object] | Set[object]") -> None:
        if found:
            some = ", ".join(map(str, itertools.islice(found, 5)))
            self.faults.append(f"{len(found)} {what}: {some}")

    def summary(self) -> str:
        killed = " and ".join(f"{count} of {what}" for what, count in self.struck.items())
        agree = sum(len(person.heard) == self.kept for person in self.people)
        lines = [
            f"kills: {killed or 'none'}; {self.in_the_middle} with messages under way",
            f"messages: {self.messages} by {SENDERS} senders,"
            f" {sum(person.said_again for person in self.people)} times one was said again",
            f"connections lost or refused: {sum(person.lost for person in self.people)}",
            f"the history: {self.kept} messages; {agree} of {len(self.people)} heard as many",
            *(f"FAULT: {fault}" for fault in self.faults),
            "none lost, none twice, ids strictly rising, all heard exactly the history"
            if not self.faults
            else "FAILED",
            f"seed {self.seed}, {time.monotonic() - self._began:.0f} s",
        ]
        return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
