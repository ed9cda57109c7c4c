#!/usr/bin/env python3
"""Holds PiCloud's schedules against cronsim (PyPI), an independent implementation of Debian cron's
rules: random schedules, in random zones, from random instants, most of them around changes of the
clock. Usage: compare-schedules.py PROGRAM [CASES [SEED [VECTORS]]], where PROGRAM is the built example
`next_times` of picloud-gitops-core, and VECTORS a file that is written: cases on which both agree, most of
them in reach of a change, for the test of that crate. Ends with 1 where a case disagrees that is not explained in
docs/EVENTS.md."""

import random
import signal
import subprocess
import sys
from collections import Counter
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from cronsim import CronSim

UTC = timezone.utc
# Two changes of a zone are further apart than this, in the zones and years below.
STEP = timedelta(days=5)
ZONES = """Europe/Berlin Europe/London Europe/Lisbon Europe/Dublin America/New_York America/Los_Angeles
America/St_Johns America/Sao_Paulo America/Havana America/Santiago America/Asuncion Asia/Tehran Asia/Kathmandu
Asia/Beirut Asia/Gaza Africa/Cairo Africa/Casablanca Australia/Lord_Howe Australia/Sydney Pacific/Auckland
Pacific/Chatham Pacific/Apia Antarctica/Troll Atlantic/Azores UTC""".split()


def offset(zone, at):
    return at.astimezone(zone).utcoffset()


def changes(zone):
    """The instants of 2005 to 2030 at which the zone's offset changes."""
    found, at, end = [], datetime(2005, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
    while at < end:
        low, high = at, at + STEP
        if offset(zone, low) != offset(zone, high):
            while high - low > timedelta(seconds=1):
                middle = low + timedelta(seconds=int((high - low).total_seconds() // 2))
                low, high = (middle, high) if offset(zone, middle) == offset(zone, low) else (low, middle)
            found.append(high)
        at += STEP
    return found


def field(rng, low, high, wide):
    kind = rng.random()
    if kind < wide:
        return "*"
    if kind < wide + 0.15:
        return f"*/{rng.choice([2, 3, 5, 10, 15, 20])}"
    if kind < wide + 0.25:
        first = rng.randint(low, high - 1)
        return f"{first}-{rng.randint(first, high)}"
    if kind < wide + 0.35:
        return ",".join(str(rng.randint(low, high)) for _ in range(rng.randint(2, 4)))
    return str(rng.randint(low, high))


def schedule(rng):
    hour = field(rng, 0, 23, 0.25) if rng.random() < 0.4 else str(rng.choice([0, 1, 2, 3, 4, 23]))
    days = field(rng, 1, 28, 0.7)
    return " ".join([field(rng, 0, 59, 0.15), hour, days, field(rng, 1, 12, 0.8), field(rng, 0, 6, 0.7)])


def explained(zone, expression, start, ours, theirs):
    """Why a case may disagree; None where it may not."""
    if theirs[0] <= start:
        return "cronsim gives a time that has passed: it starts in the hour that comes a second time"
    begin, end = min(start, *ours, *theirs), max(*ours, *theirs)
    for change in CHANGES[zone.key]:
        if begin - timedelta(hours=6) <= change <= end + timedelta(hours=6):
            size = offset(zone, change) - offset(zone, change - timedelta(seconds=1))
            if abs(size) >= timedelta(hours=3):
                return "a change of three hours or more"
            if abs(size) != timedelta(hours=1):
                return f"a change of {int(size.total_seconds() // 60)} minutes"
            if change.astimezone(zone).replace(tzinfo=None).day != (change - timedelta(seconds=1)).astimezone(zone).day \
                    or change.astimezone(zone).hour in (0, 1):
                return "a change at midnight"
            if change.astimezone(zone).minute != 0:
                return "a gap that does not end on the hour: cronsim passes over the rest of that hour"
    return None


class Endless(Exception):
    pass


def give_up(*_):
    raise Endless


def next_of_theirs(expression, start):
    """Three times; None where it never fires. cronsim searches some cases without an end."""
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        ticks = CronSim(expression, start)
        return [next(ticks).astimezone(UTC) for _ in range(3)]
    except StopIteration:
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


# Seconds that cronsim has for a case.
PATIENCE = 2
CHANGES = {}
# Cases that are written for the test.
KEPT = 3_000


def near(zone, start, times):
    """Whether a change of the clock lies within the case."""
    return any(start <= change <= times[-1] for change in CHANGES[zone.key])


def vector(expression, zone, start, times):
    """A case on a line: minutes from one time to the next, the first from the start's."""
    minutes, at = [], int(start.timestamp())
    for time in times:
        # The start may lie within a minute, a time does not.
        then = int(time.timestamp())
        minutes.append(str((then - at + 59) // 60))
        at = then
    return "\t".join([expression, zone.key, str(int(start.timestamp())), " ".join(minutes)])


def main():
    program = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    rng = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    for name in ZONES:
        CHANGES[name] = changes(ZoneInfo(name))
    signal.signal(signal.SIGALRM, give_up)
    cases = []
    while len(cases) < count:
        name = rng.choice(ZONES)
        if CHANGES[name] and rng.random() < 0.8:
            start = rng.choice(CHANGES[name]) + timedelta(seconds=rng.randint(-30 * 3600, 6 * 3600))
        else:
            start = datetime(2005, 1, 1, tzinfo=UTC) + timedelta(seconds=rng.randint(0, 20 * 365 * 86400))
        cases.append((schedule(rng), name, start))
    text = "".join(f"{e}\t{z}\t{s.isoformat()}\n" for e, z, s in cases)
    answers = subprocess.run([program], input=text, capture_output=True, text=True, check=True).stdout.splitlines()
    disagree, reasons, shown, agreed = 0, Counter(), 0, []
    for (expression, name, start), answer in zip(cases, answers, strict=True):
        zone = ZoneInfo(name)
        try:
            theirs = next_of_theirs(expression, start.astimezone(zone))
        except Endless:
            reasons["cronsim finds no end"] += 1
            continue
        if answer.startswith("error"):
            ours = None
        else:
            ours = [datetime.fromisoformat(t.replace("Z", "+00:00")) for t in answer.split()]
        if ours == theirs:
            if ours:
                agreed.append((near(zone, start, ours), zone, expression, start, ours))
            continue
        reason = explained(zone, expression, start, ours, theirs) if ours and theirs else "one never fires"
        reasons[reason or "unexplained"] += 1
        if reason is None:
            disagree += 1
            if shown < 20:
                shown += 1
                print(f"{expression!r} {name} from {start.isoformat()}\n  ours   {ours}\n  theirs {theirs}")
    if len(sys.argv) > 4:
        # Five of six have a change within them, and each zone has its share.
        chosen, count = [], Counter()
        for has_change, zone, expression, start, times in agreed:
            share = KEPT * 5 // 6 if has_change else KEPT // 6
            if count[zone.key, has_change] <= share // len(ZONES):
                count[zone.key, has_change] += 1
                chosen.append(vector(expression, zone, start, times))
        with open(sys.argv[4], "w") as file:
            file.write("".join(f"{line}\n" for line in sorted(chosen)))
    print(f"{len(cases)} cases, {sum(reasons.values())} disagree:")
    for reason, number in reasons.most_common():
        print(f"  {number:6} {reason}")
    return 1 if disagree else 0


sys.exit(main())
