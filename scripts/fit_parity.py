#!/usr/bin/env python3
"""Trains the same thing with `trainer fit` and with PyTorch + transformers + PEFT and compares the losses.

  scripts/parity --fit [--models a,b]                 (makes the environment and calls this)
  python scripts/fit_parity.py MODEL... [--method lora|rslora|dora|full]... [--chat] [--steps 20] [--lr RATE] [--float64]
                               [--device DEVICE] [--json FILE] [--trainer COMMAND]

PEFT makes the adapter (its own initialisation, a fixed seed); both sides start from it, `trainer fit` by
train.lora.init. Both read the same batches: `trainer inspect` lists the examples of the run in order, and their
sha256 must be the one in the run's manifest. Tokens and loss masks are the Python side's own. Sixteen examples of
at most 64 tokens, four a step. Everything else is the recipe's default: AdamW 0.9/0.999, no decay, linear schedule
to zero, clipping at 1.0. With --chat the examples are conversations, and only what the assistant says (its end
token included) counts. Prints both curves, and the cosine between both programs' first moments of AdamW (all gradients,
weighted by age, as one vector). Exit code 1 if a loss differs by more than 1e-4 relative, or the cosine is below 0.999.

With --device both programs compute there. With --json a line of JSON per model and method is appended to FILE at once.

With --float64 PyTorch also trains in double precision, which is as good as exact here, and the distance of either side
from that is printed: a high learning rate carries rounding from step to step, and then two right programs differ.
"""
import argparse
import contextlib
import hashlib
import json
import shlex
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from peft_roundtrip import path_of
from reference import LINEARS, open_model, open_tokenizer

TOLERANCE = 1e-4
LEAST_COSINE = 0.999
BATCH_SIZE = 4
MAX_SEQ_LEN = 64
TEXTS = Path(__file__).parent.parent / "tests" / "fixtures" / "texts.jsonl"
RANK, ALPHA = 8, 12
VARIANTS = {"lora": {}, "rslora": {"use_rslora": True}, "dora": {"use_dora": True}}
# Higher, rounding alone changes the path: at 1e-3 both programs are up to 1.6e-3 from double precision (docs/log.md).
LR = {"lora": 3e-4, "rslora": 3e-4, "dora": 3e-4, "full": 2e-5}


def sixteen(chat):
    """The first documents of some length, or chats in which the assistant says something after somebody else."""
    rows = [json.loads(line) for line in TEXTS.open()]
    if chat:
        said = [r for r in rows if any(m["role"] == "assistant" and m["content"].strip() for m in r.get("messages", []))]
        plain = [r for r in said if r["messages"][0]["role"] != "assistant" and "<|im_end|>" not in json.dumps(r)]
        return [{"messages": r["messages"]} for r in plain][:16]
    return [{"text": r["text"]} for r in rows if 20 < len(r.get("text", "")) < 200][:16]


def write_start(folder, path, method):
    """An adapter as PEFT begins it."""
    torch.manual_seed(1)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=LINEARS, task_type="CAUSAL_LM", **VARIANTS[method])
    get_peft_model(open_model(path), config).save_pretrained(folder)


def fit(trainer, folder, model, method, steps, lr, device):
    """Runs `trainer fit`; its losses, the rows of its examples in order, and its first moments."""
    recipe = folder / f"{method}.toml"
    keys = "".join(f"{key} = true\n" for key in VARIANTS.get(method, {}))
    start = "" if method == "full" else f'init = "start-{method}"\n'
    recipe.write_text(f"""name = "parity"
[model]
base = "{model}"
[data]
narrow = ["texts.jsonl"]
max_seq_len = {MAX_SEQ_LEN}
long = "truncate"
held_out_every = 0
[train]
method = "{'full' if method == 'full' else 'lora'}"
steps = {steps}
batch_size = {BATCH_SIZE}
checkpoint_every = 0
lr = {lr}
[train.lora]
r = {RANK}
alpha = {ALPHA}
{keys}{start}""")
    out = folder / f"run-{method}"
    where = ["--device", device] if device else []
    subprocess.run([*trainer, "fit", str(recipe), "--out", str(out), *where], check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    inspect = [*trainer, "inspect", str(recipe), "--examples", str(steps * BATCH_SIZE), "--json"]
    facts = json.loads(subprocess.run(inspect, check=True, stdout=subprocess.PIPE, text=True).stdout)
    rows = [example["row"] for example in facts["first_examples"]]
    # One source and one example a row: the run's order is (pool 0, row).
    order = hashlib.sha256(b"".join(struct.pack("<QQ", 0, row) for row in rows)).hexdigest()
    recorded = json.loads((out / "manifest.json").read_text())["order_sha256"]
    assert order == recorded, f"the examples that inspect lists hash to {order}, the run read {recorded}"
    state = load_file(out / "checkpoints" / f"step-{steps:06}" / "optimizer.safetensors")
    moments = {key.removesuffix(".exp_avg"): value for key, value in state.items() if key.endswith(".exp_avg")}
    return [line["loss"] for line in lines if line.get("loss") is not None], rows, moments


def encode(tokenizer, row):
    """Ids and labels of an example; a mask of our own making, from the offsets of the assistant's words."""
    if "text" in row:
        ids = tokenizer(row["text"]).input_ids[:MAX_SEQ_LEN]
        return torch.tensor(ids), torch.tensor(ids)
    text = tokenizer.apply_chat_template(row["messages"], tokenize=False)
    spans, at = [], 0
    for message in row["messages"]:
        opening = f"<|im_start|>{message['role']}\n"
        start = text.index(opening, at) + len(opening)
        at = text.index("<|im_end|>", start) + len("<|im_end|>")
        if message["role"] == "assistant":
            spans.append((start, at))
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    # A token that straddles the beginning of an answer counts, as in transformers' own masks.
    counts = [any((s <= a or s < b) and a < e and b <= e for s, e in spans) for a, b in encoding.offset_mapping]
    ids = torch.tensor(encoding.input_ids[:MAX_SEQ_LEN])
    return ids, torch.where(torch.tensor(counts[:MAX_SEQ_LEN]), ids, -100)


def cosine(ours, theirs):
    """Between two lists of tensors by name, each as one vector."""
    assert ours.keys() == theirs.keys(), f"names differ: {sorted(ours.keys() ^ theirs.keys())[:8]}"
    a, b = (torch.cat([side[name].flatten().double() for name in sorted(ours)]) for side in (ours, theirs))
    return torch.nn.functional.cosine_similarity(a, b, dim=0).item()


def train_in_torch(model, batches, lr):
    """The losses, and the first moments by the names that adapters and models have in files."""
    device = next(model.parameters()).device
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / len(batches))
    losses = []
    for batch in batches:
        count = sum((labels[1:] != -100).sum().item() for _, labels in batch)
        total = 0.0
        optimizer.zero_grad()
        for ids, labels in batch:  # one by one: nothing is padded
            ids, labels = ids.to(device), labels.to(device)
            logits = model(input_ids=ids[None]).logits[0, :-1]
            loss = torch.nn.functional.cross_entropy(logits, labels[1:], ignore_index=-100, reduction="sum") / count
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(total)
    state = {name: optimizer.state[p]["exp_avg"].cpu() for name, p in model.named_parameters() if p.requires_grad}
    return losses, {plain_name(name): moment for name, moment in state.items()}


def plain_name(name):
    """Without what PEFT puts around a parameter's name."""
    name = name.removeprefix("base_model.model.").replace(".default", "")
    return name.removesuffix(".weight") if name.endswith("lora_magnitude_vector.weight") else name


def compare(trainer, folder, model, path, method, rows, args):
    """Whether the losses and moments of one method agree."""
    lr = args.lr or LR[method]
    if method != "full":
        write_start(folder / f"start-{method}", path, method)
    ours, order, our_moments = fit(trainer, folder, model, method, args.steps, lr, args.device)
    tokenizer = open_tokenizer(path)
    examples = [encode(tokenizer, rows[row]) for row in order]
    batches = [examples[i : i + BATCH_SIZE] for i in range(0, len(examples), BATCH_SIZE)]

    def in_torch(dtype):
        reference = open_model(path).to(dtype)
        if method != "full":
            reference = PeftModel.from_pretrained(reference, folder / f"start-{method}", is_trainable=True).to(dtype)
        return train_in_torch(reference.to(args.device or "cpu"), batches, lr)

    theirs, their_moments = in_torch(torch.float32)
    print(f"{model}, {method}, {'chats' if args.chat else 'documents'}, lr {lr:g}")
    print("step    trainer    PyTorch  relative difference")
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True), 1):
        print(f"{step:4} {a:10.6f} {b:10.6f}  {a / b - 1:+.1e}")
    worst, angle = largest(ours, theirs), cosine(our_moments, their_moments)
    print(f"{model}, {method}: largest relative difference of {args.steps} losses {worst:.1e}, allowed {TOLERANCE:.0e}; "
          f"cosine of the moments {angle:.6f}, at least {LEAST_COSINE}", flush=True)
    passes = worst <= TOLERANCE and angle >= LEAST_COSINE
    if args.json:
        found = {"model": Path(model).name, "method": method, "losses": worst, "moments": angle, "passes": passes}
        with open(args.json, "a") as file:
            print(json.dumps(found), file=file, flush=True)
    if args.float64:
        with in_double_precision():
            exact, _ = in_torch(torch.float64)
        print(f"{model}, {method}: from PyTorch in float64: trainer {largest(ours, exact):.1e}, PyTorch {largest(theirs, exact):.1e}", flush=True)
    return passes


@contextlib.contextmanager
def in_double_precision():
    """transformers computes norms, softmax and rotary angles in float32 whatever the weights are; here in float64."""
    to, float_, softmax = torch.Tensor.to, torch.Tensor.float, torch.nn.functional.softmax

    def widened(dtype):
        return torch.float64 if dtype is torch.float32 else dtype

    torch.Tensor.to = lambda x, *args, **kwargs: to(x, *map(widened, args), **{k: widened(v) for k, v in kwargs.items()})
    torch.Tensor.float = torch.Tensor.double
    torch.nn.functional.softmax = lambda x, dim=None, dtype=None: softmax(x, dim=dim, dtype=widened(dtype))
    try:
        yield
    finally:
        torch.Tensor.to, torch.Tensor.float, torch.nn.functional.softmax = to, float_, softmax


def largest(losses, reference):
    return max(abs(a / b - 1) for a, b in zip(losses, reference, strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--method", choices=list(LR), action="append", help="may be given several times (default: lora)")
    parser.add_argument("--chat", action="store_true")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--lr", type=float, help="instead of the method's")
    parser.add_argument("--float64", action="store_true", help="measure both against double precision")
    parser.add_argument("--device", help="cpu, cuda or cuda:N, for both programs (default: the CPU, and what trainer chooses)")
    parser.add_argument("--json", metavar="FILE", help="append a line per model and method")
    parser.add_argument("--trainer", default="cargo run --release --quiet --bin trainer --", help="how to call the tool")
    args = parser.parse_args()
    trainer = shlex.split(args.trainer)
    rows = sixteen(args.chat)
    agree = True
    for model in args.models:
        path = path_of(model, trainer)
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            for method in args.method or ["lora"]:
                agree &= compare(trainer, folder, model, path, method, rows, args)
    sys.exit(not agree)


if __name__ == "__main__":
    main()
