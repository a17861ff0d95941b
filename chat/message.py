"""The JSON of the chat: messages in both directions, and events.

What a client sends has to be valid JSON. As in Go's decoder, names may come in any case, and
unknown ones are ignored.
"""

import functools
import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from chat.entry import MAX_EMAIL, MAX_KEY, MAX_USERNAME, Entry, OlderPage
from rfc6455 import Close, CloseCode

log = logging.getLogger("chat")

_GO_FIELDS = {"email", "username", "message"}  # as in Go, their names may come in any case
# Not in the original, so only this spelling is accepted.
_OUR_FIELDS = {"key", "event", "before"}
# In a message that is for all clients these mean nothing, so that any value is accepted.
_OF_EVENTS = {"event", "before"}
_LIMITS = {"email": MAX_EMAIL, "username": MAX_USERNAME, "key": MAX_KEY}  # characters


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as a list of its names and values, in their order, and with repeated names."""


def _refuse_constant(name: str) -> NoReturn:
    """Reject NaN and Infinity, which JSON forbids and Python's decoder accepts."""
    raise ValueError(f"{name} is not JSON")


# Made once, because json.loads and json.dumps would make a new one for each message. Integers are
# parsed as floats, because Python refuses to convert very long numbers to an int, and an unknown
# field may have one.
_decode = json.JSONDecoder(
    object_pairs_hook=_Pairs, parse_int=float, parse_constant=_refuse_constant
).decode
encode_event = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

GAP = encode_event({"event": "gap"})
PONG = encode_event({"event": "pong"})


def decode(data: str | bytes) -> dict[str, str]:
    """Read a client's message; returns the fields that it has.

    They are some of `email`, `username`, `message`, `key`, `event` and `before`. As in Go,
    the last of several equal names counts, and null stands for a missing field. Raises Close, with
    the reason in words: 1003 for binary data, 1008 for anything else that is not such a message.
    """
    if isinstance(data, bytes):
        raise Close(CloseCode.UNSUPPORTED_DATA, "the chat accepts text messages only")
    fields: dict[str, str] = {}
    for spelling, value in _decode_object(data):
        name = _field_name(spelling)
        if name is None or value is None:
            continue
        if isinstance(value, str):
            fields[name] = without_surrogates(value)
        elif name not in _OF_EVENTS:
            raise Close(CloseCode.POLICY_VIOLATION, f"{name} is not a string")
    for name, limit in _LIMITS.items():  # differs from Go: it has no limits
        if len(fields.get(name, "")) > limit:
            what = "the key" if name == "key" else name
            reason = f"{what} has more than {limit} characters"
            raise Close(CloseCode.POLICY_VIOLATION, reason)
    if fields.get("key") == "":
        del fields["key"]
    return fields


def _decode_object(text: str) -> _Pairs:
    """Decode a text that has to be one JSON object. Raises Close.

    differs from Go: its decoder ignores what follows the first value, takes null for an empty
    message, and accepts objects that are nested ten times as deep.
    """
    try:
        pairs = _decode(text)
    except (ValueError, RecursionError):
        raise Close(CloseCode.POLICY_VIOLATION, "the message is not JSON") from None
    if not isinstance(pairs, _Pairs):
        raise Close(CloseCode.POLICY_VIOLATION, "the message is not a JSON object")
    return pairs


def _field_name(spelling: str) -> str | None:
    """The field that a name in JSON stands for, if any."""
    if spelling in _GO_FIELDS or spelling in _OUR_FIELDS:
        return spelling
    folded = _fold(spelling)
    return folded if folded in _GO_FIELDS else None


def _fold(name: str) -> str:
    """Lower the case as Go does to compare names, by the simple case folding of Unicode.

    It maps two letters to ASCII beside A to Z: U+212A to k, as `lower` does, and U+017F to s, which
    `lower` leaves.
    """
    return name.lower().replace("\u017f", "s")


def without_surrogates(text: str) -> str:
    """Replace each half of a surrogate pair by U+FFFD, as Go does.

    JSON can escape such a half, but UTF-8 cannot encode it.
    """
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def encode(entry: Entry, *, hide_emails: bool) -> str:
    """Encode a message as all clients get it: the original's three fields, and then ours."""
    fields = {
        "email": "" if hide_emails else entry.email,
        "username": entry.username,
        "message": entry.message,
        "id": entry.message_id,
        "avatar": avatar_of(entry.email),
    }
    if entry.key:
        fields["key"] = entry.key
    return encode_event(fields)


def encode_all(
    entries: Iterable[Entry],
    on_failure: Callable[[Entry], None] | None = None,
    *,
    hide_emails: bool,
) -> list[str]:
    """Encode many messages. One that cannot be encoded is logged and left out, so that the others
    can be sent; `on_failure` is called with it.
    """
    texts = []
    for entry in entries:
        try:
            texts.append(encode(entry, hide_emails=hide_emails))
        except Exception:
            log.exception("the message %s cannot be encoded", entry.message_id)
            if on_failure:
                on_failure(entry)
    return texts


def encode_older(before: str, page: OlderPage, *, hide_emails: bool) -> str:
    """Encode the answer to a client that has asked for the messages before an id.

    `before` is the id as the client wrote it.
    """
    texts = encode_all(page.entries, hide_emails=hide_emails)
    head = encode_event({"event": "older", "before": before})
    # The messages are JSON already. They are put into the object, so that they are not encoded
    # again, and look exactly like those that are broadcast.
    return f'{head[:-1]},"messages":[{",".join(texts)}],"more":{encode_event(page.more)}}}'


def encode_older_failed(before: str) -> str:
    """Encode the answer to a client that asks for older messages when they cannot be read."""
    return encode_event({"event": "older", "before": before, "failed": True})


def encode_slowed(rate: float) -> str:
    """Encode the event for a client that sends more than `rate` messages a second."""
    is_whole = rate == int(rate)
    return encode_event({"event": "slowed", "rate": int(rate) if is_whole else rate})


@functools.lru_cache(maxsize=10_000)
def avatar_of(email: str) -> str:
    """The name under which Gravatar has the picture for an email address."""
    return hashlib.sha256(email.strip().lower().encode()).hexdigest()
