"""What the chat has and the Go original has not; `chat_server.py` calls each in a line or two.

- `entry`: a message in the history, its id, and what every history can do
- `message`: the JSON of messages and events
- `options`: the command line
- `history`: the history in memory or in an SQLite file
- `redis_history`: the history on a Redis stream, which many servers share
- `open_history`: choosing between the two
- `pace`: slowing a client that sends too much
- `presence`: who is here
- `refusal`: refusing a client whose message could not be saved
- `resume`: resuming after a lost connection, without missing anything
- `batch`: handling all messages that wait at once, and the failures on the way

A module imports only from those above it, and from `rfc6455` only its public names.
"""
