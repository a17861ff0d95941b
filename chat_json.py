"""JSON as the chat speaks it: strict, compact, and as forgiving as Go where Go is."""

import functools
import hashlib
import json
from typing import Any

# Made once: json.loads and json.dumps would make a new one for each message.
_decode = json.JSONDecoder(parse_constant=int).decode  # NaN is no JSON, and no int: ValueError
encode_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def decode_object(text: str) -> dict[str, Any]:
    """Raises ValueError, in words, for what is no JSON object."""
    try:
        fields = _decode(text)
    except (ValueError, RecursionError):
        raise ValueError("the message is not JSON") from None
    if not isinstance(fields, dict):
        raise ValueError("the message is not a JSON object")
    return fields


def without_surrogates(text: str) -> str:
    """As in Go: half of a surrogate pair, which JSON can say but UTF-8 can't, becomes U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@functools.lru_cache(maxsize=10_000)
def avatar_of(email: str) -> str:
    """Gravatar's key."""
    return hashlib.sha256(email.strip().lower().encode()).hexdigest()
