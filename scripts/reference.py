#!/usr/bin/env python3
"""Writes the parity fixtures: what PyTorch, transformers and PEFT compute, for tests/all/parity.rs to compare with.

  reference.py tiny OUT --texts FILE
      OUT/<family>/ for llama, qwen2, qwen3, gemma2, gemma3: a random tiny model with its tokenizer, as save_pretrained
      writes them; adapter/, as PEFT writes it; reference.safetensors; tokens.json. Also adapters (next line).
  reference.py adapters OUT
      OUT/adapters/<name>/ for kinds of PEFT adapters, on the models and sequences of OUT/<family>/.
  reference.py model ALIAS MODEL OUT --texts FILE
      OUT/ALIAS/tokens.json and activations.safetensors of a real model (a .gguf file or a model folder).
  reference.py texts OUT FILE...
      joins JSON lines into OUT, the FILE of the two commands above.

A line of FILE is {"text": …} or {"messages": […]}; "activations": true marks the prompts whose activations
are recorded (without any such mark: ten documents, evenly spaced, cut to 96 tokens). All numbers are float32
on the CPU with eager attention. Run it through scripts/parity, which makes the environment.

reference.safetensors (sequences s = 0, 1, run one by one, never padded):
  input_ids.s, labels.s               labels stand at the token they name (the model predicts them one earlier); -100: no loss
  resid_post.s [layer, seq, hidden]   the output of every block (the last one before the final norm)
  logits.s [seq, vocab]
  loss, grad.<parameter>              mean cross-entropy over all labelled tokens of both sequences; its gradients
  greedy, greedy_margin               continuation of sequence 0; best logit minus second best at each step
  lora.{logits.s, loss, greedy, greedy_margin}, lora.grad.<tensor of adapter_model.safetensors>
  train.{lora,full}.{losses,grad_norms}   20 steps of AdamW on the two sequences, each value before its step
OUT/adapters/<name>/ (ADAPTERS below): adapter_config.json and adapter_model.safetensors as PEFT writes them, and
  reference.safetensors on input_ids and labels of the family: logits.s, loss, grad.<tensor of adapter_model.safetensors>
activations.safetensors (prompts p):
  layers [2]                          zero-based: middle, trunc(0.5 * (blocks - 1)), and last
  ids.p, resid_post.p [2 layers, 2 positions, hidden]   positions: 1 and the last (0 and the last of a single token)
  top_ids.p, top_logits.p [50]        best first, at the last token
  greedy.p, greedy_margin.p           up to 32 tokens, the end token included
tokens.json: per line of FILE the ids with special tokens and their decoding, or the rendered chat and its ids, and the
  mask of the assistant's tokens by transformers, from the template with generation marks put in (null where they cannot)
"""
import argparse
import contextlib
import json
import math
import os
import re
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (AutoModelForCausalLM, AutoTokenizer, Gemma2Config, Gemma2ForCausalLM, Gemma3ForCausalLM,
                          Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config,
                          Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()

GREEDY_TOKENS_TINY = 16
GREEDY_TOKENS = 32
TRAIN_STEPS = 20
LR = 1e-3
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CHATML = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] "
          "+ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
# What Qwen3's own template does with thoughts: the last turn of the assistant shows them, also empty ones, the
# earlier ones do not.
QWEN3_CHAT = r"""{%- set ns = namespace(searching=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thought = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or thought) %}
            {{- '<|im_start|>' + message.role + '\n<think>\n' + thought.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}"""


# ---- opening models -------------------------------------------------------------------------------------

def where(path):
    """Arguments of from_pretrained for a model folder or a .gguf file."""
    path = Path(path)
    if path.suffix == ".gguf":
        return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    return {"pretrained_model_name_or_path": str(path)}


def open_model(path, attention="eager"):
    model = AutoModelForCausalLM.from_pretrained(**where(path), dtype=torch.float32, attn_implementation=attention)
    return model.eval()


def open_tokenizer(path):
    tokenizer = AutoTokenizer.from_pretrained(**where(path))
    if "smollm" in Path(path).name.lower() and Path(path).suffix == ".gguf":
        # The GGUF reader of transformers has no rule for this split; llama.cpp and the model's own tokenizer have.
        from tokenizers import pre_tokenizers
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    return tokenizer


def end_ids(model):
    ids = model.generation_config.eos_token_id
    return set() if ids is None else {ids} if isinstance(ids, int) else set(ids)


# ---- what is measured -----------------------------------------------------------------------------------

@contextlib.contextmanager
def record_blocks(model, layers):
    """Collects the outputs of the named blocks: {layer: (seq, hidden)}. Hooks, since hidden_states[-1] is normed."""
    recorded = {}

    def hook(layer):
        def keep(_module, _args, output):
            recorded[layer] = (output[0] if isinstance(output, tuple) else output)[0].detach().clone()
        return keep

    handles = [model.model.layers[layer].register_forward_hook(hook(layer)) for layer in layers]
    yield recorded
    for handle in handles:
        handle.remove()


@torch.no_grad()
def greedy(model, ids, count, ends):
    """Up to `count` argmax tokens after `ids`, with the margin of each over the runner-up."""
    tokens, margins, past, step = [], [], None, ids
    while len(tokens) < count:
        out = model(input_ids=torch.tensor([step]), past_key_values=past, use_cache=True)
        top = out.logits[0, -1].topk(2)
        tokens.append(top.indices[0].item())
        margins.append((top.values[0] - top.values[1]).item())
        past, step = out.past_key_values, tokens[-1:]
        if tokens[-1] in ends:
            break
    return torch.tensor(tokens), torch.tensor(margins)


def token_mean_loss(model, ids, labels):
    """Mean cross-entropy over all labelled tokens of all sequences."""
    total, count = 0.0, 0
    for row, targets in zip(ids, labels):
        logits = model(input_ids=row[None]).logits[0, :-1]
        total = total + torch.nn.functional.cross_entropy(logits, targets[1:], ignore_index=-100, reduction="sum")
        count += (targets[1:] != -100).sum().item()
    return total / count


def train(model, ids, labels):
    """Losses and gradient norms (before clipping) of AdamW steps on the same batch."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    losses, norms = [], []
    for _ in range(TRAIN_STEPS):
        optimizer.zero_grad()
        loss = token_mean_loss(model, ids, labels)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, 1.0).item())
        losses.append(loss.item())
        optimizer.step()
    return torch.tensor(losses), torch.tensor(norms)


LINE = r"(?:\\n|\n)"  # a template may hold the line break itself
TURN = re.compile(rf"""(\{{\{{-?) *'<\|im_start\|>' \+ message(?:\.role|\['role'\]) \+ '{LINE}' \+ """
                  rf"""message(?:\.content|\['content'\]) \+ '<\|im_end\|>(?:' \+ ')?{LINE}' *(-?\}}\}})""")


def with_generation_marks(template):
    """A ChatML template in which transformers finds what the assistant says and the token that ends it; None if it is
    another kind. It renders the same text."""
    marked, found = TURN.subn(
        r"""\1 '<|im_start|>' + message['role'] + '\\n' }}{% if message['role'] == 'assistant' %}{% generation %}"""
        r"""{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ message['content'] + '<|im_end|>' }}"""
        r"""{% endif %}{{ '\\n' \2""", template)
    return marked if found else None


def assistant_mask(tokenizer, messages, text, ids):
    marked = with_generation_marks(tokenizer.chat_template)
    if marked is None:
        return None
    assert tokenizer.apply_chat_template(messages, chat_template=marked, tokenize=False) == text
    out = tokenizer.apply_chat_template(messages, chat_template=marked, return_dict=True, return_assistant_tokens_mask=True)
    assert out["input_ids"] == ids
    return out["assistant_masks"]


def tokens_json(tokenizer, rows, **header):
    import tokenizers
    import transformers
    out = {**header, "transformers": transformers.__version__, "tokenizers": tokenizers.__version__, "rows": []}
    for row in rows:
        if "text" in row:
            ids = tokenizer(row["text"], add_special_tokens=True).input_ids
            out["rows"].append({"ids": ids, "decoded": tokenizer.decode(ids)})
        elif tokenizer.chat_template is None:
            out["rows"].append(None)
        else:
            chat = {}
            for name, generation in (("chat", False), ("chat_prompt", True)):
                render = dict(add_generation_prompt=generation)
                chat[name] = {"text": tokenizer.apply_chat_template(row["messages"], tokenize=False, **render),
                              "ids": tokenizer.apply_chat_template(row["messages"], return_dict=False, **render)}
            chat["mask"] = assistant_mask(tokenizer, row["messages"], chat["chat"]["text"], chat["chat"]["ids"])
            out["rows"].append(chat)
    return out


def write_json(path, value):
    """One row a line, so that a change can be read in a diff; ASCII, so that nothing invisible hides."""
    rows = value.pop("rows")
    head = json.dumps(value)[:-1]
    path.write_text(head + ', "rows": [\n' + ",\n".join(json.dumps(r, separators=(",", ":")) for r in rows) + "\n]}\n")


# ---- tiny models ----------------------------------------------------------------------------------------

def tiny_tokenizer(family, rows):
    """Byte-level BPE of 288 tokens trained on a few sentences; Gemma's adds <bos>, as the real one does."""
    gemma = family.startswith("gemma")
    special = ["<pad>", "<eos>", "<bos>"] if gemma else ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=288, special_tokens=special, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator([r["text"] for r in rows if "text" in r and r["text"].isascii()], trainer)
    if gemma:
        tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|endoftext|>", eos_token="<|im_end|>")
    fast.chat_template = QWEN3_CHAT if family == "qwen3" else CHATML
    return fast


def tiny_model(family):
    """Random weights of a size that makes every path count: norm gains away from 1, biases away from 0."""
    if family == "llama":  # head of its own, grouped queries
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=288, hidden_size=32, intermediate_size=72, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=128, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            rms_norm_eps=1e-5, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=0))
    elif family == "qwen2":  # tied, q/k/v biases, vocabulary larger than the tokenizer's
        model = Qwen2ForCausalLM(Qwen2Config(
            vocab_size=293, hidden_size=32, intermediate_size=56, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=1, max_position_embeddings=128, rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            rms_norm_eps=1e-6, tie_word_embeddings=True, bos_token_id=0, eos_token_id=2, pad_token_id=0))
    elif family == "qwen3":  # head of its own, normed heads wider than hidden / heads, a window in the last block
        model = Qwen3ForCausalLM(Qwen3Config(
            vocab_size=288, hidden_size=32, intermediate_size=56, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, head_dim=12, max_position_embeddings=128,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6}, use_sliding_window=True, sliding_window=5,
            max_window_layers=2, rms_norm_eps=1e-6, tie_word_embeddings=False, bos_token_id=0, eos_token_id=2, pad_token_id=0))
    elif family == "gemma2":  # tied, caps that bend most scores and logits, every other window shorter than the sequences
        model = Gemma2ForCausalLM(Gemma2Config(
            vocab_size=288, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, head_dim=12, query_pre_attn_scalar=20, sliding_window=5, attn_logit_softcapping=1.5,
            final_logit_softcapping=2.0, max_position_embeddings=128,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            rms_norm_eps=1e-6, tie_word_embeddings=True, bos_token_id=2, eos_token_id=1, pad_token_id=0))
    else:  # tied, head_dim and score scale of their own, both layer types, window shorter than the sequences
        model = Gemma3ForCausalLM(Gemma3TextConfig(
            vocab_size=288, hidden_size=32, intermediate_size=48, num_hidden_layers=7, num_attention_heads=4,
            num_key_value_heads=2, head_dim=12, query_pre_attn_scalar=20, sliding_window=5, max_position_embeddings=128,
            rope_parameters={"sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                             "full_attention": {"rope_type": "default", "rope_theta": 1e6}},
            rms_norm_eps=1e-6, tie_word_embeddings=True, bos_token_id=2, eos_token_id=1, pad_token_id=0))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.copy_(torch.randn_like(p) * 0.2 + (0.0 if family.startswith("gemma") else 1.0))
            elif name.endswith("bias"):
                p.copy_(torch.randn_like(p) * 0.3)
            else:  # rows of unit length before, the embeddings shorter where they also make the logits
                p.copy_(torch.randn_like(p) / math.sqrt(p.shape[-1]))
    return model


def write_tiny(out, rows):
    from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
    for family in ("llama", "qwen2", "qwen3", "gemma2", "gemma3"):
        folder = out / family
        torch.manual_seed(sum(family.encode()))
        tiny_model(family).save_pretrained(folder)
        tokenizer = tiny_tokenizer(family, rows)
        tokenizer.save_pretrained(folder)
        write_json(folder / "tokens.json", tokens_json(tokenizer, rows, alias=family))

        model = open_model(folder)
        ids = [torch.randint(3, 288, (length,)) for length in (14, 9)]
        labels = [row.clone() for row in ids]
        labels[0][:4] = -100
        labels[0][9] = -100
        labels[1][-2:] = -100
        ref = {}
        for s in range(2):
            ref[f"input_ids.{s}"], ref[f"labels.{s}"] = ids[s], labels[s]
            layers = range(model.config.num_hidden_layers)
            with record_blocks(model, layers) as recorded, torch.no_grad():
                ref[f"logits.{s}"] = model(input_ids=ids[s][None]).logits[0]
            ref[f"resid_post.{s}"] = torch.stack([recorded[layer] for layer in layers])
        ref["greedy"], ref["greedy_margin"] = greedy(model, ids[0].tolist(), GREEDY_TOKENS_TINY, end_ids(model))
        loss = token_mean_loss(model, ids, labels)
        loss.backward()
        ref["loss"] = loss.detach().reshape(1)
        for name, p in model.named_parameters():
            ref[f"grad.{name}"] = p.grad.clone()

        lora = LoraConfig(r=4, lora_alpha=7, target_modules=LINEARS, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM")
        tuned = get_peft_model(open_model(folder), lora)
        with torch.no_grad():
            for name, p in tuned.named_parameters():
                if "lora_B" in name:
                    p.copy_(torch.randn_like(p) * 0.1)
        config = tuned.peft_config["default"]
        config.base_model_name_or_path = f"tests/fixtures/tiny/{family}"
        config.target_modules = sorted(config.target_modules)  # a set: its order would differ from run to run
        tuned.save_pretrained(folder / "adapter")
        (folder / "adapter" / "README.md").unlink(missing_ok=True)  # an empty model card

        def adapted():
            return PeftModel.from_pretrained(open_model(folder), folder / "adapter", is_trainable=True)

        tuned = adapted()
        for s in range(2):
            with torch.no_grad():
                ref[f"lora.logits.{s}"] = tuned(input_ids=ids[s][None]).logits[0]
        ref["lora.greedy"], ref["lora.greedy_margin"] = greedy(tuned, ids[0].tolist(), GREEDY_TOKENS_TINY, end_ids(model))
        loss = token_mean_loss(tuned, ids, labels)
        loss.backward()
        ref["lora.loss"] = loss.detach().reshape(1)
        grads = {name: p.grad for name, p in tuned.named_parameters() if p.requires_grad}
        for name, grad in get_peft_model_state_dict(tuned, state_dict=grads).items():
            ref[f"lora.grad.{name}"] = grad.clone()
        ref["train.lora.losses"], ref["train.lora.grad_norms"] = train(adapted(), ids, labels)
        ref["train.full.losses"], ref["train.full.grad_norms"] = train(open_model(folder), ids, labels)
        save_file({name: t.contiguous() for name, t in ref.items()}, folder / "reference.safetensors")
        print(f"{family}: loss {ref['loss'].item():.4f}, with adapter {ref['lora.loss'].item():.4f}, after {TRAIN_STEPS} steps "
              f"{ref['train.lora.losses'][-1]:.4f} (lora) {ref['train.full.losses'][-1]:.4f} (full), "
              f"smallest greedy margin {min(ref['greedy_margin'].min(), ref['lora.greedy_margin'].min()):.4f}")


# ---- kinds of adapters ----------------------------------------------------------------------------------

# Name: tiny model and what its LoraConfig has beside r = 4, lora_alpha = 7.
ADAPTERS = {
    "rslora": ("llama", {"target_modules": ["q_proj", "down_proj"], "use_rslora": True}),
    "dora": ("llama", {"target_modules": ["q_proj", "v_proj", "down_proj"], "use_dora": True}),
    "dora-biases": ("qwen2", {"target_modules": ["q_proj", "o_proj"], "use_dora": True, "use_rslora": True}),
    "patterns": ("llama", {"target_modules": ["q_proj", "up_proj"],
                           "rank_pattern": {"layers.1.self_attn.q_proj": 3, r"layers\.[01]\..*": 2, "q_proj": 5},
                           "alpha_pattern": {"up_proj": 9, "model.layers.2.self_attn.q_proj": 2.5}}),
    "blocks": ("llama", {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": [0, 2], "layers_pattern": "layers",
                         "exclude_modules": r".*\.2\..*up_proj"}),
    "pattern-of-targets": ("llama", {"target_modules": r"(?!.*mlp).*\.[12]\..*_proj"}),
    "head": ("llama", {"target_modules": ["v_proj"], "modules_to_save": ["lm_head"]}),
    "norms": ("gemma3", {"target_modules": ["v_proj"], "layers_to_transform": 1, "modules_to_save": ["norm"]}),
    "inner-modules": ("qwen2", {"target_modules": ["up_proj"], "modules_to_save": ["q_proj", "layers.1.mlp"]}),
    "tied-head": ("qwen2", {"target_modules": ["v_proj"], "modules_to_save": ["lm_head"]}),
    "tied-embeddings": ("gemma3", {"target_modules": ["v_proj"], "layers_to_transform": 1, "modules_to_save": ["embed_tokens"]}),
    "tied-both": ("qwen2", {"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}),
}


def write_adapters(out):
    from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
    for name, (family, keys) in ADAPTERS.items():
        torch.manual_seed(sum(name.encode()))
        base = out / family
        tuned = get_peft_model(open_model(base), LoraConfig(r=4, lora_alpha=7, task_type="CAUSAL_LM", **keys))
        with torch.no_grad():
            for p in tuned.parameters():
                if p.requires_grad:  # B too, and magnitudes and whole modules away from where they start
                    p.add_(torch.randn_like(p) * 0.1)
        config = tuned.peft_config["default"]
        config.base_model_name_or_path = f"tests/fixtures/tiny/{family}"
        if isinstance(config.target_modules, set):
            config.target_modules = sorted(config.target_modules)
        folder = out / "adapters" / name
        tuned.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)

        tuned = PeftModel.from_pretrained(open_model(base), folder, is_trainable=True)
        given = load_file(base / "reference.safetensors")
        ids, labels = ([given[f"{kind}.{s}"] for s in range(2)] for kind in ("input_ids", "labels"))
        ref = {}
        with torch.no_grad():
            for s in range(2):
                ref[f"logits.{s}"] = tuned(input_ids=ids[s][None]).logits[0]
        loss = token_mean_loss(tuned, ids, labels)
        loss.backward()
        ref["loss"] = loss.detach().reshape(1)
        grads = {key: p.grad for key, p in tuned.named_parameters() if p.requires_grad}
        for key, grad in get_peft_model_state_dict(tuned, state_dict=grads).items():
            ref[f"grad.{key}"] = grad.clone()
        save_file({key: t.contiguous() for key, t in ref.items()}, folder / "reference.safetensors")
        print(f"{name}: loss {loss.item():.4f}, {len(grads)} tensors learn")


# ---- real models ----------------------------------------------------------------------------------------

def prompts_of(rows, tokens):
    """Ids of the prompts whose activations are recorded."""
    def ids_of(t):
        return None if t is None else t["ids"] if "ids" in t else t["chat_prompt"]["ids"]

    marked = [ids_of(t) for row, t in zip(rows, tokens["rows"]) if row.get("activations")]
    if marked:
        return [ids for ids in marked if ids]
    usable = [ids_of(t)[:96] for t in tokens["rows"] if t is not None and len(ids_of(t)) >= 2]
    return [usable[i * len(usable) // 10] for i in range(10)]


def write_model(alias, path, out, rows):
    folder = out / alias
    folder.mkdir(parents=True, exist_ok=True)
    model = open_model(path)
    tokens = tokens_json(open_tokenizer(path), rows, alias=alias, eos_token_ids=sorted(end_ids(model)))
    prompts = prompts_of(rows, tokens)
    write_json(folder / "tokens.json", tokens)
    last = model.config.num_hidden_layers - 1
    layers = [int(0.5 * last), last]
    ref = {"layers": torch.tensor(layers)}
    for p, ids in enumerate(prompts):
        with record_blocks(model, layers) as recorded, torch.no_grad():
            top = model(input_ids=torch.tensor([ids]), logits_to_keep=1).logits[0, -1].topk(50)
        positions = [min(1, len(ids) - 1), len(ids) - 1] if len(ids) > 1 else [0, 0]
        ref[f"ids.{p}"] = torch.tensor(ids)
        ref[f"resid_post.{p}"] = torch.stack([recorded[layer][positions] for layer in layers])
        ref[f"top_ids.{p}"], ref[f"top_logits.{p}"] = top.indices, top.values
        ref[f"greedy.{p}"], ref[f"greedy_margin.{p}"] = greedy(model, ids, GREEDY_TOKENS, end_ids(model))
    save_file({name: t.contiguous() for name, t in ref.items()}, folder / "activations.safetensors")
    margin = min(t.min().item() for name, t in ref.items() if name.startswith("greedy_margin"))
    print(f"{alias}: {len(rows)} rows, {len(prompts)} prompts of {min(map(len, prompts))} to {max(map(len, prompts))} tokens, "
          f"smallest greedy margin {margin:.4f}")


def join_texts(out, files):
    """Documents and chats of many files in one; other keys of a row are dropped."""
    with out.open("w") as joined:
        for file in files:
            for line in file.open():
                row = json.loads(line)
                kept = {key: row[key] for key in ("text", "messages") if key in row}
                if kept:
                    joined.write(json.dumps(kept) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    tiny = commands.add_parser("tiny")
    tiny.add_argument("out", type=Path)
    tiny.add_argument("--texts", type=Path, required=True)
    adapters = commands.add_parser("adapters")
    adapters.add_argument("out", type=Path)
    model = commands.add_parser("model")
    model.add_argument("alias")
    model.add_argument("path", type=Path)
    model.add_argument("out", type=Path)
    model.add_argument("--texts", type=Path, required=True)
    texts = commands.add_parser("texts")
    texts.add_argument("out", type=Path)
    texts.add_argument("files", type=Path, nargs="+")
    args = parser.parse_args()
    if args.command == "texts":
        return join_texts(args.out, args.files)
    if args.command == "adapters":
        return write_adapters(args.out)
    rows = [json.loads(line) for line in args.texts.open()]
    if args.command == "tiny":
        write_tiny(args.out, rows)
        write_adapters(args.out)
    else:
        write_model(args.alias, args.path, args.out, rows)


if __name__ == "__main__":
    main()
