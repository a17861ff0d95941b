"""What the chat has and the Go original has not; `chat_server.py` calls each in a line or two.

- `entry`: a message in the history, its id, and what every history can do
- `message`: the JSON of messages and events
- `options`: the command line
- `history`: the history in memory or in an SQLite file
- `redis_link`: the connections to Redis, also by way of Sentinels
- `redis_history`: the history on a Redis stream, which many servers share
- `pace`: slowing a client that sends too much
- `presence`: who is here
- `redis_presence`: who is here on all servers that share a Redis
- `open_history`: choosing the history, and starting to tell who is here, as the options say
- `refusal`: refusing a client whose message could not be saved
- `resume`: resuming after a lost connection, without missing anything
- `batch`: handling all messages that wait at once, and the failures on the way

A module imports only from those above it, and from `rfc6455` only its public names.
"""
