#!/usr/bin/env python3
"""Kills the server and its PostgreSQL at random under load, and then counts: no acknowledged write
without its event, no event without its write, as many runs as executions, nothing left.
Usage: soak.py PROGRAM [SECONDS [SEED]]. Needs python3 and git."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

MANIFEST = """name: k
limits: {concurrency: 8}
routes:
  - {path: '/w/{n}', script: scripts/w.rhai}
  - {path: '/keys/{c}', script: scripts/keys.rhai}
triggers:
  - {name: t, kind: kv, script: scripts/t.rhai, collection: w, events: [set]}
"""
SCRIPTS = {
    "w": 'kv::set("w", ctx.request.params.n, 1); "ok"',
    "t": 'kv::incr("done", ctx.event.kv.key)',
    "keys": """let all = []; let after = "";
loop {
    let page = kv::list(ctx.request.params.c, #{ limit: 1000, after: after });
    for entry in page { all.push(entry.key); after = entry.key; }
    if page.len() < 1000 { break; }
}
all""",
}


class Server:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.start()

    def start(self):
        ready = f"{self.folder}/ready.json"
        if os.path.exists(ready):
            os.remove(ready)
        with open(f"{self.folder}/output", "a") as output:
            self.process = subprocess.Popen(
                [self.program, "up", f"{self.folder}/repository", "--listen", "127.0.0.1:0",
                 "--data-dir", f"{self.folder}/data", "--ready-file", ready],
                stdout=output, stderr=subprocess.STDOUT)
        began = time.time()
        while not os.path.exists(ready):
            time.sleep(0.02)
            assert self.process.poll() is None and time.time() - began < 60, "the server does not start"
        with open(ready) as file:
            told = json.load(file)
        self.url = told["url"]
        with open(told["admin_token_file"]) as file:
            self.key = file.read().strip()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def kill_postgres(self):
        try:
            with open(f"{self.folder}/data/postgres/data/postmaster.pid") as file:
                os.kill(int(file.readline()), signal.SIGQUIT)
        except FileNotFoundError:
            # It is being started again just now.
            pass

    def get(self, path, timeout=10):
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.loads(answer.read() or "null") if "/w/" not in path else answer.status

    def runs(self, status=""):
        count, cursor = 0, ""
        while cursor is not None:
            page = self.get(f"/api/v1/admin/runs?limit=1000&kind=kv{status}{cursor}")
            count += len(page["items"])
            cursor = f"&cursor={page['next_cursor']}" if page["next_cursor"] else None
        return count


def repository(folder):
    os.makedirs(f"{folder}/repository/scripts")
    with open(f"{folder}/repository/app.yaml", "w") as file:
        file.write(MANIFEST)
    for name, text in SCRIPTS.items():
        with open(f"{folder}/repository/scripts/{name}.rhai", "w") as file:
            file.write(text)
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "feat: load"]):
        subprocess.run(["git", "-c", "user.name=soak", "-c", "user.email=soak@example.com", *command],
                       cwd=f"{folder}/repository", check=True)


def main():
    program = os.path.abspath(sys.argv[1])
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 600
    rng = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else None)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        repository(folder)
        server = Server(program, folder)
        acknowledged, sent, kills = set(), [0], 0
        lock = threading.Lock()

        def load(url, until):
            while time.time() < until:
                with lock:
                    sent[0] += 1
                    name = f"{sent[0]:07}"
                try:
                    if urllib.request.urlopen(f"{url}/apps/k/w/{name}", timeout=5).status == 200:
                        acknowledged.add(name)
                except OSError:
                    pass

        end = time.time() + seconds
        while time.time() < end:
            until = time.time() + rng.uniform(0.2, 1.5)
            threads = [threading.Thread(target=load, args=(server.url, until + 0.2)) for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(max(0, until - time.time()))
            kills += 1
            if rng.random() < 0.3:
                server.kill_postgres()
                for thread in threads:
                    thread.join()
                time.sleep(0.5)
            else:
                server.kill()
                for thread in threads:
                    thread.join()
                server.start()
        done, patience = set(), time.time() + 60
        while not acknowledged <= done and time.time() < patience:
            time.sleep(0.3)
            try:
                done = set(server.get("/apps/k/keys/done"))
            except OSError:
                pass
        time.sleep(1)
        stats = server.get("/api/v1/admin/stats?app=k&window=24h")["by_kind"]["kv"]
        runs, ok = server.runs(), server.runs("&status=ok")
        letters = server.get("/api/v1/admin/dead-letters")["items"]
        done, written = (set(server.get(f"/apps/k/keys/{c}")) for c in ("done", "w"))
        print(f"{kills} kills, {sent[0]} requests, {len(acknowledged)} acknowledged; {len(done)} events ended, "
              f"{ok} runs that were ok, {runs} recorded, {stats} counted, {len(letters)} dead letters")
        server.process.terminate()
        clean = server.process.wait() == 0
        lost = acknowledged - done
        # A write that was not acknowledged may have been made; its event is then there, too.
        # Delivery is at least once: an execution whose result was lost runs again, and has one record. An
        # attempt that finds the database away fails, is recorded and counted, and is made again.
        good = not lost and not letters and done == written and len(done) == ok and runs == stats and clean
        print("good" if good else f"NOT good: lost {sorted(lost)[:10]}, made up {sorted(done - written)[:10]}")
        return 0 if good else 1


sys.exit(main())
