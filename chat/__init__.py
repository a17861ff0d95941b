"""What the chat has and the Go original has not; `chat_server.py` calls each in a line or two.

- `entry`: a message that is kept, its id, and what every history can do
- `message`: the JSON of messages and events
- `options`: the command line
- `history`: the history in memory or in an SQLite file
- `redis_history`: the history on a Redis stream, which many servers share
- `pace`: slowing a client that says too much
- `presence`: who is here
- `refusal`: sending a client away whose wish cannot be fulfilled
- `resume`: coming back after a lost connection, without missing anything
- `batch`: taking all messages that wait at once, and what becomes of each

A module imports only from those above it, and from `rfc6455` only its public names.
"""
