"""What the peers in Python share: which of the two servers to be, and the chat's JSON."""

import json
import sys

HOST = "127.0.0.1"
FIELDS = ("email", "username", "message")


def wants_chat() -> bool:
    """Whether it was started as `PEER.py chat`, and not as `PEER.py echo`."""
    return sys.argv[1] == "chat"


def chat_message(text: str | bytes) -> str:
    """Decode what a client sent and encode it anew for everyone, as the Go original does."""
    sent = json.loads(text)
    return json.dumps({field: str(sent.get(field, "")) for field in FIELDS})


def announce(port: int) -> None:
    """The benchmark waits for this line."""
    print(f"Listening on http://{HOST}:{port}", flush=True)
