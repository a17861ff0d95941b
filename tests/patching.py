"""Patching a method of one object: objects with `__slots__` take no attribute of their own."""

from collections.abc import Callable
from typing import Any

import pytest


def patch_method(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, function: Callable[..., Any]
) -> None:
    """Have `owner.name(…)` call `function(…)`; other objects of its class stay as they are."""
    method = getattr(type(owner), name)

    def call(self: object, *arguments: Any, **options: Any) -> Any:
        if self is owner:
            return function(*arguments, **options)
        return method(self, *arguments, **options)

    monkeypatch.setattr(type(owner), name, call)
