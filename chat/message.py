"""JSON as the chat speaks it: strict, compact, and as forgiving as Go where Go is."""

import functools
import hashlib
import json
from typing import Any, NoReturn

from rfc6455 import Close, CloseCode


class Pairs(list[tuple[str, Any]]):
    """A JSON object as its names and values in the order in which they came, doubles too."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")  # Python's decoder would take NaN and Infinity


# Made once: json.loads and json.dumps would make a new one for each message. A number in a field
# that nobody wants may have any number of digits, which are too many for an int.
_decode = json.JSONDecoder(
    object_pairs_hook=Pairs, parse_int=float, parse_constant=_refuse_constant
).decode
encode_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def decode_object(text: str) -> Pairs:
    """Raises Close, in words, for what is no JSON object.

    differs from Go: its decoder stops after the first value and leaves what follows for the next
    read, where it is lost; it takes null for an empty message; and it goes ten times as deep into
    what is nested, which is in no field that the chat knows.
    """
    try:
        pairs = _decode(text)
    except (ValueError, RecursionError):
        raise Close(CloseCode.POLICY_VIOLATION, "the message is not JSON") from None
    if not isinstance(pairs, Pairs):
        raise Close(CloseCode.POLICY_VIOLATION, "the message is not a JSON object")
    return pairs


def fold(name: str) -> str:
    """Names that are alike in Go's eyes become one: any case, and two letters that look as ASCII.

    That is the simple folding of Unicode, in which U+212A is a k, too, and U+017F an s.
    """
    return name.lower().replace("\u017f", "s")


def without_surrogates(text: str) -> str:
    """As in Go: half of a surrogate pair, which JSON can say but UTF-8 can't, becomes U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@functools.lru_cache(maxsize=10_000)
def avatar_of(email: str) -> str:
    """Gravatar's key."""
    return hashlib.sha256(email.strip().lower().encode()).hexdigest()
