#!/usr/bin/env python3
"""Runs the corpus of attacks against a server, and asks a neighbour's endpoint all the while.

    scripts/attack-neighbour.py PICLOUD [--mode in-process|process] [--at-once N]

Prints, as Markdown: whether each attack ended as it says and within its timeout + 200 ms, and how long
the neighbour's answers took while nothing else was asked and while the attacks ran.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

CORPUS = pathlib.Path(__file__).resolve().parent.parent / "crates/picloud/tests/program/attacks"
MARGIN = 0.2
# Requests a second to the neighbour.
RATE = 100


def head(text, word):
    for line in text.splitlines():
        if line.startswith(word):
            return line[len(word):]
    return None


def corpus(folder):
    """Writes the repository; gives the attacks as (name, expected ends, timeout in seconds)."""
    attacks = []
    manifest = "name: attacks\nlimits: {memory: 32MiB, operations: 1000000000}\nroutes:\n"
    scripts = folder / "apps/attacks/scripts"
    scripts.mkdir(parents=True)
    for path in sorted(CORPUS.glob("*.rhai")):
        text = path.read_text()
        expected = head(text, "// ends: ")
        timeout = 400 if expected == "timeout" else 4000
        more = head(text, "// limits: {") or "}"
        manifest += f"  - {{path: /{path.stem}, script: scripts/{path.name}, limits: {{timeout: {timeout}ms, {more}}}\n"
        (scripts / path.name).write_text(text)
        attacks.append((path.stem, expected.split(" or "), timeout / 1000))
    (folder / "apps/attacks/app.yaml").write_text(manifest)
    neighbour = folder / "apps/neighbour/scripts"
    neighbour.mkdir(parents=True)
    (folder / "apps/neighbour/app.yaml").write_text(
        "name: neighbour\nroutes: [{path: /, script: scripts/a.rhai}]\n")
    (neighbour / "a.rhai").write_text('"well"')
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.com"]
    for arguments in (["init", "-qb", "main"], ["add", "-A"], ["commit", "-qm", "attacks"]):
        subprocess.run(git + arguments, check=True)
    return attacks


class Server:
    def __init__(self, program, folder, mode):
        self.data = pathlib.Path(tempfile.mkdtemp(prefix="attack-"))
        self.data.chmod(0o755)
        ready = self.data / "ready.json"
        self.process = subprocess.Popen(
            [program, "up", str(folder), "--listen", "127.0.0.1:0", "--data-dir", str(self.data / "data"),
             "--executor", mode, "--ready-file", str(ready)],
            stdout=subprocess.DEVNULL, stderr=open(self.data / "output", "w"),
            env={k: v for k, v in os.environ.items() if k != "DATABASE_URL"})
        until = time.monotonic() + 60
        while not ready.exists():
            if time.monotonic() > until or self.process.poll() is not None:
                sys.exit((self.data / "output").read_text())
            time.sleep(0.02)
        told = json.loads(ready.read_text())
        host, port = told["url"].removeprefix("http://").split(":")
        self.address = (host, int(port))
        self.token = pathlib.Path(told["admin_token_file"]).read_text().strip()

    def get(self, path, headers="", timeout=30):
        with socket.create_connection(self.address, timeout=timeout) as connection:
            connection.sendall(
                f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Connection: close\r\n\r\n".encode())
            answer = bytearray()
            while part := connection.recv(1 << 16):
                answer += part
        top, _, body = bytes(answer).partition(b"\r\n\r\n")
        lines = top.decode("latin-1").split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:])
        return int(lines[0].split()[1]), fields, body

    def ending(self, answer):
        status, headers, body = answer
        if status < 300:
            return "ok"
        if status == 504:
            return "timeout"
        if status != 500:
            return f"status {status}"
        told = json.loads(body)
        if told["code"] == "script_limit":
            return told["limit"]
        bearer = f"Authorization: Bearer {self.token}\r\n"
        for _ in range(400):
            status, _, body = self.get(f"/api/v1/admin/runs/{headers['x-picloud-run']}", bearer)
            if status == 200:
                return json.loads(body)["error"]["kind"]
            time.sleep(0.05)
        return "no record"

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        shutil.rmtree(self.data, ignore_errors=True)
        return code


class Neighbour(threading.Thread):
    """Asks at a steady rate, each request when it is due: a late answer makes the next ones late, too."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.over, self.times, self.wrong, self.doing = server, threading.Event(), [], 0, ""
        self.start()

    def run(self):
        due = time.monotonic()
        with socket.create_connection(self.server.address, timeout=30) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not self.over.is_set():
                due += 1 / RATE
                time.sleep(max(0, due - time.monotonic()))
                connection.sendall(b"GET /apps/neighbour/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                answer = b""
                while not answer.endswith(b"\r\n\r\nwell"):
                    part = connection.recv(1 << 16)
                    if not part:
                        self.wrong += 1
                        return
                    answer += part
                    if answer.split(b" ", 2)[1] != b"200":
                        self.wrong += 1
                        return
                self.times.append((time.monotonic() - due, self.doing))

    def end(self):
        self.over.set()
        self.join()
        self.worst = {}
        for took, doing in self.times:
            self.worst[doing] = max(took, self.worst.get(doing, 0))
        times = sorted(took for took, _ in self.times)
        at = lambda share: times[min(len(times) - 1, int(len(times) * share))] * 1000
        return {"answers": len(times), "p50": at(0.5), "p99": at(0.99), "max": times[-1] * 1000, "wrong": self.wrong}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("--mode", default="in-process", choices=["in-process", "process"])
    parser.add_argument("--at-once", type=int, default=1, help="attacks at the same time")
    options = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="attacks-"))
    folder.chmod(0o755)
    attacks = corpus(folder)
    server = Server(options.program, folder, options.mode)
    quiet = Neighbour(server)
    time.sleep(3)
    quiet = quiet.end()
    busy = Neighbour(server)
    left, wrong, latest, lock = list(attacks), [], (0, ""), threading.Lock()

    def attack():
        nonlocal latest
        while True:
            with lock:
                if not left:
                    return
                name, expected, timeout = left.pop(0)
            busy.doing = name
            began = time.monotonic()
            answer = server.get(f"/apps/attacks/{name}")
            took = time.monotonic() - began
            ended = server.ending(answer)
            with lock:
                if ended not in expected:
                    wrong.append(f"{name}: {ended}, not {' or '.join(expected)}")
                if took > timeout + MARGIN:
                    wrong.append(f"{name}: took {took:.2f} s of {timeout} s")
                latest = max(latest, (took - timeout, name))

    threads = [threading.Thread(target=attack) for _ in range(options.at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    under_attack = busy.end()
    status = server.get("/healthz")[0]
    code = server.stop()
    shutil.rmtree(folder, ignore_errors=True)
    print(f"{options.mode}, {options.at_once} at once: {len(attacks)} attacks, {len(wrong)} wrong; "
          f"healthz {status}, exit code {code}; the latest ended {latest[0] * 1000:+.0f} ms from its timeout ({latest[1]})")
    for line in wrong:
        print(f"- {line}")
    print("\n| neighbour | answers | p50 ms | p99 ms | max ms | wrong |\n|---|---:|---:|---:|---:|---:|")
    for name, row in (("alone", quiet), ("under attack", under_attack)):
        print(f"| {name} | {row['answers']} | {row['p50']:.1f} | {row['p99']:.1f} | {row['max']:.1f} | {row['wrong']} |")
    worst = sorted(busy.worst.items(), key=lambda one: -one[1])[:8]
    print("\nslowest answers: " + ", ".join(f"{took * 1000:.0f} ms during {name}" for name, took in worst))
    sys.exit(bool(wrong or under_attack["wrong"] or code or status != 200))


if __name__ == "__main__":
    main()
