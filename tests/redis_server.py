"""A redis-server as a process, and what tests ask it beside the chat."""

import contextlib
import socket
import subprocess
from pathlib import Path
from typing import Any

from peers import PATIENCE, eventually, free_port
from programs import Program, lines_with

AWAY = "Redis is away"
BACK = "Redis is back"


class Redis:
    """A redis-server with a folder of its own, which can be ended and started again.

    It fsyncs each write: with the default, `everysec`, it may answer before it has written, while
    an fsync is under way, so that SIGKILL takes what was acknowledged. A replica gets everything at
    once: by default Redis waits five seconds for others that may want the same.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(exist_ok=True)
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1"]
        self._command += ["--dir", str(folder), "--logfile", str(folder / "redis.log")]
        self._command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        self._command += ["--repl-diskless-sync-delay", "0"]
        self._command += options
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
        try:
            eventually(self._answers, 2 * PATIENCE)
        except BaseException:
            self.kill()
            raise

    def _answers(self) -> bool:
        assert self.process.poll() is None, "redis-server ended at its start"
        with contextlib.suppress(OSError):
            return self.ask("PING") == "+PONG"
        return False

    def ask(self, *words: str) -> str:
        """The first line that Redis answers."""
        request = f"*{len(words)}\r\n"
        request += "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as sock:
            sock.sendall(request.encode())
            with sock.makefile("r", newline="\r\n", encoding="utf-8") as answer:
                return answer.readline().rstrip("\r\n")

    def stop(self) -> None:
        """End it as an operator does."""
        self.process.terminate()
        self.process.wait(PATIENCE)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Sentinel:
    """A Sentinel that watches a master, and promotes a replica soon after the master is gone."""

    def __init__(self, folder: Path, master: Redis) -> None:
        folder.mkdir(exist_ok=True)
        self.port = free_port()
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            f"logfile {folder / 'sentinel.log'}",
            f"sentinel monitor mymaster 127.0.0.1 {master.port} 1",
            "sentinel down-after-milliseconds mymaster 500",
            "sentinel failover-timeout mymaster 5000",
        ]
        configuration = folder / "sentinel.conf"
        configuration.write_text("\n".join(lines), encoding="utf-8")
        command = ["redis-server", str(configuration), "--sentinel"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def knows_replica(self) -> bool:
        import redis as package

        with contextlib.suppress(package.RedisError), contextlib.closing(self._connected()) as it:
            return bool(it.sentinel_master("mymaster")["num-slaves"])
        return False

    def master_port(self) -> int:
        with contextlib.closing(self._connected()) as client:
            return int(client.sentinel_get_master_addr_by_name("mymaster")[1])

    def _connected(self) -> Any:
        import redis as package

        return package.Redis(port=self.port, decode_responses=True)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def connected(redis: Redis, **options: Any) -> Any:
    """A client of the redis package."""
    import redis as package

    return package.Redis(port=redis.port, decode_responses=True, **options)


def put(redis: Redis, message: str, message_id: str = "*") -> str:
    """An entry that another program puts on the stream; its id."""
    with contextlib.closing(connected(redis)) as client:
        return str(client.xadd("chat", {"message": message}, id=message_id))


def came_back_as_often_as_it_went(server: Program) -> bool:
    """Whether the server has logged as often that Redis is back as that it is away."""
    return len(lines_with(server, AWAY)) == len(lines_with(server, BACK))
