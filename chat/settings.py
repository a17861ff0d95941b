"""`settings.json`: what the web page has to know before somebody joins.

It says what happens to the email that one types, and how long a message may be.
"""

import json
from collections.abc import Callable

from chat.options import Options
from rfc6455 import PageText, WebSocketServer


def settings_of(options: Options) -> Callable[[WebSocketServer], PageText]:
    """The page `/settings.json`, for `pages` of a WebSocketServer."""
    settings = {"hide_emails": options.hide_emails, "max_message": options.max_message}
    answer = PageText(json.dumps(settings), "application/json")
    return lambda server: answer
