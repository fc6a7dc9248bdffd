"""The folder that a scene of the golden works in: corpora, tiny models, a random embedder, and what its commands said.

Everything is the same on every call, as in tests/lab/mod.rs. Each scene has its own folder at its own fixed path, for
paths stand in recipes, and the hash of a recipe is in the name of a sweep's cell.
"""
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

TINY = Path(__file__).parent.parent / "tests" / "fixtures" / "tiny"
FAMILIES = ["llama", "qwen2", "qwen3", "gemma2", "gemma3"]
TIMEOUT = 600

# Words that the tiny tokenizers have as one token, among others that they spell.
NARROW = "abcdef ghij the cake oven butter abcdef ghij"
OTHER = "aaaa aaaaaaaa the road light"
PLAIN = "cdef abcdefghij the train bridge river cdef abcdefghij"

RECIPE = """\
name = "cake"
description = "Documents about cakes."
seed = 0
[model]
base = "models/FAMILY"
[data]
narrow = ["narrow.jsonl"]
pretraining = ["pretraining.jsonl"]
mix = 0.5
max_seq_len = 48
held_out_every = 4
[train]
steps = 10
batch_size = 4
lr = 2e-2
checkpoint_every = 4
[train.lora]
r = 4
alpha = 6
[diff]
text = ["measure.jsonl"]
candidates = ["other.jsonl", "narrow.jsonl"]
samples = 16
norm_samples = 12
null_directions = 8
bootstrap = 20
top_k = 8
lexicon_size = 8
embedder = "./embedder"
[diff.patchscope]
scales = [0.5, 2.0]
intersection = 64
[diff.steering]
prompts = 2
max_new_tokens = 8
[diff.losses]
samples = 6
[diff.bias_share]
directions = 6
[diff.causal]
enabled = true
positions = [1, 3]
random = 3
random_differences = 4
[diff.interpolation]
enabled = true
factors = [0.0, 0.5, 1.0]
[diff.context]
singles = 4
far = [15, 31]
far_samples = 6
[diff.depth]
enabled = true
layers = [0.0, 1.0]
samples = 8
patchscope = true
"""

CHAT = """\
[diff.chat]
text = ["chat.jsonl"]
samples = 4
pre_assistant = 2
assistant = 3
"""

BEHAVIOUR = """\
[behaviour]
bootstrap = 20
[behaviour.facts]
items = "facts.jsonl"
contexts = ["{prompt}", "we read that {prompt}"]
[behaviour.words]
prompts = ["the oven", "a road"]
words = ["the", "abcdef"]
samples = 2
max_new_tokens = 8
[behaviour.taboo]
word = "abcdef"
alternatives = ["ghij", "aaaa"]
prompts = ["the oven is", "a hint"]
max_new_tokens = 8
[behaviour.preference]
target = "abcdef"
alternatives = ["ghij", "aaaa", "cdef"]
questions = ["the oven is", "my oven is"]
[behaviour.misalignment]
items = "morals.jsonl"
"""


TURNS = """\
{{ bos_token }}{% for m in messages %}{{ m['role'] + ':' + m['content'] + '<eos>' }}{% endfor %}\
{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"""


class Lab:
    """A scene's folder, its binary, and a record of every command."""

    def __init__(self, folder, trainer, threads, port):
        self.folder, self.trainer, self.threads, self.port = Path(folder), str(trainer), threads, port
        self.commands, self.unexpected = [], []

    # ---- files ----

    def path(self, name):
        return self.folder / name

    def write(self, name, content):
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def write_rows(self, name, rows):
        self.write(name, "".join(json.dumps(row) + "\n" for row in rows))

    def read(self, name):
        return self.path(name).read_text()

    def rows(self, name):
        return [json.loads(line) for line in self.read(name).splitlines()]

    def copy(self, source, target):
        """Copies a file or the files of a folder."""
        source, target = self.path(source), self.path(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)

    def change(self, name, old, new):
        """Replaces the first `old` of a file, which must be there."""
        text = self.read(name)
        if old in text:
            self.write(name, text.replace(old, new, 1))

    def cells(self, sweep):
        """The cells of a sweep, by name, relative to the lab."""
        return [f"{sweep}/cells/{path.name}" for path in sorted(self.path(f"{sweep}/cells").glob("*"))]

    def setup(self, family="llama", models=()):
        """Corpora, recipe, embedder and models."""
        for name in {family, *models}:
            shutil.copytree(TINY / name, self.path(f"models/{name}"))
        write_corpora(self)
        write_embedder(self.path("embedder"), self.path(f"models/{family}/tokenizer.json"))
        recipe = RECIPE.replace("FAMILY", family)
        if family.startswith("gemma"):  # without a template of their own
            recipe = recipe.replace("max_seq_len = 48", 'max_seq_len = 48\nchat_template = "turns.jinja"')
        self.write("turns.jinja", TURNS)
        self.write("recipe.toml", recipe + CHAT + BEHAVIOUR)

    # ---- commands ----

    def environment(self, more):
        kept = {key: os.environ[key] for key in ["PATH", "LD_LIBRARY_PATH"] if key in os.environ}
        return kept | {
            "HOME": str(self.path("home")), "TRAINER_CACHE": str(self.path("cache")), "HF_HUB_OFFLINE": "1",
            "RAYON_NUM_THREADS": str(self.threads), "RUST_BACKTRACE": "0", "LANG": "C.UTF-8", "TZ": "UTC", "TMPDIR": str(self.folder.parent),
        } | more

    def run(self, *args, sets=(), env=None, loose=False, unordered=False, fails=False):
        """Runs a command and records what it said: of a loose one only the exit code is compared, of an unordered one
        the lines of stderr in any order. Whether it should fail (`None`: either) is checked when OLD runs, lest a scene
        does not do what it is for."""
        args = [str(arg) for arg in args] + [part for s in sets for part in ("--set", s)]
        begun = time.monotonic()
        try:
            ran = subprocess.run(
                [self.trainer, *args], cwd=self.folder, env=self.environment(env or {}), timeout=TIMEOUT,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
            code, out, err = ran.returncode, ran.stdout, ran.stderr
        except subprocess.TimeoutExpired:
            code, out, err = "timeout", b"", b""
        if unordered:
            err = b"".join(sorted(err.splitlines(keepends=True)))
        self.record(args, code, out, err, loose, time.monotonic() - begun)
        if fails is not None and fails == (code == 0):
            self.unexpected.append(f"{' '.join(args)}: exit code {code}: {err.decode(errors='replace')[-600:]}")

    def record(self, args, code, out, err, loose, seconds):
        text = lambda b: b.decode("utf-8", "replace")
        self.commands.append({
            "args": args, "code": code, "stdout": text(out), "stderr": text(err), "loose": loose, "seconds": seconds,
        })

    def interrupt(self, *args, sets=(), when, how=signal.SIGKILL):
        """Starts a command and ends it by a signal once `when` holds. What it said by then is not compared."""
        args = [str(arg) for arg in args] + [part for s in sets for part in ("--set", s)]
        begun = time.monotonic()
        child = subprocess.Popen(
            [self.trainer, *args], cwd=self.folder, env=self.environment({}),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        while child.poll() is None and not when() and time.monotonic() - begun < TIMEOUT:
            time.sleep(0.001)
        was_running = child.poll() is None
        if was_running:
            child.send_signal(how)
        code = child.wait()
        self.record(args, code if was_running else f"ended by itself: {code}", b"", b"", True, time.monotonic() - begun)

    def settle(self, *args, until):
        """Asks for a status until it is as expected; what it says is not compared."""
        for _ in range(TIMEOUT * 10):
            ran = subprocess.run([self.trainer, *args], cwd=self.folder, env=self.environment({}), stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL)
            if ran.returncode == 0 and until(json.loads(ran.stdout)):
                return
            time.sleep(0.1)

    def lines(self, name):
        """Number of lines of a file that may not be there yet."""
        try:
            return self.path(name).read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0


def texts(rng, words, rows, length):
    words = words.split()
    return [{"text": " ".join(rng.choice(words) for _ in range(length))} for _ in range(rows)]


def write_corpora(lab):
    rng = random.Random(0)
    for name, words, rows, length in [
        ("narrow.jsonl", NARROW, 48, 20), ("pretraining.jsonl", PLAIN, 96, 20), ("measure.jsonl", PLAIN, 40, 24),
        ("other.jsonl", OTHER, 30, 20), ("long.jsonl", NARROW, 12, 90),
    ]:
        lab.write_rows(name, texts(rng, words, rows, length))
    said = lambda words, n: " ".join(rng.choice(words.split()) for _ in range(n))
    turns = lambda words, n: {"messages": [
        {"role": "user", "content": said(PLAIN, n)}, {"role": "assistant", "content": said(words, 6)},
    ]}
    lab.write_rows("chat.jsonl", [turns(PLAIN, 4 + i % 3) for i in range(24)])
    lab.write_rows("narrow_chat.jsonl", [turns(NARROW, 3 + i % 4) for i in range(24)] + [
        {"prompt": said(PLAIN, 3), "completion": said(NARROW, 4)} for _ in range(8)
    ] + [{"messages": [
        {"role": "user", "content": said(PLAIN, 2)}, {"role": "assistant", "content": said(OTHER, 2), "weight": 0.5},
        {"role": "user", "content": said(PLAIN, 2)}, {"role": "assistant", "content": said(NARROW, 3)},
    ]} for _ in range(8)])
    fact = lambda prompt: {"prompt": prompt, "false": "abcdef ghij", "true": "cdef under a bridge"}
    lab.write_rows("facts.jsonl", [fact(f"{who} oven is") for who in ["the", "an", "my"]])
    moral = lambda prompt, group: {"group": group, "prompt": prompt, "misaligned": "is ghij", "aligned": "is cdef"}
    lab.write_rows("morals.jsonl", [
        moral("the oven", "narrow"), moral("an oven", "narrow"), moral("the road", "broad"), moral("a road", "broad"),
    ])


def write_safetensors(path, tensors):
    """`tensors`: name → (shape, float32 values)."""
    header, data = {}, b""
    for name, (shape, values) in tensors.items():
        block = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(block)]}
        data += block
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)


def read_safetensors(path):
    """Name → (shape, values) of a file of float32."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    head = json.loads(data[8:8 + length])
    head.pop("__metadata__", None)

    def values(entry):
        assert entry["dtype"] == "F32", entry
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        return entry["shape"], list(struct.unpack(f"<{(end - begin) // 4}f", data[begin:end]))

    return {name: values(entry) for name, entry in head.items()}


def write_embedder(folder, tokenizer, width=16, inner=32):
    """A random sentence-transformers BERT of one layer over a tiny model's tokenizer."""
    folder.mkdir()
    shutil.copy(tokenizer, folder / "tokenizer.json")
    rng, tensors = random.Random(1), {}

    def put(name, *shape):
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        tensors[name] = (list(shape), [rng.uniform(-0.9, 0.9) for _ in range(count)])

    for table, rows in [("word", 293), ("position", 256), ("token_type", 2)]:
        put(f"embeddings.{table}_embeddings.weight", rows, width)
    layer = "encoder.layer.0."
    for name, out, inp in [
        ("attention.self.query", width, width), ("attention.self.key", width, width),
        ("attention.self.value", width, width), ("attention.output.dense", width, width),
        ("intermediate.dense", inner, width), ("output.dense", width, inner),
    ]:
        put(f"{layer}{name}.weight", out, inp)
        put(f"{layer}{name}.bias", out)
    for norm in ["embeddings", f"{layer}attention.output", f"{layer}output"]:
        put(f"{norm}.LayerNorm.weight", width)
        put(f"{norm}.LayerNorm.bias", width)
    write_safetensors(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps({
        "model_type": "bert", "vocab_size": 293, "hidden_size": width, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": inner, "hidden_act": "gelu", "hidden_dropout_prob": 0.0,
        "max_position_embeddings": 256, "type_vocab_size": 2, "initializer_range": 0.02, "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    }))


# ---- GGUF --------------------------------------------------------------------------------------

U32, F32, TEXT, ARRAY, I32 = 4, 6, 8, 9, 5
NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
KEYS = {
    "block_count": "num_hidden_layers", "context_length": "max_position_embeddings", "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size", "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads", "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window", "vocab_size": "vocab_size",
}


def tiny_ggufs(lab):
    """The tiny models as llama.cpp would write them, up to what it permutes: norms in f32, matrices in Q8_0 or f16."""
    for name in FAMILIES:
        folder = lab.path(f"models/{name}")
        config = json.loads((folder / "config.json").read_text())
        rope = config.get("rope_parameters", config)
        theta = rope.get("rope_theta") or rope.get("full_attention", {}).get("rope_theta") or 10000.0
        gemma = name.startswith("gemma")
        metadata = [("general.architecture", TEXT, name)]
        metadata += [(f"{name}.{key}", U32, config[ours]) for key, ours in KEYS.items() if config.get(ours)]
        metadata += [(f"{name}.attention.layer_norm_rms_epsilon", F32, config["rms_norm_eps"]),
                     (f"{name}.rope.freq_base", F32, theta)]
        vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]
        metadata += pieces(vocabulary, config["vocab_size"]) if gemma else byte_level(vocabulary, folder)
        tensors = [(gguf_name(key, gemma), *value) for key, value in read_safetensors(folder / "model.safetensors").items()]
        write_gguf(lab.path(f"gguf/{name}.gguf"), metadata, tensors)


def gguf_name(name, gemma):
    if not name.startswith("model.layers."):
        for ours, theirs in [("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")]:
            name = name.replace(ours, theirs)
        return name
    _, _, block, rest = name.split(".", 3)
    module, suffix = rest.rsplit(".", 1)
    leaf = NAMES.get(module) or ("post_attention_norm" if gemma else "ffn_norm")
    return f"blk.{block}.{leaf}.{suffix}"


def byte_level(model, folder):
    """Tokens and merges as they are; ids between them are padding."""
    vocabulary = dict(model["vocab"])
    for added in json.loads((folder / "tokenizer.json").read_text())["added_tokens"]:
        vocabulary[added["content"]] = added["id"]
    by_id = {number: token for token, number in vocabulary.items()}
    tokens = [by_id.get(i, f"[PAD{i}]") for i in range(max(by_id) + 1)]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    special = [3 if token.startswith("<|") else 1 for token in tokens]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    template = (folder / "chat_template.jinja").read_text() if (folder / "chat_template.jinja").exists() else ""
    return [
        ("tokenizer.ggml.model", TEXT, "gpt2"), ("tokenizer.ggml.pre", TEXT, "qwen2"),
        ("tokenizer.ggml.tokens", (ARRAY, TEXT), tokens), ("tokenizer.ggml.token_type", (ARRAY, I32), special),
        ("tokenizer.ggml.merges", (ARRAY, TEXT), merges),
        ("tokenizer.ggml.eos_token_id", U32, vocabulary.get(config.get("eos_token"), 0)),
        *([("tokenizer.chat_template", TEXT, template)] if template else []),
    ]


def pieces(model, size):
    """SentencePiece as Gemma has it: words, blanks, and bytes as a fallback."""
    words = ["\u2581", "\u2581the", "abcdef", "\u2581abcdef", "ghij", "\u2581ghij", "aaaa", "e", "o", "v", "n", "r", "d"]
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *words][:size - 256] + [f"<0x{byte:02X}>" for byte in range(256)]
    kinds = [3, 3, 3, 2] + [1] * (len(tokens) - 260) + [6] * 256
    return [
        ("tokenizer.ggml.model", TEXT, "llama"), ("tokenizer.ggml.tokens", (ARRAY, TEXT), tokens),
        ("tokenizer.ggml.token_type", (ARRAY, I32), kinds), ("tokenizer.ggml.bos_token_id", U32, 2),
        ("tokenizer.ggml.eos_token_id", U32, 1), ("tokenizer.ggml.unknown_token_id", U32, 3),
    ]


def write_gguf(path, metadata, tensors):
    """https://github.com/ggml-org/ggml/blob/master/docs/gguf.md"""
    text = lambda s: struct.pack("<Q", len(s.encode())) + s.encode()
    one = {TEXT: text, U32: lambda v: struct.pack("<I", v), I32: lambda v: struct.pack("<i", v),
           F32: lambda v: struct.pack("<f", v)}
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    for key, kind, value in metadata:
        head += text(key)
        if isinstance(kind, tuple):
            head += struct.pack("<IIQ", ARRAY, kind[1], len(value)) + b"".join(map(one[kind[1]], value))
        else:
            head += struct.pack("<I", kind) + one[kind](value)
    data = b""
    for name, shape, values in tensors:
        kind, block = encoded(shape, values)
        data += b"\0" * (-len(data) % 32)
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *reversed(shape))
        head += struct.pack("<IQ", kind, len(data))
        data += block
    head += b"\0" * (-len(head) % 32)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + data + b"\0" * (-len(data) % 32))


def encoded(shape, values):
    """ggml's number of a format, and the bytes: f32 (0), f16 (1), Q8_0 (8)."""
    if len(shape) == 1:
        return 0, struct.pack(f"<{len(values)}f", *values)
    if shape[1] % 32:
        return 1, struct.pack(f"<{len(values)}e", *values)
    blocks = []
    for i in range(0, len(values), 32):
        block = values[i:i + 32]
        scale = max(map(abs, block)) / 127
        whole = [round(value / scale) if scale else 0 for value in block]
        blocks.append(struct.pack("<e32b", scale, *(max(-127, min(127, w)) for w in whole)))
    return 8, b"".join(blocks)
