#!/usr/bin/env python3
"""The rival of scripts/bench: the same work in PyTorch + transformers + PEFT, written as their documentation does it.

  bench_torch.py convert MODEL OUT    (once: transformers' own folder, so that loading does not dequantise a GGUF file each time)
  bench_torch.py train JOB.json       {"model", "method", "r", "lr", "dtype", "steps": [[{"ids", "counts"}, ...], ...]}
  bench_torch.py generate JOB.json    {"model", "prompts": [[ids], ...], "new_tokens"}
  bench_torch.py collect JOB.json     {"base", "adapter", "windows": [[ids], ...], "layer", "positions", "batch", "out"}
  bench_torch.py matmul

Prints one JSON line for every step or piece of work, flushed; scripts/bench.py reads them. float32, or in training bf16 with
PEFT's adapters in float32; default attention (scaled_dot_product_attention), a batch padded on the right to its longest sequence, all threads.
"""
import json
import sys
import time

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from reference import LINEARS, open_model


def say(**facts):
    print(json.dumps(facts), flush=True)


def padded(examples):
    longest = max(len(e["ids"]) for e in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for row, example in enumerate(examples):
        n = len(example["ids"])
        ids[row, :n] = torch.tensor(example["ids"])
        mask[row, :n] = 1
        counts = torch.tensor(example["counts"], dtype=torch.bool)
        labels[row, :n] = torch.where(counts, ids[row, :n], -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def train(job):
    model = open_model(job["model"], attention="sdpa").to(torch.bfloat16 if job["dtype"] == "bf16" else torch.float32)
    head = model.get_output_embeddings().weight.numel()
    linears = {name: m.weight.numel() for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    linear = sum(linears.values()) - head
    # Queries of all heads of all blocks; the weights whose inputs are the embeddings.
    queries = sum(m.out_features for name, m in model.named_modules() if name.endswith(".q_proj"))
    lowest = sum(n for name, n in linears.items() if name.endswith(tuple(f"layers.0.self_attn.{p}_proj" for p in "qkv")))
    if job["method"] == "lora":
        config = LoraConfig(r=job["r"], lora_alpha=2 * job["r"], lora_dropout=0.0, target_modules=LINEARS, task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
    else:
        model.requires_grad_(True)
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    say(linear=linear, head=head, queries=queries, lowest=lowest, trained=sum(p.numel() for p in parameters))
    optimizer = torch.optim.AdamW(parameters, lr=job["lr"], weight_decay=0.0)
    for examples in job["steps"]:
        started = time.perf_counter()
        loss = model(**padded(examples), use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        say(seconds=time.perf_counter() - started, loss=loss.item())


def generate(job):
    model = open_model(job["model"], attention="sdpa")
    width = max(len(p) for p in job["prompts"])
    ids = torch.tensor([[0] * (width - len(p)) + p for p in job["prompts"]])  # padded on the left, as generate() wants it
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in job["prompts"]])
    n = job["new_tokens"]
    say(weights=sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear)))  # the head is one of them
    with torch.inference_mode():
        for _ in range(job["repeats"]):
            started = time.perf_counter()
            out = model.generate(input_ids=ids, attention_mask=mask, min_new_tokens=n, max_new_tokens=n, do_sample=False, pad_token_id=0)
            seconds = time.perf_counter() - started
            assert out.shape[1] == width + n
            say(seconds=seconds, tokens=n * len(ids))


def collect(job):
    base = open_model(job["base"], attention="sdpa")
    tuned = PeftModel.from_pretrained(open_model(job["base"], attention="sdpa"), job["adapter"]).eval()
    windows = torch.tensor(job["windows"])
    for _ in range(job["repeats"]):
        started = time.perf_counter()
        total = torch.zeros(len(job["positions"]), base.config.hidden_size)
        with torch.inference_mode():
            for ids in windows.split(job["batch"]):
                a = base(ids, output_hidden_states=True, use_cache=False).hidden_states[job["layer"] + 1]
                b = tuned(ids, output_hidden_states=True, use_cache=False).hidden_states[job["layer"] + 1]
                total += (b - a)[:, job["positions"]].sum(0)
        say(seconds=time.perf_counter() - started)
    say(mean_difference=(total / len(windows)).tolist())


def matmul():
    """GFLOP/s of a product of the shapes that a step has, the best of ten."""
    best = 0.0
    for m, k, n in [(768, 576, 1536), (1024, 576, 1536), (2048, 896, 4864)]:
        a, b = torch.randn(m, k), torch.randn(k, n)
        for _ in range(10):
            started = time.perf_counter()
            for _ in range(8):
                a @ b
            best = max(best, 8 * 2 * m * k * n / (time.perf_counter() - started) / 1e9)
    say(gflops=best)


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "matmul":
        matmul()
    elif what == "convert":
        model = open_model(rest[0])
        model.hf_quantizer = None  # the weights are float32 by now; transformers remembers that they were not
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(rest[1])
    else:
        {"train": train, "generate": generate, "collect": collect}[what](json.load(open(rest[0])))
