"""Makes docs/drawings/*.svg: the states of a connection, and the threads and locks of the chat.

    python3 docs/make_drawings.py            writes them
    python3 docs/make_drawings.py --check    writes nothing; exits with status 1 if one is old

What the states are called, and what leads from one to another, is read from `State`; where they
stand is written here. Each drawing is made in two languages: `states.svg` in English, and
`states.zh.svg` in Chinese, with the texts of CHINESE. It has light and dark colours, of which the
reader's system chooses. Its text is 13 pixels high where it is shown 700 pixels wide.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rfc6455 import State

FOLDER = Path(__file__).resolve().parent / "drawings"
WIDTH = 700  # pixels, as all numbers below

STYLE = """
svg { --ground: #ffffff; --ink: #1f2328; --soft: #59636e; --line: #6e7781;
  --thread: #ddf4ff; --thread-line: #0969da; --thing: #f6f8fa; --lock: #fff8c5;
  --lock-line: #9a6700; --end: #ffebe9; --end-line: #cf222e }
@media (prefers-color-scheme: dark) {
  svg { --ground: #0d1117; --ink: #e6edf3; --soft: #9198a1; --line: #7d8590;
    --thread: #0c2d4a; --thread-line: #4493f8; --thing: #151b23; --lock: #332701;
    --lock-line: #d29922; --end: #3c1618; --end-line: #f85149 }
}
text { font: 13px system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; fill: var(--ink) }
.code { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace }
.name { font-weight: 600; font-size: 14px }
.soft { fill: var(--soft) }
.ground { fill: var(--ground) }
.thing rect, .state rect { fill: var(--thing); stroke: var(--line) }
.group { fill: none; stroke: var(--line); stroke-dasharray: 5 4 }
.thread rect, .open rect { fill: var(--thread); stroke: var(--thread-line); stroke-width: 1.5 }
.failed rect { fill: var(--end); stroke: var(--end-line) }
.lock rect { fill: var(--lock); stroke: var(--lock-line) }
.lock path { fill: none; stroke: var(--lock-line); stroke-width: 1.5 }
.lock .body { fill: var(--lock-line); stroke: none }
.arrow path { fill: none; stroke: var(--line); stroke-width: 1.5; marker-end: url(#head) }
#head path { fill: var(--line) }
"""


# In Chinese: what the drawings say in words. Names of threads, locks and states stay.
CHINESE = {
    "The states of a connection": "连接的状态",
    "any of these": "其中任何一种",
    "we close": "我方关闭",
    "a Close comes, and is answered": "收到关闭帧，并回答",
    "a Close comes": "收到关闭帧",
    "a rule is broken, or EOF": "违反规则，或 EOF",
    "TCP has ended on both sides": "两侧的 TCP 都已结束",
    "receives and sends": "接收，也发送",
    "receives, sends no data": "接收，不再发送数据",
    "both have sent a Close": "双方都已发送关闭帧",
    "nothing more is looked at": "不再看收到的任何东西",
    "nothing comes or goes": "没有东西进出",
    "Arrows lead {list}.": "箭头：{list}。",
    "from {source} to {target} when {reason}": "从 {source} 到 {target}，条件是{reason}",
    "; ": "；",
    "Threads, what they share, and the locks around it": "线程、共享的东西，以及保护它们的锁",
    "a thread": "线程",
    "what threads share": "线程共享的东西",
    "a lock": "锁",
    "adds itself": "加入自己",
    "keeps, reads": "保存、读取",
    "one system call": "每个客户端",
    "for each client": "一次系统调用",
    "reads": "读取",
    "answers": "回答",
    "accepts connections": "接受连接",
    "one for each connection": "每个连接一个",
    "runs handle_connections": "运行 handle_connections",
    "a queue of 1,000": "容量 1,000 的队列",
    "one for all clients": "所有客户端共用一个",
    "a set": "集合",
    "the history": "历史",
    "says who is here": "通知谁在线",
    "one Stream for each connection": "每个连接一个 Stream",
    "the state; Pongs, a Close": "状态；Pong、关闭帧",
    "the socket": "套接字",
    "TCP, or TLS above it": "TCP，或其上的 TLS",
    "the backlog": "积压",
    "at most 1 MiB": "最多 1 MiB",
    "checks; reads for busy handlers": "检查；替忙碌的处理函数读取",
    "sends, without the lock": "发送，不持有锁",
    "all deadlines in one heap": "所有截止时间在一个堆里",
    "writes the log": "写日志",
    "sends the backlog": "发送积压",
    "Taken in this order:": "取锁的顺序：",
}


class Language(NamedTuple):
    """What a drawing is written in. Without texts it stays in English."""

    tag: str
    texts: dict[str, str]

    def say(self, english: str) -> str:
        return self.texts.get(english, english)


LANGUAGES = {"": Language("en", {}), ".zh": Language("zh-Hans", CHINESE)}  # by the file's suffix
Say = Callable[[str], str]


class Transition(NamedTuple):
    """An arrow of `State`'s docstring. The source of the last one is "any of these"."""

    source: str
    reason: str
    target: str


def read_transitions() -> list[Transition]:
    """The transitions, in the order in which the docstring of `State` has them."""
    lines = re.findall(r"^ *(\w[\w ]*?) +--- (.+?) -+> +(\w+)$", State.__doc__ or "", re.MULTILINE)
    return [Transition(*line) for line in lines]


class _Place(NamedTuple):
    """Where a transition stands: its arrow, and the first line of its text.

    The text is broken into lines at its comma.
    """

    path: str
    x: int
    y: int
    anchor: str = "start"


ANY = "any of these"
STATE_PLACES = {
    "OPEN": (20, 170),
    "CLOSE_SENT": (500, 170),
    "CLOSE_EXCHANGED": (260, 50),
    "FAILED": (260, 290),
    "CLOSED": (260, 420),
}
STATE_SIZE = (180, 50)
TRANSITION_PLACES = {
    ("OPEN", "CLOSE_SENT"): _Place("M200 195 H494", 350, 187, "middle"),
    ("OPEN", "CLOSE_EXCHANGED"): _Place("M110 170 V91 Q110 75 126 75 H254", 122, 97),
    ("CLOSE_SENT", "CLOSE_EXCHANGED"): _Place("M590 170 V91 Q590 75 574 75 H446", 578, 97, "end"),
    ("OPEN", "FAILED"): _Place("M110 220 V299 Q110 315 126 315 H254", 122, 287),
    ("CLOSE_SENT", "FAILED"): _Place("M590 220 V299 Q590 315 574 315 H446", 578, 287, "end"),
    (ANY, "CLOSED"): _Place("M350 366 V414", 362, 396),
}
# Below the name of a state: what that means for the program.
MEANINGS = {
    "OPEN": "receives and sends",
    "CLOSE_SENT": "receives, sends no data",
    "CLOSE_EXCHANGED": "both have sent a Close",
    "FAILED": "nothing more is looked at",
    "CLOSED": "nothing comes or goes",
}


def draw_states(language: Language) -> str:
    say = language.say
    transitions = read_transitions()
    parts = [f'<rect class="group" x="8" y="30" width="{WIDTH - 16}" height="336" rx="10"/>']
    parts.append(text(18, 355, say(ANY), "soft"))
    for each in transitions:
        place = TRANSITION_PLACES[each.source, each.target]
        lines = re.split(r"(?<=,) |(?<=，)", say(each.reason))
        parts.append(
            f'<g class="arrow" data-from={quoteattr(each.source)} data-to={quoteattr(each.target)}>'
            f'<path d="{place.path}"/></g>'
        )
        for number, line in enumerate(lines):
            parts.append(text(place.x, place.y + 17 * number, line, anchor=place.anchor))
    width, height = STATE_SIZE
    for state in State:
        x, y = STATE_PLACES[state.name]
        meaning = say(MEANINGS[state.name])
        parts.append(f'<g class="state {state.name.lower()}" data-state="{state.name}">')
        parts.append(box(x, y, width, height))
        parts.append(text(x + width // 2, y + 21, state.name, "name", "middle"))
        parts.append(text(x + width // 2, y + 39, meaning, "soft", "middle") + "</g>")
    title = say("The states of a connection")
    return svg(language, title, _describe(transitions, say), 486, parts)


def _describe(transitions: Sequence[Transition], say: Say) -> str:
    sentence = say("from {source} to {target} when {reason}")
    arrows = [
        sentence.format(source=say(each.source), target=each.target, reason=say(each.reason))
        for each in transitions
    ]
    return say("Arrows lead {list}.").format(list=say("; ").join(arrows))


THREADS_DESCRIPTION = """
The main thread starts a thread for each connection. That reads from its connection's Stream, under
WebSocket._reading, adds itself to the set clients, under clients_lock, and puts messages into the
queue broadcast. The thread handle_messages takes them out, keeps them in the history, under
SqliteHistory._lock, and sends them to all clients with one system call for each. The thread
Presence.tell_changes sends to them as well. What is written to a Stream, and each change of its
Protocol's state, is under Stream.lock. What the kernel does not take waits in the Stream's backlog,
which rfc6455-drainer sends. The thread rfc6455-clock, with Clock._lock around its heap, checks the
deadlines of every Stream, and reads for busy handlers. The thread line-writer writes the log. Locks
are taken in this order: WebSocket._reading, Stream.lock, then TLS._lock or Clock._lock.
"""
CHINESE[THREADS_DESCRIPTION] = """
main 线程为每个连接启动一个线程。它在 WebSocket._reading 之下读取自己连接的 Stream，
在 clients_lock 之下把自己加入集合 clients，并把消息放入队列 broadcast。
handle_messages 线程把消息取出来，在 SqliteHistory._lock 之下存入历史，再发给所有客户端，
每个客户端一次系统调用。Presence.tell_changes 线程也向它们发送。
写入 Stream，以及 Protocol 状态的每次改变，都在 Stream.lock 之下进行。
内核没有收下的留在 Stream 的积压里，由 rfc6455-drainer 发送。
rfc6455-clock 线程用 Clock._lock 保护它的堆，检查每个 Stream 的截止时间，
并替忙碌的处理函数读取。line-writer 线程写日志。
取锁的顺序是：WebSocket._reading、Stream.lock，然后是 TLS._lock 或 Clock._lock。
"""


def draw_threads(language: Language) -> str:
    say = language.say
    parts = [
        *_draw_legend(say),
        *_draw_chat(say),
        *_draw_streams(say),
        *_draw_helpers(say),
        *_draw_order(say),
    ]
    description = " ".join(say(THREADS_DESCRIPTION).split())
    title = say("Threads, what they share, and the locks around it")
    return svg(language, title, description, 776, parts)


def _draw_legend(say: Say) -> list[str]:
    return [
        '<g class="thread"><rect x="330" y="34" width="24" height="16" rx="4"/></g>',
        text(362, 47, say("a thread")),
        '<g class="thing"><rect x="440" y="34" width="24" height="16" rx="4"/></g>',
        text(472, 47, say("what threads share")),
        padlock(622, 33),
        text(642, 47, say("a lock")),
    ]


def _draw_chat(say: Say) -> list[str]:
    """Above: what `chat_server.py` has. Arrows come first, so that boxes cover their ends."""
    return [
        arrow("M125 70 V104"),
        arrow("M230 128 H284"),
        arrow("M410 128 H464"),
        arrow("M230 148 H246 Q254 148 254 156 V232 Q254 240 262 240 H284"),
        text(262, 196, say("adds itself")),
        arrow("M484 160 V232 Q484 240 476 240 H416"),
        arrow("M598 160 V209"),
        text(606, 190, say("keeps, reads")),
        arrow("M498 160 V414"),
        text(506, 345, say("one system call")),
        text(506, 362, say("for each client")),
        arrow("M50 420 V166"),
        text(58, 240, say("reads")),
        arrow("M222 160 V414"),
        text(214, 385, say("answers"), anchor="end"),
        arrow("M350 330 V298"),
        arrow("M350 380 V414"),
        thread(20, 20, 210, "main", "accepts connections", say),
        thread(20, 110, 210, "one for each connection", "runs handle_connections", say),
        thing(290, 110, 120, "broadcast", "a queue of 1,000", say),
        thread(470, 110, 220, "handle_messages", "one for all clients", say),
        thing(290, 215, 120, "clients", "a set", say),
        lock(290, 268, "clients_lock"),
        thing(504, 215, 186, "the history", "SQLite", say),
        lock(504, 268, "SqliteHistory._lock"),
        thread(255, 330, 190, "Presence.tell_changes", "says who is here", say),
        lock(20, 290, "WebSocket._reading"),
    ]


def _draw_streams(say: Say) -> list[str]:
    """In the middle: what each connection has."""
    return [
        '<rect class="group" x="20" y="420" width="670" height="140" rx="10"/>',
        text(36, 445, say("one Stream for each connection"), "name"),
        lock(556, 429, "Stream.lock"),
        arrow("M440 495 H478"),
        thing(36, 470, 190, "Protocol", "the state; Pongs, a Close", say),
        thing(260, 470, 180, "the socket", "TCP, or TLS above it", say),
        thing(484, 470, 190, "the backlog", "at most 1 MiB", say),
        lock(260, 527, "TLS._lock"),
    ]


def _draw_helpers(say: Say) -> list[str]:
    """Below: the threads of the layer and the programs that look after all connections."""
    return [
        arrow("M120 610 V566"),
        text(128, 592, say("checks; reads for busy handlers")),
        arrow("M582 610 V526"),
        text(574, 592, say("sends, without the lock"), anchor="end"),
        thread(20, 610, 200, "rfc6455-clock", "all deadlines in one heap", say),
        lock(20, 664, "Clock._lock"),
        thread(260, 610, 180, "line-writer", "writes the log", say),
        lock(260, 664, "LineWriter._changed"),
        thread(484, 610, 190, "rfc6455-drainer", "sends the backlog", say),
    ]


def _draw_order(say: Say) -> list[str]:
    """At the bottom: the order in which locks are taken."""
    return [
        text(20, 738, say("Taken in this order:"), "soft"),
        lock(150, 721, "WebSocket._reading"),
        arrow("M332 733 H350"),
        lock(357, 721, "Stream.lock"),
        arrow("M484 733 H502"),
        lock(509, 706, "TLS._lock"),
        lock(509, 736, "Clock._lock"),
    ]


def thread(x: int, y: int, width: int, name: str, what: str, say: Say) -> str:
    return _labelled("thread", x, y, width, name, what, say)


def thing(x: int, y: int, width: int, name: str, what: str, say: Say) -> str:
    return _labelled("thing", x, y, width, name, what, say)


def _labelled(kind: str, x: int, y: int, width: int, name: str, what: str, say: Say) -> str:
    middle = x + width // 2
    return (
        f'<g class="{kind}" data-name={quoteattr(name)}>{box(x, y, width, 50)}'
        f"{text(middle, y + 21, say(name), 'name', 'middle')}"
        f"{text(middle, y + 39, say(what), 'soft', 'middle')}</g>"
    )


def lock(x: int, y: int, name: str) -> str:
    width = 34 + 8 * len(name)
    return (
        f'<g class="lock" data-name={quoteattr(name)}>{box(x, y, width, 24)}{padlock(x + 6, y + 3)}'
        f"{text(x + 25, y + 16, name, 'code')}</g>"
    )


def padlock(x: int, y: int) -> str:
    shackle = f"M{x + 3} {y + 8} v-3 a4 4 0 0 1 8 0 v3"
    body = f'<rect class="body" x="{x}" y="{y + 8}" width="14" height="9" rx="2"/>'
    return f'<g class="lock"><path d="{shackle}"/>{body}</g>'


def arrow(path: str) -> str:
    return f'<g class="arrow"><path d="{path}"/></g>'


def box(x: int, y: int, width: int, height: int) -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="7"/>'


def text(x: int, y: int, line: str, kind: str = "", anchor: str = "start") -> str:
    attributes = f' class="{kind}"' if kind else ""
    attributes += f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x}" y="{y}"{attributes}>{escape(line)}</text>'


def svg(language: Language, title: str, description: str, height: int, parts: Sequence[str]) -> str:
    """A whole drawing. Its ground is painted, because the page around it may have other colours."""
    head = '<path d="M0 0 L8 4 L0 8 z"/>'
    marker = (
        '<marker id="head" viewBox="0 0 8 8" refX="2" refY="4" markerWidth="6" markerHeight="6" '
        f'orient="auto">{head}</marker>'
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" lang="{language.tag}" role="img" aria-labelledby="title description">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="description">{escape(description)}</desc>',
        f"<style>{STYLE}</style>",
        f"<defs>{marker}</defs>",
        f'<rect class="ground" width="{WIDTH}" height="{height}" rx="10"/>',
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


DRAWINGS: dict[str, Callable[[], str]] = {
    f"{name}{suffix}.svg": partial(draw, language)
    for name, draw in (("states", draw_states), ("threads", draw_threads))
    for suffix, language in LANGUAGES.items()
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the drawings in docs/drawings.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with status 1 if one is old"
    )
    options = parser.parse_args(arguments)
    status = 0
    for name, draw in DRAWINGS.items():
        file = FOLDER / name
        drawing = draw()
        if file.is_file() and file.read_text(encoding="utf-8") == drawing:
            continue
        if options.check:
            print(f"docs/drawings/{name} is old: python3 docs/make_drawings.py", file=sys.stderr)
            status = 1
        else:
            file.write_text(drawing, encoding="utf-8")
            print(f"docs/drawings/{name}")
    return status


if __name__ == "__main__":
    sys.exit(main())
