"""What the page of `echo_server.py` talks to; the Go original has no page.

- `frame_events`: telling a client each frame of its own connection
- `commands`: the WebSocket `/playground`, an echo that also pings, closes and sends fragments
- `parser_lines`: the lines of the layer's parser that read each field of a frame

A module imports only from those above it.
"""
