#!/usr/bin/env python3
"""redis_py.py: redis-py under an open or a closed loop, measured as `ringctl bench` measures others.

    scripts/redis_py.py HOST:PORT get|set SECONDS [RATE [WORKERS]]

Each worker is a thread with a connection of its own. With a rate, operations are due whether earlier ones
are answered or not, and a latency counts from when it was due; what was due and not begun when time was up
is counted as unsent. Without one the next is sent when the last is answered. Keys are those of `ringctl
bench` ("bench:" and a number), loaded before. Latencies are kept as they are, so that quantiles are exact.
Prints one line: operations a second, p50, p99, p99.9 in milliseconds, errors, unsent.
"""

import random
import sys
import threading
import time

import redis

WARM_UP = 1.0
RECORDS = 10_000


class Pace:
    """Says which operation is due next; shared by all workers."""

    def __init__(self, start, rate):
        self.start, self.rate = start, rate
        self.next = 0
        self.lock = threading.Lock()

    def take(self):
        """When the next operation is due."""
        with self.lock:
            which = self.next
            self.next += 1
        return self.start + which / self.rate


def work(address, mode, pace, start, until, out):
    host, port = address.rsplit(":", 1)
    connection = redis.Redis(host=host, port=int(port), socket_timeout=5)
    chance = random.Random(id(out))
    value = b"v" * 1000
    connection.ping()
    latencies, errors = [], 0
    while time.monotonic() < start:
        time.sleep(max(0.0, min(0.01, start - time.monotonic())))
    while True:
        if pace is None:
            due = time.monotonic()
        else:
            due = pace.take()
            wait = due - time.monotonic()
            if due < until and wait > 0:
                time.sleep(wait)
        if due >= until or time.monotonic() >= until:
            break
        key = f"bench:user{chance.randrange(RECORDS):010}"
        try:
            if mode == "get":
                connection.get(key)
            else:
                connection.set(key, value)
        except redis.RedisError:
            errors += 1
            continue
        answered = time.monotonic()
        if answered >= start + WARM_UP:
            latencies.append(answered - due)
    out.append((latencies, errors, 1 if pace is not None and due < until else 0))


def main():
    address, mode, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    rate = float(sys.argv[4]) if len(sys.argv) > 4 else 0.0
    workers = int(sys.argv[5]) if len(sys.argv) > 5 else 16
    start = time.monotonic() + 0.3
    until = start + WARM_UP + seconds
    pace = Pace(start, rate) if rate else None
    out = []
    arguments = (address, mode, pace, start, until, out)
    threads = [threading.Thread(target=work, args=arguments) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    latencies = sorted(latency for one, _, _ in out for latency in one)
    errors, given_up = (sum(one[i] for one in out) for i in (1, 2))
    # What was due before the end and that no worker came to.
    unsent = max(0, int((until - start) * rate) - pace.next) + given_up if pace else 0
    if not latencies:
        sys.exit("error: nothing was answered")

    def quantile(share):
        return latencies[min(len(latencies) - 1, int(len(latencies) * share))] * 1000

    print(f"{len(latencies) / seconds:.0f} {quantile(0.5):.2f} {quantile(0.99):.2f} {quantile(0.999):.2f} {errors} {unsent}")


if __name__ == "__main__":
    main()
