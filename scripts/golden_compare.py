"""Compares what two builds wrote and said.

A value that differs, and what only OLD has, is a fault. What only NEW has is an addition. Times, dates, rates and the
version are left out. The hash of a file that has additions and no fault differs without being a fault.
"""
import csv
import difflib
import io
import json
import re
import struct
import tomllib
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

# Keys and columns that no two runs share.
LEFT_OUT = {
    "elapsed_s", "seconds", "trace_s", "tokens_per_s", "created", "version",
    "time",  # of a request to a language model
    "manifest_sha256",  # of a file with times
    "bytes",  # that pruning frees, times among them
}

# The same in text.
NOISE = [(re.compile(pattern), replacement) for pattern, replacement in [
    (r"\x1b\[[0-9;]*m", ""),
    (r"trainer \d+\.\d+\.\d+", "trainer VERSION"),
    (r"\b\d+(\.\d+)?( |\u00a0)?(ms|µs|s|min|minutes|seconds|h)\b", "TIME"),
    (r"\b\d+(\.\d+)? (tokens/s|tokens a second)", "RATE"),
    (r"\b\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?Z?)?( UTC)?", "DATE"),
    (r"\(\d+ % of both\)", "(SHARE of both)"),
    (r"\(measured: RATE read, \d+ written\)", "(measured)"),
    (r"sha256 of manifest\.json [0-9a-f]{64}", "sha256 of manifest.json"),
    (r"trainer-verify-\d+", "trainer-verify"),
    (r"events\.out\.tfevents\.[0-9A-Za-z.]+", "events.out.tfevents"),
]]

SKIPPED = {"models", "embedder", "home"}  # what the lab put there
HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Finding:
    kind: str  # "fault" or "addition"
    place: str  # scene and file or command
    what: str

    def __str__(self):
        return f"{self.place}: {self.what}"


class Number(str):
    """A number with the digits with which it was written."""


def normal(text):
    for pattern, replacement in NOISE:
        text = pattern.sub(replacement, text)
    return text


def short(value, length=90):
    text = value if isinstance(value, str) else json.dumps(value)
    text = text.replace("\n", "⏎")
    return text if len(text) <= length else text[:length] + "…"


class Comparison:
    """Findings about one pair of folders."""

    def __init__(self, scene, same_times=False):
        self.scene, self.findings = scene, []
        self.same_times = same_times  # NEW read what OLD wrote, times included
        self.clean_additions = set()  # files with additions and no fault

    def fault(self, place, what):
        self.findings.append(Finding("fault", f"{self.scene}/{place}", what))

    def addition(self, place, what):
        self.findings.append(Finding("addition", f"{self.scene}/{place}", what))

    # ---- structured values ----

    def values(self, place, old, new, key=""):
        """Two JSON or TOML values."""
        if isinstance(old, dict) and isinstance(new, dict):
            for name in old:
                if name in LEFT_OUT:
                    if name not in new:
                        self.fault(place, f"{join(key, name)} is gone")
                elif name not in new:
                    self.fault(place, f"{join(key, name)} is gone (was {short(old[name])})")
                else:
                    self.values(place, old[name], new[name], join(key, name))
            for name in new:
                if name not in old:
                    self.addition(place, f"{join(key, name)} = {short(new[name], 40)}")
        elif isinstance(old, list) and isinstance(new, list):
            if len(old) != len(new):
                self.fault(place, f"{key} has {len(new)} entries, not {len(old)}")
            for i, (a, b) in enumerate(zip(old, new)):
                self.values(place, a, b, f"{key}[{i}]")
        elif isinstance(old, str) and isinstance(new, str) and not isinstance(old, Number):
            if normal(old) != normal(new):
                self.fault(place, f"{key}: {short(old)} → {short(new)}")
        elif old != new or type(old) is not type(new):
            self.fault(place, f"{key}: {short(old)} → {short(new)}")

    def json(self, place, old, new):
        try:
            self.values(place, parse(old), parse(new))
        except ValueError:
            self.text(place, old, new)

    def jsonl(self, place, old, new):
        old, new = old.splitlines(), new.splitlines()
        if place.endswith("exchanges.jsonl"):  # in the order in which answers came
            old, new = sorted(old), sorted(new)
        if len(old) != len(new):
            self.fault(place, f"{len(new)} lines, not {len(old)}")
        for i, (a, b) in enumerate(zip(old, new), 1):
            if a == b:
                continue
            try:
                self.values(place, parse(a), parse(b), f"line {i}")
            except ValueError:
                self.text(place, a, b)

    def toml(self, place, old, new):
        self.values(place, tomllib.loads(old, parse_float=Number), tomllib.loads(new, parse_float=Number))
        comments = lambda text: "\n".join(line for line in text.splitlines() if line.startswith("#"))
        self.text(place, comments(old), comments(new))

    def csv(self, place, old, new):
        old, new = ([*csv.reader(io.StringIO(text, newline=""))] or [[]] for text in (old, new))
        if len(old) != len(new):
            self.fault(place, f"{len(new) - 1} rows, not {len(old) - 1}")
        for name in new[0]:
            if name not in old[0]:
                self.addition(place, f"column {name}")
        if [n for n in new[0] if n in old[0]] != [n for n in old[0] if n in new[0]]:
            self.fault(place, "columns are in another order")
        for at, name in enumerate(old[0]):
            if name not in new[0]:
                self.fault(place, f"column {name} is gone")
                continue
            if name in LEFT_OUT:
                continue
            there = new[0].index(name)
            for row, (a, b) in enumerate(zip(old[1:], new[1:]), 1):
                a, b = (r[i] if i < len(r) else "" for r, i in ((a, at), (b, there)))
                if a != b and normal(a) != normal(b):
                    self.fault(place, f"column {name}, row {row}: {short(a)} → {short(b)}")

    # ---- text ----

    def text(self, place, old, new):
        """Lines; those that only NEW has are additions."""
        self.sequence(place, normal(old).splitlines(), normal(new).splitlines(), "line")

    def html(self, place, old, new):
        self.sequence(place, nodes(old), nodes(new), "text")

    def svg(self, place, old, new):
        """A figure, element by element."""
        self.text(place, old.replace("><", ">\n<"), new.replace("><", ">\n<"))

    def sequence(self, place, old, new, what):
        if old == new:
            return
        if insertions := inserted(old, new):
            for entry in insertions:
                self.addition(place, f"{what} {short(entry)!r}")
            return
        for tag, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            if tag == "insert":
                for entry in new[c:d]:
                    self.addition(place, f"{what} {short(entry)!r}")
            elif tag != "equal":
                gone, come = old[a:b], new[c:d]
                for i in range(max(len(gone), len(come))):
                    if i >= len(gone):
                        self.addition(place, f"{what} {short(come[i])!r}")
                    elif i >= len(come):
                        self.fault(place, f"{what} is gone: {short(gone[i])!r}")
                    elif gone[i].split() == come[i].split():
                        self.addition(place, f"{what} with other spaces: {short(come[i])!r}")
                    else:
                        self.fault(place, f"{what}: {differing(gone[i], come[i])}")

    # ---- files ----

    def safetensors(self, place, old, new):
        if old == new:
            return
        try:
            (head, a), (there, b) = tensors(old), tensors(new)
        except (ValueError, struct.error, KeyError):
            return self.fault(place, "bytes differ")
        before = len(self.findings)
        for name in head:
            if name not in there:
                self.fault(place, f"tensor {name} is gone")
            elif head[name] != there[name] or a[name] != b[name]:
                self.fault(place, f"tensor {name}: {how_far(head[name], a[name], there[name], b[name])}")
        for name in there:
            if name not in head:
                self.addition(place, f"tensor {name}")
        if len(self.findings) == before:
            self.fault(place, "bytes differ, though all tensors are the same")

    def parquet(self, place):
        """Two files that differ. Only those of runs with the same times can be compared; they have the columns of the
        CSV file of their name."""
        if self.same_times and Path(place).name != "summary.parquet":
            table = place.removesuffix(".parquet") + ".csv"
            found = [finding for finding in self.findings if finding.place.endswith(f"/{table}")]
            if found and all(finding.kind == "addition" for finding in found):
                self.addition(place, "columns, as in the CSV file beside it")
            else:
                self.fault(place, "bytes differ, though it was made of the same runs")

    def file(self, place, old, new, name):
        """Two files of one name; of event files, which have times in their names, all of a folder."""
        if "tfevents" in name:
            return self.text(place, events(old), events(new))
        old, new = old[0].read_bytes(), new[0].read_bytes()
        if old == new:
            return
        before = len(self.findings)
        suffix = Path(name).suffix
        try:
            if suffix == ".safetensors":
                self.safetensors(place, old, new)
            elif suffix == ".png" or suffix == ".gguf":
                self.fault(place, "bytes differ")
            elif suffix == ".parquet":
                self.parquet(place)
            else:
                reader = {".json": self.json, ".jsonl": self.jsonl, ".toml": self.toml, ".csv": self.csv,
                          ".html": self.html, ".svg": self.svg}.get(suffix, self.text)
                reader(place, old.decode("utf-8"), new.decode("utf-8"))
        except (ValueError, csv.Error) as e:  # no UTF-8, TOML or CSV
            self.fault(place, f"bytes differ ({e})")
        found = self.findings[before:]
        if found and all(finding.kind == "addition" for finding in found):
            self.clean_additions.add(place)

    def folders(self, old, new):
        """Every file below two folders."""
        ours, theirs = listing(old), listing(new)
        for place in sorted(ours.keys() | theirs.keys()):
            if place not in theirs:
                self.fault(place, "is gone")
            elif place not in ours:
                self.addition(place, "is a new file")
            else:
                self.file(place, ours[place], theirs[place], ours[place][0].name)
        self.excuse_hashes()

    def excuse_hashes(self):
        """A hash that differs since its file has additions only is an addition itself."""
        names = {Path(place).name for place in self.clean_additions}
        kept = []
        for finding in self.findings:
            is_hash = len(HASH.findall(finding.what)) == 2
            if finding.kind == "fault" and is_hash and any(name in finding.what for name in names):
                finding = Finding("addition", finding.place, f"hash of what has additions: {finding.what}")
            kept.append(finding)
        self.findings = kept

    def commands(self, old, new):
        """What commands said."""
        if len(old) != len(new):
            self.fault("commands", f"{len(new)} commands, not {len(old)}")
        for i, (a, b) in enumerate(zip(old, new), 1):
            place = f"$ {' '.join(a['args'][:3])}… (command {i})"
            if a["args"] != b["args"]:
                self.fault(place, f"called otherwise: {short(' '.join(b['args']))}")
            if a["code"] != b["code"]:
                self.fault(place, f"exit code {b['code']}, not {a['code']}: {short(b['stderr'], 300)}")
                continue
            if a["loose"]:
                continue
            if a["stdout"].startswith("{"):
                self.json(f"{place} stdout", a["stdout"], b["stdout"])
            else:
                self.text(f"{place} stdout", a["stdout"], b["stdout"])
            self.text(f"{place} stderr", a["stderr"], b["stderr"])


def join(key, name):
    return f"{key}.{name}" if key else name


def parse(text):
    return json.loads(text, parse_float=Number, parse_int=Number, parse_constant=Number)


def listing(folder):
    """Files below a folder by name. Event files have times in their names, and all of a folder have one name here."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] in SKIPPED or path.is_dir() or path.is_symlink():
            continue
        found.setdefault(normal(name.as_posix()), []).append(path)
    return found


def inserted(old, new):
    """What NEW has beyond OLD, if all of OLD is in it in order; else None."""
    at, more = 0, []
    for entry in new:
        if at < len(old) and entry == old[at]:
            at += 1
        else:
            more.append(entry)
    return more if at == len(old) else None


def differing(a, b):
    """Two texts from where they begin to differ."""
    at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    begin = max(0, at - 30)
    cut = lambda text: ("…" if begin else "") + short(text[begin:])
    return f"{cut(a)!r} → {cut(b)!r}"


class Nodes(HTMLParser):
    """Text nodes by line, and the attributes that are read or hold numbers."""
    SPOKEN = {"aria-label", "title", "alt", "href", "download", "placeholder"}

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in self.SPOKEN and value:
                self.found += [f"{name}={line}" for line in unquote(value).splitlines()]

    def handle_data(self, data):
        self.found += [text for line in data.splitlines() if (text := " ".join(line.split()))]


def nodes(page):
    parser = Nodes()
    parser.feed(page)
    return normal("\n".join(parser.found)).split("\n")


def tensors(data):
    (length,) = struct.unpack("<Q", data[:8])
    head = json.loads(data[8:8 + length])
    base = 8 + length
    head.pop("__metadata__", None)
    return head, {name: data[base + h["data_offsets"][0]:base + h["data_offsets"][1]] for name, h in head.items()}


def how_far(head, a, there, b):
    if head["shape"] != there["shape"] or head["dtype"] != there["dtype"]:
        return f"{head['dtype']} {head['shape']} → {there['dtype']} {there['shape']}"
    if head["dtype"] != "F32" or len(a) != len(b):
        return "bytes differ"
    a, b = (struct.unpack(f"<{len(x) // 4}f", x) for x in (a, b))
    count = sum(x != y for x, y in zip(a, b))
    return f"{count} of {len(a)} numbers differ, by {max(abs(x - y) for x, y in zip(a, b)):.3g} at most"


def events(paths):
    """The scalars of TensorBoard files, a line each; where a resumed run has a step twice, the later one."""
    scalars = {}
    for data in map(Path.read_bytes, paths):
        at = 0
        while at + 12 <= len(data):
            (length,) = struct.unpack("<Q", data[at:at + 8])
            event = dict(fields(data[at + 12:at + 12 + length]))
            at += 16 + length
            for _, value in fields(event.get(5, b"")):
                entry = dict(fields(value))
                tag = entry[1].decode()
                if tag.rsplit("/", 1)[-1] not in LEFT_OUT:
                    scalars[event.get(2, 0), tag] = struct.unpack("<f", entry[2])[0]
    return "\n".join(f"step {step} {tag} {value!r}" for (step, tag), value in sorted(scalars.items()))


def fields(data):
    """Number and value of each field of a protobuf message."""
    def varint(at):
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 128:
                return value, at

    at = 0
    while at < len(data):
        key, at = varint(at)
        kind = key & 7
        if kind == 0:
            value, at = varint(at)
        else:
            if kind == 2:
                length, at = varint(at)
            else:
                length = {1: 8, 5: 4}[kind]
            value, at = data[at:at + length], at + length
        yield key >> 3, value
