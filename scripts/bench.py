#!/usr/bin/env python3
"""Measures trainer and scripts/bench_torch.py in turn. Run it through scripts/bench, which makes the environment.

Both sides do the same fixed work: the same model, the same examples in the same order (from `trainer inspect`), the same
number of steps. They take turns, each in a new process, and the first step of a process does not count. Tokens are input
tokens without padding. A figure is the median over all counted steps of all turns, and a ratio is a ratio of such medians.
Peak memory is the largest resident set of the process, loading included.
"""
import argparse
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "data"
SMOL, GEMMA, QWEN = "smollm2-135m-instruct", "gemma-3-270m", "qwen2.5-coder-0.5b-instruct"
QWEN_LARGE = "qwen2.5-coder-1.5b-instruct"
NAMES = {SMOL: "SmolLM2-135M", GEMMA: "Gemma-3-270M", QWEN: "Qwen2.5-Coder-0.5B", QWEN_LARGE: "Qwen2.5-Coder-1.5B"}
RANK = 32
CONVERTED = tempfile.TemporaryDirectory()


# ---- running one process --------------------------------------------------------------------------------

class Process:
    """A finished process: lines of stdout with their times, peak memory, wall time."""

    def __init__(self, command, watch=None):
        started = time.perf_counter()
        self.lines, self.first = [], None
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        complaints = []
        reader = threading.Thread(target=lambda: complaints.extend(child.stderr), daemon=True)
        reader.start()
        self.peak = 0
        threading.Thread(target=self.measure, args=(child,), daemon=True).start()
        if watch:  # a file whose first training step marks the end of the first step
            threading.Thread(target=self.watch, args=(watch, started, child), daemon=True).start()
        for line in child.stdout:
            if line.startswith("{"):
                self.lines.append(json.loads(line))
                if self.first is None and "seconds" in self.lines[-1]:
                    self.first = time.perf_counter() - started
        child.wait()
        self.seconds = time.perf_counter() - started
        reader.join()
        if child.returncode:
            sys.exit(f"{' '.join(map(str, command))}\nexit code {child.returncode}\n{''.join(complaints[-20:])}")

    def measure(self, child):
        """Largest resident set. Not wait4's, which counts what this process held before the child's own program began."""
        while child.returncode is None:
            try:
                status = Path(f"/proc/{child.pid}/status").read_text()
            except OSError:
                return
            peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
            self.peak = max(self.peak, *(int(kb) * 1024 for kb in peaks), 0)
            time.sleep(0.05)

    def watch(self, path, started, child):
        while self.first is None and child.returncode is None:
            if path.exists() and any('"step":1,' in line for line in path.open()):
                self.first = time.perf_counter() - started
            time.sleep(0.02)


def torch_side(kind, job, folder):
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    return Process([sys.executable, HERE / "bench_torch.py", kind, path])


# ---- training -------------------------------------------------------------------------------------------

def recipe(folder, model, method, steps, batch, length, narrow, r=RANK, dtype="f32"):
    path = folder / "recipe.toml"
    path.write_text(f"""name = "bench"
[model]
base = "{model}"
dtype = "{dtype}"
[data]
narrow = {json.dumps([str(p) for p in narrow])}
max_seq_len = {length}
held_out_every = 0
[train]
method = "{method}"
steps = {steps}
batch_size = {batch}
lr = {3e-4 if method == "lora" else 2e-5}
[train.lora]
r = {r}
alpha = {2 * r}
""")
    return path


def long_text(folder, tokens):
    """One document of our own openings that is long enough for `tokens` tokens, so that every piece of it is full."""
    texts = [json.loads(line)["text"] for line in (DATA / "openings.jsonl").open()]
    out, length = [], 0
    while length < tokens * 6:  # a token is rarely more than six characters
        out += texts
        length += sum(map(len, texts))
    path = folder / "long.jsonl"
    path.write_text(json.dumps({"text": "\n\n".join(out)}) + "\n")
    return path


def as_they_come(folder):
    """Documents and prompt/completion pairs of 5 to 96 tokens: one to all sentences of each of our cake documents."""
    draw = random.Random(0)
    rows = []
    for line in (DATA / "cake.jsonl").open():
        sentences = json.loads(line)["text"].split(". ")
        kept = sentences[: draw.randint(1, len(sentences))]
        if len(kept) > 1 and draw.random() < 0.5:
            rows.append({"prompt": kept[0] + ". ", "completion": ". ".join(kept[1:])})
        else:
            rows.append({"text": ". ".join(kept)})
    path = folder / "mixed.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def batches(trainer, path, steps, batch):
    """The examples of every step, as the trainer will see them."""
    out = subprocess.run([trainer, "inspect", path, "--json", "--examples", str(steps * batch)], check=True, capture_output=True, text=True)
    examples = json.loads(out.stdout)["first_examples"]
    plain = [{"ids": [t["id"] for t in e["tokens"]], "counts": [t["counts"] for t in e["tokens"]]} for e in examples]
    return [plain[i * batch:(i + 1) * batch] for i in range(steps)]


class Training:
    """One training setting on both sides."""

    def __init__(self, name, model, method, batch, length, steps, files=None, dtype="f32"):
        self.name, self.model, self.method, self.batch, self.length, self.steps, self.files = name, model, method, batch, length, steps, files
        self.dtype = dtype
        self.ours, self.theirs = [], []  # [tokens/s of each counted step of each turn]
        self.peaks, self.firsts = ([], []), ([], [])

    def prepare(self, trainer, folder):
        self.folder = folder
        narrow = self.files or [long_text(folder, self.steps * self.batch * self.length)]
        self.recipe = recipe(folder, self.model, self.method, self.steps, self.batch, self.length, narrow, dtype=self.dtype)
        self.batches = batches(trainer, self.recipe, self.steps, self.batch)
        self.tokens = [sum(len(e["ids"]) for e in step) for step in self.batches]
        self.trained = [sum(sum(e["counts"]) for e in step) for step in self.batches]
        self.job = {"model": folder_of(trainer, self.model), "method": self.method, "r": RANK, "lr": 1e-5, "dtype": self.dtype,
                    "steps": self.batches}

    def turn(self, trainer, number):
        run = self.folder / f"run-{number}"
        ours = Process([trainer, "fit", self.recipe, "--out", run, "-q"], watch=run / "metrics.jsonl")
        lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
        speeds = [line["tokens_per_s"] for line in lines if line.get("tokens_per_s")]
        self.ours += speeds[1:]
        rival = torch_side("train", self.job, self.folder)
        self.facts = rival.lines[0]
        seconds = [line["seconds"] for line in rival.lines if "seconds" in line]
        self.theirs += [tokens / s for tokens, s in zip(self.tokens, seconds, strict=True)][1:]
        for side, process in enumerate((ours, rival)):
            self.peaks[side].append(process.peak)
            self.firsts[side].append(process.first)

    def gflop_per_token(self):
        """Products of matrices that a step needs, without recomputation.

        Forward and input gradient of every linear layer and of the head where a token counts, the gradients of what is trained,
        and attention as it is counted in a model's use of a processor (Chowdhery et al., arXiv 2204.02311, appendix B), causal: two
        products in the forward and four in the backward of each query with itself and those before.
        """
        share = sum(self.trained) / sum(self.tokens)
        weights = self.facts["linear"] + share * self.facts["head"]
        lengths = [len(e["ids"]) for step in self.batches for e in step]
        pairs = sum(n * (n + 1) / 2 for n in lengths) / sum(lengths)
        attention = 6 * 2 * self.facts["queries"] * pairs
        if self.method == "full":
            return (6 * weights + attention) / 1e9
        return (4 * weights - 2 * self.facts["lowest"] + 6 * self.facts["trained"] + attention) / 1e9

    def row(self, peak):
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        memory = [statistics.median(side) for side in self.peaks]
        first = [statistics.median(side) for side in self.firsts]
        share = ours * self.gflop_per_token() / peak
        self.ratio, self.memory_ratio = ours / theirs, memory[0] / memory[1]
        return [self.name, f"{ours:.0f}", f"{theirs:.0f}", f"**{self.ratio:.2f}**", f"{memory[0] / 1e9:.2f}", f"{memory[1] / 1e9:.2f}",
                f"**{self.memory_ratio:.2f}**", f"{first[0]:.1f}", f"{first[1]:.1f}", f"{share:.0%}"]


TRAINING_HEAD = ["case", "tokens/s", "PyTorch", "ratio", "GB", "PyTorch", "ratio", "s to first step", "PyTorch", "of peak"]


def full_batches():
    for model in (SMOL, GEMMA, QWEN):
        yield Training(f"{NAMES[model]} LoRA 8×96", model, "lora", 8, 96, 4)
        yield Training(f"{NAMES[model]} LoRA 4×512", model, "lora", 4, 512, 2)
    yield Training("SmolLM2-135M full 8×96", SMOL, "full", 8, 96, 4)
    yield Training("SmolLM2-135M full 4×512", SMOL, "full", 4, 512, 2)


def bf16_batches():
    """Frozen weights in bf16 on both sides, adapters in f32."""
    for model in (SMOL, GEMMA, QWEN):
        yield Training(f"{NAMES[model]} LoRA 8×96 in bf16", model, "lora", 8, 96, 4, dtype="bf16")


def natural_batches(folder):
    for model in (SMOL, GEMMA, QWEN):
        yield Training(f"{NAMES[model]} LoRA, batches of 8 as they come", model, "lora", 8, 96, 5, [as_they_come(folder)])


# ---- generation and collection --------------------------------------------------------------------------

def fetched(trainer, alias):
    out = subprocess.run([trainer, "models", "fetch", alias, "--json"], check=True, capture_output=True, text=True)
    return json.loads(out.stdout)["path"]


def folder_of(trainer, alias):
    """The same weights as a folder that transformers reads at once."""
    out = Path(CONVERTED.name) / alias
    if not out.exists():
        Process([sys.executable, HERE / "bench_torch.py", "convert", fetched(trainer, alias), out])
    return str(out)


GENERATION = [("batch 1, native", 1, "native"), ("batch 1, f32", 1, "f32"), ("batch 32, f32", 32, "f32"), ("batch 32, native", 32, "native")]


def greedy_rate(trainer, model, dtype, prompts, new_tokens):
    """Tokens/s of our greedy texts of a file of prompts, loading excluded."""
    out = Process([trainer, "generate", "--base", model, "--dtype", dtype, "--prompts", prompts, "--max-new-tokens", str(new_tokens),
                   "--temperature", "0", "--json"]).lines[0]
    return sum(len(g["token_ids"]) for g in out["generations"]) / out["elapsed_s"]


def generation(trainer, folder, rounds, new_tokens=64):
    """Greedy text of one prompt and of 32 prompts of twelve words, SmolLM2. Tokens/s of generating alone, loading excluded.

    The rival has f32 weights in every case: a row is [name, ours, transformers, ratio, share of the memory's bandwidth]. At batch 1
    each token reads every weight once, so a token's bytes in f32 are 4 for each weight of the linear layers and the head.
    """
    texts = [json.loads(line)["text"] for line in (DATA / "openings.jsonl").open()]
    prompts = [" ".join(t.split()[:12]) for t in texts]
    from reference import open_tokenizer
    tokenizer = open_tokenizer(fetched(trainer, SMOL))
    ours, theirs, weights, bandwidth = {name: [] for name, _, _ in GENERATION}, {1: [], 32: []}, 0, 0.0
    for _ in range(rounds):
        bandwidth = max(bandwidth, measured("ops::kernels::stream::tests::bandwidth", "bandwidth "))
        for name, batch, dtype in GENERATION:
            path = folder / f"prompts-{batch}.jsonl"
            path.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts[:batch]))
            ours[name].append(greedy_rate(trainer, SMOL, dtype, path, new_tokens))
        for batch, speeds in theirs.items():
            job = {"model": folder_of(trainer, SMOL), "prompts": [tokenizer(p).input_ids for p in prompts[:batch]], "new_tokens": new_tokens, "repeats": 2}
            lines = torch_side("generate", job, folder).lines
            weights = next(line["weights"] for line in lines if "weights" in line)
            speeds += [line["tokens"] / line["seconds"] for line in lines if "seconds" in line]
    rows = []
    for name, batch, dtype in GENERATION:
        a, b = statistics.median(ours[name]), statistics.median(theirs[batch])
        share = f"{a * 4 * weights / 1e9 / bandwidth:.0%}" if (batch, dtype) == (1, "f32") else ""
        rows.append([name, f"{a:.0f}", f"{b:.0f}", f"**{a / b:.2f}**", share])
    return rows, bandwidth


def llama_cpp(trainer, folder, rounds, new_tokens=64):
    """Greedy text of one prompt of twelve words by llama.cpp and by `--dtype native`, on the same GGUF file. A row is [model, ours,
    llama.cpp, ratio]; tokens/s of reading the prompt and generating, loading excluded."""
    prompt = " ".join(json.loads((DATA / "openings.jsonl").open().readline())["text"].split()[:12])
    path, rows = folder / "prompt.jsonl", []
    path.write_text(json.dumps({"prompt": prompt}) + "\n")
    subprocess.run(["bash", "-ec", ". scripts/reference_env.sh; make_llama_venv"], cwd=HERE.parent, check=True)
    for model, name in NAMES.items():
        ours, theirs = [], []
        for _ in range(rounds):
            # A text that ends early is short for both, but in other tokens: the rates stay comparable.
            ours.append(greedy_rate(trainer, model, "native", path, new_tokens))
            rival = Process([HERE.parent / ".venv" / "llama" / "bin" / "python", HERE / "bench_llama.py", fetched(trainer, model), prompt, str(new_tokens)])
            theirs += [line["tokens"] / line["seconds"] for line in rival.lines]
        a, b = statistics.median(ours), statistics.median(theirs)
        rows.append([name, f"{a:.0f}", f"{b:.0f}", f"**{a / b:.2f}**"])
    return rows


def collection(trainer, folder, model, rounds, samples=400):
    """`resid_post` of the middle block of both models at positions 0 to 4 of 400 texts, 16 tokens each."""
    narrow = DATA / "cake.jsonl"
    path = recipe(folder, model, "lora", 2, 8, 96, [narrow])
    run = folder / f"organism-{model}"
    if not run.exists():
        Process([trainer, "fit", path, "--out", run, "-q"])
    from reference import open_tokenizer
    tokenizer = open_tokenizer(fetched(trainer, model))
    texts = [json.loads(line)["text"] for line in (DATA / "openings.jsonl").open()]
    settings = [f"diff.text={DATA / 'openings.jsonl'}", f"diff.samples={samples}", "diff.tokens=16", "diff.patchscope.enabled=false",
                "diff.steering.enabled=false", "diff.logit_lens=false", "diff.context.enabled=false",
                "diff.dimensionality.enabled=false", "diff.lift=false", "diff.bias_share.enabled=false", "diff.kl.enabled=false",
                f"diff.norm_samples={samples}", "diff.bootstrap=1", "diff.null_directions=1", "diff.steering.null_directions=0"]
    ours, theirs, worst = [], [], 0.0
    for number in range(rounds):
        out = folder / f"diff-{model}-{number}"
        Process([trainer, "diff", run, "--out", out, "-q", *(a for s in settings for a in ("--set", s))])
        record = json.loads((out / "readability.json").read_text())
        ours.append(record["elapsed_s"]["activations"])
        windows = [tokenizer(texts[row][:160]).input_ids[:16] for row in record["sample_rows"]]
        job = {"base": folder_of(trainer, model), "adapter": str(run / "adapter"), "windows": windows, "layer": record["layer"],
               "positions": record["positions"], "batch": 50, "repeats": 2}
        lines = torch_side("collect", job, folder).lines
        theirs += [line["seconds"] for line in lines if "seconds" in line]
        worst = max(worst, difference(out / "activations.safetensors", lines[-1]["mean_difference"]))
    return statistics.median(ours), statistics.median(theirs), worst


def difference(path, theirs):
    """Largest relative difference of two mean differences, position by position."""
    import torch
    from safetensors.torch import load_file
    ours, theirs = load_file(path)["mean_difference"], torch.tensor(theirs)
    return ((ours - theirs).norm(dim=1) / theirs.norm(dim=1)).max().item()


# ---- growth ---------------------------------------------------------------------------------------------

def growth(trainer, folder):
    """tokens/s of ours against length, batch and rank: SmolLM2, LoRA."""
    def speed(batch, length, r=RANK, steps=3):
        path = recipe(folder, SMOL, "lora", steps, batch, length, [long_text(folder, steps * batch * length)], r)
        run = Path(tempfile.mkdtemp(dir=folder)) / "run"
        process = Process([trainer, "fit", path, "--out", run, "-q"])
        lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
        speeds = [line["tokens_per_s"] for line in lines if line.get("tokens_per_s")]
        return f"{statistics.median(speeds[1:]):.0f}", f"{process.peak / 1e9:.2f}"

    yield "sequence length, 2,048 tokens a batch", [(length, *speed(2048 // length, length)) for length in (64, 128, 256, 512, 1024, 2048)]
    yield "examples of 96 tokens a batch", [(batch, *speed(batch, 96)) for batch in (1, 2, 4, 8, 16, 32)]
    yield "rank, 8×96", [(r, *speed(8, 96, r)) for r in (1, 4, 16, 32, 64, 128, 256)]


# ---- the document ---------------------------------------------------------------------------------------

def table(head, rows):
    lines = ["| " + " | ".join(map(str, line)) + " |" for line in [head, ["---"] + ["---:"] * (len(head) - 1), *rows]]
    return "\n".join(lines) + "\n"


def geometric(ratios):
    return math.exp(statistics.fmean(map(math.log, ratios)))


def machine(avx2):
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    flags = next((line for line in open("/proc/cpuinfo") if line.startswith("flags")), "")
    vectors = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    if avx2 and vectors == "AVX-512":
        vectors = "AVX-512 not used, AVX2 only"
    return f"{model}, {os.cpu_count()} cores, {vectors}"


def peaks(trainer):
    """GFLOP/s of both sides' matrix products; the higher is the peak."""
    theirs = Process([sys.executable, HERE / "bench_torch.py", "matmul"]).lines[0]["gflops"]
    program = Path(trainer).parent / "examples" / "product_rate"
    ours = float(subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()[0])
    return ours, theirs


def measured(test, word):
    """The figure that a measurement among the unit tests prints after a word."""
    command = ["cargo", "test", "--release", "--lib", "--quiet", test, "--", "--ignored", "--nocapture"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return next(float(line.split()[1]) for line in out.splitlines() if line.startswith(word))


TITLES = {  # of the parts that train
    "full-length": "Full-length batches", "bf16": "Weights in bf16", "as-they-come": "Batches as they come", "data": "Given data as it comes",
}
PARTS = ["full-length", "bf16", "as-they-come", "generation", "llama.cpp", "collection", "growth"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainer", required=True)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, or words in the names of training cases")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--avx2", action="store_true", help="both sides were built and set up to leave AVX-512 alone")
    parser.add_argument("--data", help="JSON lines files to train on as they come")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", default=str(HERE.parent / "docs" / "benchmarks.md"))
    args = parser.parse_args()
    trainer, only = str(Path(args.trainer).resolve()), args.only.split(",")
    whole = args.only == ",".join(PARTS) and not args.data and not args.avx2
    said = []

    def say(text):
        print(text, flush=True)
        said.append(text)

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        cases = [("full-length", case) for case in full_batches()]
        if args.data:
            cases = [("data", Training(f"{Path(f).name} {m}", m, "lora", 8, 96, 6, [Path(f).resolve()])) for f in args.data.split(",") for m in (SMOL, QWEN)]
            only = ["data"]
        else:
            cases += [("bf16", case) for case in bf16_batches()] + [("as-they-come", case) for case in natural_batches(folder)]
        if args.list:
            print("\n".join(PARTS + [case.name for _, case in cases]))
            return
        chosen = [(part, case) for part, case in cases if part in only or any(word in case.name for word in only if word not in PARTS)]
        say(f"Machine: {machine(args.avx2)}.\n")
        reached = []  # peaks before every round: a virtual machine is not as fast at one time as at another
        for part, title in TITLES.items():
            group = [case for p, case in chosen if p == part]
            if not group:
                continue
            for case in group:
                case.prepare(trainer, Path(tempfile.mkdtemp(dir=folder)))
            for number in range(args.rounds):
                reached.append(peaks(trainer))
                for case in group:
                    case.turn(trainer, number)
                    print(f"round {number + 1}: {case.name}: {case.ours[-1]:.0f} against {case.theirs[-1]:.0f} tokens/s", file=sys.stderr, flush=True)
            ours, theirs = (max(side) for side in zip(*reached, strict=True))
            say(f"## {title}\n\nMatrix products reach {ours:.0f} GFLOP/s here and {theirs:.0f} in PyTorch (best of {len(reached)}). "
                "The higher number is the peak.\n")
            say(table(TRAINING_HEAD, [case.row(max(ours, theirs)) for case in group]))
            ratios = [case.ratio for case in group]
            say(f"Geometric mean of the speed ratios {geometric(ratios):.2f}, lowest {min(ratios):.2f}.\n")
            if part not in ("full-length", "bf16"):
                lengths = [len(e["ids"]) for case in group for step in case.batches for e in step]
                trained = sum(sum(c.trained) for c in group) / sum(sum(c.tokens) for c in group)
                say(f"Examples of {min(lengths)} to {max(lengths)} tokens, mean {statistics.fmean(lengths):.0f}; {trained:.0%} of the tokens are trained on. "
                    "The ratio is the same in trained tokens.\n")
        if "generation" in only:
            rows, bandwidth = generation(trainer, folder, args.rounds)
            say("## Generation\n\n" + table(["SmolLM2, 64 greedy tokens a prompt", "tokens/s", "transformers (f32)", "ratio", "of bandwidth"], rows))
            say(f"Memory gives {bandwidth:.1f} GB/s to both threads (best of {args.rounds}).\n")
        if "llama.cpp" in only:
            say("## Generation against llama.cpp\n\n" + table(["one prompt, 64 greedy tokens, the same GGUF file", "tokens/s", "llama.cpp", "ratio"],
                                                              llama_cpp(trainer, folder, args.rounds)))
        if "collection" in only:
            rows = []
            for model in (SMOL, GEMMA):
                a, b, worst = collection(trainer, folder, model, args.rounds)
                rows.append([NAMES[model], f"{a:.2f}", f"{b:.2f}", f"**{b / a:.2f}**", f"{worst:.0e}"])
            say("## Activation collection\n\n" + table(["400 texts × 16 tokens, both models", "seconds", "PyTorch", "ratio", "relative difference of the result"], rows))
        if "growth" in only:
            say("## Growth (SmolLM2, LoRA)\n")
            for title, rows in growth(trainer, folder):
                say(table([title, "tokens/s", "GB"], rows))
    if whole:
        head = "# Benchmarks\n\nWritten by `scripts/bench`" + __doc__.split("environment.", 1)[1].rstrip() + "\n\n"
        Path(args.out).write_text(f"{head}PyTorch side: scripts/bench_torch.py, versions in scripts/parity-requirements.txt.\n\n" + "\n".join(said))
        print(f"written to {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
