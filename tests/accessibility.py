"""What makes a page hard to use without good eyes, ears or hands, as far as axe-core can find it.

axe-core is a script that looks at a page from inside. The drivers of both browsers run it although
the page's Content-Security-Policy allows no scripts but the page's own, so that what is served
stays as it is.
"""

import json
from typing import Any, Protocol

from axe_playwright_python.sync_playwright import Axe

# WCAG 2.0, 2.1 and 2.2 at the levels A and AA, and what axe's authors advise beside them.
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
OPTIONS = {"resultTypes": ["violations"], "runOnly": {"type": "tag", "values": TAGS}}

# In a function, the script is one expression. It makes `window.axe`.
LOAD_AXE = f"(() => {{ {Axe().axe_script} }})()"
RUN_AXE = f"""
    axe.run(document, {json.dumps(OPTIONS)}).then(({{ violations }}) =>
        violations.flatMap(({{ id, help, nodes }}) =>
            nodes.map(({{ target }}) => `${{id}}: ${{help}}: ${{target.flat().join(' ')}}`)))
"""


class EvaluatingPage(Protocol):
    """A page in either browser: Playwright's Page, or a FirefoxPage."""

    def evaluate(self, expression: str, /) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""


def violations(page: EvaluatingPage) -> list[str]:
    """What axe-core finds on the page as it is now: for each element the rule, in words, too."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(LOAD_AXE)
    found = page.evaluate(RUN_AXE)
    assert isinstance(found, list)
    return found
