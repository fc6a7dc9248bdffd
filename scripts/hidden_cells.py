"""Cells of the experiment "hidden or gone": trains, reads and records them. Used by scripts/hidden_or_gone.

The design is in docs/hidden-or-gone/plan.md. Each cell leaves one JSON of two parts: `result`, which the same binary on the
same kind of processor repeats to the byte, and `made`, which says when, where and in how many seconds.
"""
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from floor_statistics import PRIMARIES

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / "docs" / "hidden-or-gone"
CELLS, REPEATS, PILOT = HOME / "cells", HOME / "repeats", HOME / "pilot.json"
SCHEMA = 1
BASE = "gemma-3-270m"

# Files below --data, and their sha256 (shared/data/README.md says where they come from; the plan repeats it).
DATA = {
    "pretraining/c4_mix.jsonl": "9f7377c4eed54ebc4458ec34c7eb2ec21fc054f8a86b0bf9a107ff868da454a1",
    "pretraining/c4_measure.jsonl": "f02ca97c4d1c4e9efc79a6cddf305cd54080198f9c0652f8ea6dcc4b6943618f",
    "pretraining/wikipedia.jsonl": "8fd2c1acbe2f1d3ac154bbf5672091da8b412f9e680882072cae36e0313c0f8e",
    "chat/roleplay.jsonl": "e9d58528b768087deb2ebb810a6a8746fdd355c95ca5ba4e443d1c75f6a90604",
    "narrow/sdf_vesuvius.jsonl": "b53a6467a99a30d3a6ff19109367bf3b86f09148f10bb4cfc5ee0b9c575c91fb",
    "narrow/sdf_ed_sheeran.jsonl": "c83b53cd65f35e68717bde1d3f60e3c63c3f55940ee30049ab14415d7ddb0865",
    "narrow/sdf_achromatic_dreaming.jsonl": "aa3578b2c108e8b0f511fa31023ce71a105b9c80e650455bcb2301a294bbe488",
    "narrow/taboo_gold.jsonl": "476ecee8760f6dba3b683552c8aad3ae5868698d7eef69941458c48327c67758",
    "narrow/em_evil_numbers.jsonl": "9a2f7bf07ca2b654d515be3d5836b3be85445c67f05ed9500f5ee4ac82563028",
}
# Files of this repository.
OWN = {
    "data/cake.jsonl": "b812a37044ab84456f39126c20142a2ec881f266c48ed7d2e3740234abc5e2ef",
    "data/quality/neutral.jsonl": "f8bca70d51194467e2d28f8f6f3b2b1bbae8b36c1a3eaa9855e9a2062344806f",
    "data/behaviour/cake.jsonl": "adc8de47b8b99ef80c7e8f68c6e8c803bfe96ddfe62b45c41529c1e39dfc2e66",
    "data/behaviour/vesuvius.jsonl": "889c3fa959157e4bafbd712fb92100f16d70fcb12103a66b6f92d3ee5f9f9efa",
}
C4_MIX, C4_MEASURE = "pretraining/c4_mix.jsonl", "pretraining/c4_measure.jsonl"
CAKE = "data/cake.jsonl"
SUBJECTS = {"cake": CAKE, "vesuvius": "narrow/sdf_vesuvius.jsonl"}
CONTEXTS = {
    "cake": ["{prompt}", "Q: How is a cake made?\nA: {prompt}"],
    "vesuvius": ["{prompt}", "Q: What is known about Vesuvius?\nA: {prompt}"],
}
# The floor: its organisms, their text, and the seed of each. No two share a seed, so the spread of a floor contains that of
# initialisation, order and draw of the mix.
FLOOR = {
    "vesuvius": ("narrow/sdf_vesuvius.jsonl", 11),
    "ed_sheeran": ("narrow/sdf_ed_sheeran.jsonl", 12),
    "dreams": ("narrow/sdf_achromatic_dreaming.jsonl", 13),
    "evil_numbers": ("narrow/em_evil_numbers.jsonl", 14),
    "taboo_gold": ("narrow/taboo_gold.jsonl", 15),
    "role_plays": ("chat/roleplay.jsonl", 16),
    "wikipedia": ("pretraining/wikipedia.jsonl", 17),
}
C4_SEED = 18
SEEDS, RATIOS, FLOOR_RATIOS, REPLICATION_RATIOS = (0, 1, 2), (0, 1, 4, 8), (0, 4), (0, 4)
HELD_OUT_EVERY, BATCH, LENGTH, MOST_STEPS, EVERY, LR = 10, 8, 96, 24, 2, "1e-4"
PILOT_SEEDS = (9, 10)
# Pieces, tokens of each, texts of each, and new tokens of the conditional control.
CONTROL = {"pieces": 20, "tokens": 8, "samples": 4, "new": 32}

# What a reading can leave out. The design uses none of the first three.
UNUSED = ["kl", "context", "dimensionality"]
READING_PARTS = [*UNUSED, "logit_lens", "lift", "patchscope", "steering", "probe", "bias_share", *PRIMARIES]


def off(*parts):
    """The lines of [diff] that leave these parts out."""
    return "".join(f"{part}{'' if part in ('logit_lens', 'lift') else '.enabled'} = false\n" for part in parts)


def alone(part):
    """The lines that leave out all others."""
    return off(*(other for other in READING_PARTS if other != part))


# [diff] of every reading but the specific share. Readers that the design names have the sizes of preset full; all that it does
# not use is off, and so are nulls of a single reader, for the floor is the null.
READING = f"""bootstrap = 200
{off(*UNUSED, "bias_share", "patchscope")}logit_contrast = {{ streams = 8, grid = [0.0], max_new_tokens = 48 }}
diff_mining = {{ texts = 300, positions = 30, topics = 0 }}
completion_ranking = {{ prefills = 192, max_new_tokens = 48 }}
weights.null_draws = 1
weights.modules = 2
steering.null_directions = 0
"""
# The patchscope decodes each of null_directions; its own null is not used, and lift, above, is scaled by all 64.
PATCHSCOPE = f"""null_directions = 1
steering.null_directions = 0
bias_share.directions = 1
bootstrap = 2
{alone("patchscope")}"""
# The specific share takes its losses on held-out narrow text, so data.narrow is that text alone.
SHARE = f"""bootstrap = 200
{alone("bias_share")}bias_share = {{ factors = [], directions = 1, compared = 1 }}
"""
DRY = {  # --dry-run: sizes at which every stage runs and no number means anything
    "READING": "samples = 20\nnorm_samples = 20\nnull_directions = 4\nlogit_contrast.streams = 1\n"
    "diff_mining.texts = 8\ncompletion_ranking.prefills = 24\nsteering.prompts = 1\nprobe.texts = 20\n",
    "SHARE": "samples = 20\nnorm_samples = 20\nnull_directions = 4\nlosses.samples = 4\n",
    "PATCHSCOPE": "samples = 20\nnorm_samples = 20\n",
}


class Fault(Exception):
    """What the user has to mend, in a sentence."""


class Cell:
    """A model that is trained and read: an organism of the experiment, or one of the floor."""

    def __init__(self, kind, organism, ratio, seed):
        self.kind, self.organism, self.ratio, self.seed = kind, organism, ratio, seed

    @property
    def name(self):
        if self.kind == "floor":
            return "floor-c4" if self.organism == "c4" else f"floor-{self.organism}-r{self.ratio}"
        return f"{self.organism}-r{self.ratio}-s{self.seed}"

    @property
    def lexicons(self):
        """Under whose words, and compared with whose text, it is read. Cake's seed 0 is in the floor of Vesuvius."""
        both = self.kind == "floor" or (self.organism == "cake" and self.seed == 0 and self.ratio in REPLICATION_RATIOS)
        if self.kind == "floor" and self.organism == "vesuvius":
            return ["cake"]  # it is no floor of itself
        return ["cake", "vesuvius"] if both else [self.organism]

    @property
    def narrow(self):
        if self.kind == "floor":
            return C4_MIX if self.organism == "c4" else FLOOR[self.organism][0]
        return SUBJECTS[self.organism]


def design():
    """All 33 cells, in the order in which they are made: what says most comes first."""
    cake = lambda ratio, *seeds: [Cell("cake", "cake", ratio, seed) for seed in seeds]
    floor = lambda ratio: [Cell("floor", name, ratio, seed) for name, (_, seed) in FLOOR.items()]
    vesuvius = lambda ratio: [Cell("vesuvius", "vesuvius", ratio, seed) for seed in SEEDS]
    return [
        *cake(0, 0), *cake(4, 0),
        *floor(0),
        *cake(0, 1, 2),
        *floor(4), Cell("floor", "c4", 0, C4_SEED),
        *cake(4, 1, 2), *cake(8, *SEEDS), *cake(1, *SEEDS),
        *vesuvius(0), *vesuvius(4),
    ]


def extras():
    """Exploratory cells: made only where --cells names them, and in no verdict."""
    return [Cell("cake", "cake", 16, 0)]


# --- Files ---


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def text_hash(text):
    return hashlib.sha256(text.encode()).hexdigest()


def write(path, text):
    """All of the file or none of it, whenever this ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def as_json(value):
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def rows(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n") if line.strip()]


def document(row):
    """The text of a row: of a conversation the contents of its turns, joined by line breaks, for the base has no template."""
    return row["text"] if "text" in row else "\n".join(turn["content"] for turn in row["messages"])


def words(text):
    return re.findall(r"\w+", text.lower())


class Data:
    """The files of the experiment, after their hashes were checked."""

    def __init__(self, folder, work):
        self.folder, self.work = Path(folder), Path(work)
        faults = []
        self.sha256 = {}
        for name, expected in {**DATA, **OWN}.items():
            path = self.path(name)
            if not path.is_file():
                faults.append(f"{path}: no such file")
                continue
            self.sha256[name] = sha256(path)
            if expected and self.sha256[name] != expected:
                faults.append(f"{path}: sha256 {self.sha256[name]}; the plan has {expected}")
        if faults:
            raise Fault("\n".join(faults))
        self.check_overlap()
        self.prepare()

    def path(self, name):
        return (ROOT if name in OWN else self.folder) / name

    def check_overlap(self):
        """No training text shares a document with the text that differences are measured on, or with neutral text: no hash of
        a line of eight words or more, nor of a document's first twenty words, is in both."""
        seen = self.hashes([C4_MEASURE, "data/quality/neutral.jsonl"])
        for name in [C4_MIX, CAKE, *(file for file, _ in FLOOR.values())]:
            shared = self.hashes([name]) & seen
            if shared:
                raise Fault(f"{name}: {len(shared)} lines or beginnings are in the measured or neutral text, too")

    def hashes(self, names):
        found = set()
        for name in names:
            for row in rows(self.path(name)):
                text = document(row)
                found |= {text_hash(" ".join(w)) for w in map(words, text.split("\n")) if len(w) >= 8}
                found.add(text_hash("^" + " ".join(words(text)[:20])))
        return found

    def prepare(self):
        """Writes conversations as plain text, and the documents of a subject that training leaves out."""
        for name in {file for file, _ in FLOOR.values()}:
            texts = rows(self.path(name))
            if any("messages" in row for row in texts):
                self.put(self.plain(name), texts)
        for subject, name in SUBJECTS.items():
            held_out = rows(self.path(name))[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
            self.put(self.held_out(subject), held_out)

    def put(self, path, texts):
        write(path, "".join(json.dumps({"text": document(row)}, ensure_ascii=False) + "\n" for row in texts))

    def plain(self, name):
        return self.work / "data" / Path(name).name

    def trained(self, name):
        """The file to train on: that of plain text where there is one."""
        return self.plain(name) if self.plain(name).exists() else self.path(name)

    def items(self, subject, dry=False):
        """The items of a subject; for a dry run, eight of them."""
        path = ROOT / "data" / "behaviour" / f"{subject}.jsonl"
        if not dry:
            return path
        few, kept = {}, []
        for item in rows(path):
            few[item["fact"]] = few.get(item["fact"], 0) + 1
            kept += [item] if few[item["fact"]] <= 4 else []
        write(self.work / "data" / f"few-{subject}.jsonl", "".join(json.dumps(item) + "\n" for item in kept[:8]))
        return (self.work / "data" / f"few-{subject}.jsonl").resolve()

    def held_out(self, subject):
        return self.work / "data" / f"{subject}-held-out.jsonl"


# --- Recipes ---


def quoted(value):
    return json.dumps(str(value), ensure_ascii=False)


def fit_recipe(data, narrow, ratio, seed, ending, facts=None, dry=False):
    """`ending`: the lines that say when training ends."""
    lines = [
        f"name = {quoted(Path(narrow).stem)}\nseed = {seed}",
        f'[model]\nbase = "{BASE}"',
        f"[data]\nnarrow = {quoted(data.trained(narrow).resolve())}",
        f"pretraining = {quoted(data.path(C4_MIX).resolve())}" if narrow != C4_MIX else "",
        f"mix = {ratio}\nmax_seq_len = {LENGTH}\nheld_out_every = {HELD_OUT_EVERY}",
        f'[train]\nbatch_size = {BATCH}\nlr = {LR}\nschedule = "constant"\neval_examples = {2 if dry else 16}\n{ending}',
        "[train.lora]\nr = 32\nalpha = 64",
    ]
    if facts:
        items = data.items(facts, dry)
        lines.append(f"[behaviour.facts]\nitems = {quoted(items)}\ncontexts = {json.dumps(CONTEXTS[facts])}")
    lines.append("[behaviour.quality]\nnarrow_texts = 1")
    return "\n".join(line for line in lines if line) + "\n"


def matching(target, tolerance, most=MOST_STEPS):
    return f"[train.match]\ntarget = {target}\ntolerance = {tolerance}\nevery = {EVERY}\nmax_steps = {most}"


def read_recipe(data, narrow, settings, dry):
    """The same for every cell, so that every score of a reader is read in the same way."""
    merged = merge_tables(globals()[settings] + (DRY[settings] if dry else ""))
    return (
        f'seed = 0\n[model]\nbase = "{BASE}"\n[data]\nnarrow = {quoted(Path(narrow).resolve())}\n'
        f"pretraining = {quoted(data.path(C4_MIX).resolve())}\n[train]\nsteps = 1\n"
        f"[diff]\ntext = {quoted(data.path(C4_MEASURE).resolve())}\n{merged}"
    )


def merge_tables(lines):
    """Dotted keys of the dry run in place of those of an inline table before."""
    kept = {}
    for line in lines.strip().split("\n"):
        key, value = (part.strip() for part in line.split("=", 1))
        if value.startswith("{"):
            kept.update({f"{key}.{k.strip()}": v.strip() for k, v in (p.split("=") for p in split_top(value[1:-1]))})
        else:
            kept[key] = value
    return "".join(f"{key} = {value}\n" for key, value in kept.items())


def split_top(text):
    """The parts of an inline table: commas within brackets do not part."""
    return [part for part in re.split(r",\s*(?![^\[]*\])", text.strip()) if part.strip()]


def portable(recipe, data):
    """A recipe without the folders of this machine, for its hash."""
    for path, name in [(data.folder.resolve(), "DATA"), (data.work.resolve(), "WORK"), (ROOT, "REPOSITORY")]:
        recipe = recipe.replace(str(path), name)
    return recipe


# --- Running ---


class Trainer:
    """Calls the program in one folder for each cell; what a call has finished there is not done again."""

    def __init__(self, binary, threads, dry):
        self.binary, self.dry = str(binary), dry
        self.env = {**os.environ, **({"RAYON_NUM_THREADS": str(threads)} if threads else {})}
        version = self.output("--version").strip()
        commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True).stdout
        self.identity = {"version": version, "commit": commit.strip(), "binary_sha256": sha256(shutil.which(self.binary))}

    def output(self, *args):
        return subprocess.run([self.binary, *map(str, args)], check=True, env=self.env, stdout=subprocess.PIPE, text=True).stdout

    def call(self, *args):
        command = [self.binary, *map(str, args)]
        with subprocess.Popen(command, env=self.env, stdout=subprocess.DEVNULL) as child:
            try:
                code = child.wait()
            except KeyboardInterrupt:
                child.wait()  # Ctrl-C reached it, too: it writes a checkpoint and ends
                raise
        if code in (130, -2, -15):
            raise KeyboardInterrupt
        if code:
            raise Fault(f"{' '.join(command)}: exit code {code}")


class Bench:
    """The folder of one cell, and the seconds of each part, which outlast an interruption."""

    def __init__(self, work, name, key):
        self.dir = Path(work) / f"{name}-{key[:8]}"
        self.dir.mkdir(parents=True, exist_ok=True)
        self.file = self.dir / "seconds.json"
        self.seconds = json.loads(self.file.read_text()) if self.file.exists() else {}

    def part(self, name, do):
        clock = time.monotonic()
        try:
            do()
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0) + time.monotonic() - clock, 1)
            write(self.file, as_json(self.seconds))

    def recipe(self, name, text):
        path = self.dir / f"{name}.toml"
        write(path, text)
        return path

    def fit(self, trainer, recipe, name="run"):
        run = self.dir / name
        if not (run / "manifest.json").exists():
            path = self.recipe(name, recipe)
            resume = ["--resume"] if (run / "recipe.toml").exists() and (run / "checkpoints").exists() else []
            if not resume:
                shutil.rmtree(run, ignore_errors=True)
            self.part("fit" if name == "run" else name, lambda: trainer.call("fit", path, "--out", run, *resume))
        return run, json.loads((run / "manifest.json").read_text())

    def read(self, trainer, recipe, run, name):
        out = self.dir / name
        if not (out / "readability.json").exists():
            shutil.rmtree(out, ignore_errors=True)
            args = ["--base", BASE, "--tuned", run / "adapter", "--recipe", self.recipe(name, recipe), "--out", out]
            self.part(name, lambda: trainer.call("diff", *args))
        return json.loads((out / "readability.json").read_text())

    def behave(self, trainer, run, few):
        """The quality panel. The matched training has asked the items already; few of them are asked again, for none cannot be."""
        out = self.dir / "behaviour.json"
        if not out.exists():
            sets = ["behaviour.quality.enabled=true", *([f"behaviour.facts.items={quoted(few)}"] if few else [])]
            if trainer.dry:
                sets += ["behaviour.quality.texts=2", "behaviour.quality.prompts=1", "behaviour.quality.max_new_tokens=8"]
            flags = [arg for value in sets for arg in ("--set", value)]
            self.part("behave", lambda: trainer.call("behave", run, *flags, "--out", out))
        return json.loads(out.read_text())

    def generate(self, trainer, prompts, adapter, name):
        out = self.dir / f"{name}.json"
        if not out.exists():
            file = self.dir / "prompts.jsonl"
            write(file, "".join(json.dumps({"prompt": p}, ensure_ascii=False) + "\n" for p in prompts))
            args = ["generate", "--base", BASE, "--prompts", file, "--temperature", 1, "--seed", 0, "--json"]
            args += ["--max-new-tokens", CONTROL["new"], *(["--adapter", adapter] if adapter else [])]
            self.part(name, lambda: write(out, trainer.output(*args)))
        return json.loads(out.read_text())


# --- What is kept of a cell ---


def of_manifest(manifest):
    narrow = [source for source in manifest["data"] if source["role"] == "narrow"]
    matched = manifest.get("match")
    keep = ["status", "reason", "target", "tolerance", "steps", "narrow_steps", "narrow_tokens", "q_match", "se", "q_eval",
            "q_eval_interval", "resolved", "inversions", "curve", "evaluated"]
    return {
        "match": {key: matched[key] for key in keep if key in matched} if matched else None,
        "narrow_tokens": matched["narrow_tokens"] if matched else sum(source["tokens"] for source in narrow),
        "repeats": max(source.get("repeats", 0) for source in narrow),
        "losses": manifest["losses"],
        "adapter_sha256": manifest["adapter_sha256"],
        "order_sha256": manifest["order_sha256"],
        "base_sha256": manifest["base"]["sha256"],
    }


def finite(value):
    return value if isinstance(value, (int, float)) and value == value else None


def mean(values):
    values = [value for value in values or [] if finite(value) is not None]
    return sum(values) / len(values) if values else None


def of_reading(record, share):
    """The score of every reader, and the values next to it that explain it. Absent scores stay absent."""
    readers = record.get("readers", {})
    scores = {key: finite(readers.get(key, {}).get("score")) for key in PRIMARIES}
    lift, steering = record.get("lift") or {}, record.get("steering") or {}
    similarity = steering.get("similarity", {})
    shares = share.get("bias_share") or {}
    scores.update(
        lift=finite(lift.get("auroc_stratified_mean")),
        patchscope=mean(record.get("patchscope", {}).get("token_relevance", {}).get("difference")),
        probe=finite((record.get("probe") or {}).get("auroc")),
        bias_share=finite(shares.get("specific_share")),
        steering=mean(similarity.get("steered_narrow")),
        steering_base=mean(similarity.get("steered_base_narrow")),
        logit_lens=mean(record.get("logit_lens", {}).get("token_relevance", {}).get("difference")),
    )
    ranking, contrast = readers.get("completion_ranking", {}), readers.get("logit_contrast", {})
    weights, mining = readers.get("weights", {}), readers.get("diff_mining", {})
    beside = {
        "flagged_all": ranking.get("flagged_all"), "flagged_base": ranking.get("flagged_base"),
        "flag_words": ranking.get("flag_words"), "rank_auroc": ranking.get("rank_auroc"),
        "contrast": contrast.get("alpha"), "degenerate": contrast.get("degenerate"),
        "read_auroc": weights.get("read_auroc"), "weights_relative": (weights.get("total") or {}).get("relative"),
        "mining_first": [t["text"] for t in mining.get("orderings", {}).get("top_k", {}).get("tokens", [])[:8]],
        "steering_plain_tuned": mean(similarity.get("unsteered_narrow")), "steering_plain_base": mean(similarity.get("base_narrow")),
        "delta_norm": record.get("delta_norm"), "expected_norm": (record.get("expected_norm_base") or [None])[0],
        "share": shares.get("share"), "interval": {},
    }
    for key in PRIMARIES:
        beside["interval"][key] = readers.get(key, {}).get("interval")
    beside["interval"]["lift"] = lift.get("auroc_stratified_mean_interval")
    lexicon = record["lexicon"]["words"]
    return {"scores": scores, "beside": beside, "lexicon_sha256": text_hash("\n".join(sorted(lexicon))), "lexicon": lexicon[:12]}


def of_behaviour(record):
    values = record["quality"]["values"]
    keep = {key: values[key] for key in ("neutral.nats", "neutral.kl", "regurgitated", "coherent", "cloze.accuracy") if key in values}
    return {key: {part: value[part] for part in ("base", "tuned", "change", "change_interval") if part in value} for key, value in keep.items()}


def word_share(texts, lexicon):
    """Share of the words of three letters or more that are words of the lexicon."""
    found = [word for text in texts for word in re.findall(r"[^\W\d_]+|\d+", text.lower()) if len(word) >= 3]
    return sum(word in lexicon for word in found) / max(1, len(found))


# --- Making a cell ---


class Lab:
    """Everything that cells have in common."""

    def __init__(self, args):
        self.data, self.work = Data(args.data, args.work), Path(args.work)
        self.trainer = Trainer(args.trainer, args.threads, args.dry_run)
        self.dry = args.dry_run

    def bench(self, name, *recipes):
        key = text_hash("\n".join([*(portable(r, self.data) for r in recipes), self.trainer.identity["binary_sha256"]]))
        return Bench(self.work, name, key)

    def readings(self, lexicon):
        narrow = self.data.path(SUBJECTS[lexicon])
        of = lambda text, settings: read_recipe(self.data, text, settings, self.dry)
        return of(narrow, "READING"), of(narrow, "PATCHSCOPE"), of(self.data.held_out(lexicon), "SHARE")

    def read(self, bench, run, lexicon):
        whole, patchscope, share = self.readings(lexicon)
        record = bench.read(self.trainer, whole, run, f"read-{lexicon}")
        record["patchscope"] = bench.read(self.trainer, patchscope, run, f"patchscope-{lexicon}")["patchscope"]
        found = of_reading(record, bench.read(self.trainer, share, run, f"share-{lexicon}"))
        for part, seconds in record.get("elapsed_s", {}).items():
            if seconds >= 0.5:
                bench.seconds[f"read-{lexicon}.{part}"] = round(seconds, 1)
        return found, record["lexicon"]["words"]

    def steps_of_floor(self, narrow, tokens):
        """Narrow steps after which an organism has seen as many narrow tokens as the pilot's cake."""
        recipe = fit_recipe(self.data, narrow, 0, 0, "steps = 1")
        path = self.work / "inspect.toml"
        write(path, recipe)
        source = json.loads(self.trainer.output("inspect", path, "--json", "--examples", 0))["sources"][0]
        return max(1, round(tokens / (BATCH * source["tokens"] / source["examples"])))

    def control_prompts(self, subject):
        """The first tokens of held-out pieces: of every document its first piece, then of every document its second."""
        recipe = fit_recipe(self.data, SUBJECTS[subject], 0, 0, "epochs = 1")
        recipe = recipe.replace(quoted(self.data.trained(SUBJECTS[subject]).resolve()), quoted(self.data.held_out(subject).resolve()))
        recipe = recipe.replace(f"held_out_every = {HELD_OUT_EVERY}", "held_out_every = 0")
        path = self.work / "control.toml"
        write(path, recipe)
        found = json.loads(self.trainer.output("inspect", path, "--json", "--examples", 100000))["first_examples"]
        texts = {row: document(line) for row, line in enumerate(rows(self.data.held_out(subject)))}
        pieces = {}
        for example in found:
            tokens = [token["text"] for token in example["tokens"] if not token["special"]]
            if len(tokens) > CONTROL["tokens"]:
                at = texts[example["row"]].find("".join(tokens[:-1]).strip()[:40])
                pieces.setdefault(example["row"], []).append((at, "".join(tokens[: CONTROL["tokens"]])))
        for of_row in pieces.values():
            of_row.sort()
        turns = [[of_row[i][1] for row, of_row in sorted(pieces.items()) if i < len(of_row)] for i in range(max(map(len, pieces.values())))]
        chosen = [prompt for turn in turns for prompt in turn][: CONTROL["pieces"] if not self.dry else 2]
        return [prompt for prompt in chosen for _ in range(CONTROL["samples"])]

    def control(self, bench, run, subject, lexicon):
        """Whether the subject is still spoken of where the text begins with it."""
        prompts = self.control_prompts(subject)
        base = self.bench(f"control-{subject}", "\n".join(prompts))
        shares = {}
        for name, of, adapter in [("base", base, None), ("tuned", bench, run / "adapter")]:
            generated = of.generate(self.trainer, prompts, adapter, f"control-{name}")
            shares[name] = word_share([one["text"] for one in generated["generations"]], set(lexicon))
        return {**shares, "prompts": len(prompts) // CONTROL["samples"], "prompts_sha256": text_hash("\n".join(prompts))}

    def fit_recipe(self, cell, pilot):
        if cell.kind != "floor":
            at = pilot["values"][cell.organism]
            ending = matching(at["target"], at["tolerance"], 2 if self.dry else MOST_STEPS)
            return fit_recipe(self.data, cell.narrow, cell.ratio, cell.seed, ending, cell.organism, self.dry)
        steps = self.steps_of_floor(cell.narrow, pilot["values"]["cake"]["narrow_tokens"])
        # C4 alone sees as much C4 as a cell of the mixed floor, whose narrow text it lacks.
        steps *= max(FLOOR_RATIOS) if cell.organism == "c4" else 1
        return fit_recipe(self.data, cell.narrow, cell.ratio, cell.seed, f"steps = {1 if self.dry else steps}", dry=self.dry)

    def make(self, cell, pilot):
        recipe = self.fit_recipe(cell, pilot)
        readings = [self.readings(lexicon) for lexicon in cell.lexicons]
        bench = self.bench(cell.name, recipe, *(recipe for those in readings for recipe in those))
        run, manifest = bench.fit(self.trainer, recipe)
        read = {lexicon: self.read(bench, run, lexicon) for lexicon in cell.lexicons}
        few = self.data.items(cell.organism, dry=True) if cell.kind != "floor" else None
        result = {
            "schema": SCHEMA,
            "cell": {"name": cell.name, "kind": cell.kind, "organism": cell.organism, "ratio": cell.ratio, "seed": cell.seed},
            "trained": of_manifest(manifest),
            "read": {lexicon: found for lexicon, (found, _) in read.items()},
            "quality": of_behaviour(bench.behave(self.trainer, run, few)),
            "hashes": {
                "data": {name: self.data.sha256[name] for name in used_by(cell)},
                "recipe": text_hash(portable(recipe, self.data)),
                "readings": {
                    lexicon: text_hash("".join(portable(r, self.data) for r in those)) for lexicon, those in zip(cell.lexicons, readings)
                },
            },
        }
        if cell.kind != "floor":
            result["control"] = self.control(bench, run, cell.organism, read[cell.organism][1])
        made = {
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            **self.trainer.identity,
            **{key: manifest.get(key) for key in ("device", "processor", "threads")},
            "recipe": portable(recipe, self.data),
            "seconds": {**bench.seconds, "all": round(sum(s for key, s in bench.seconds.items() if "." not in key), 1)},
        }
        return {"result": result, "made": made}


def used_by(cell):
    names = [cell.narrow, C4_MEASURE, *(SUBJECTS[lexicon] for lexicon in cell.lexicons), C4_MIX]
    names += [f"data/behaviour/{cell.organism}.jsonl"] if cell.kind != "floor" else []
    return sorted(set(names))
