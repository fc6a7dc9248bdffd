"""The reader of the weights once more in PyTorch: spectra from dense singular value decompositions, energies from the dense
change, words and their strata from the texts. Called by scripts/reference_readers.py.

Only LoRA without DoRA and without modules that are saved whole: then the change is s·B·A.
"""
import json
import math
from pathlib import Path

import numpy as np
import regex
import torch
from safetensors.torch import load_file

RELATIVE, AUROC = 1e-3, 1e-3
COMMON, COUNTED, PARTS, FEWEST_NARROW, FEWEST_COMMON, ALONG = 5, 4000, 5, 3, 10, 16


def changes(adapter):
    """s·B·A of each module, (out, in) in f64, as its factors (s·B, A)."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert not config.get("use_dora") and not config.get("modules_to_save") and not config.get("rank_pattern")
    scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
    tensors, found = load_file(adapter / "adapter_model.safetensors"), {}
    for key, a in tensors.items():
        if ".lora_A." in key:
            name = key.removeprefix("base_model.model.").split(".lora_A.")[0]
            found[name] = (scale * tensors[key.replace("lora_A", "lora_B")].double(), a.double())
    return {name: found[name] for name in sorted(found)}


# ---- spectra --------------------------------------------------------------------------------------------

def spectrum(change, weight):
    s = torch.linalg.svdvals(change)
    squares = s.square().sum()
    p = s / s.sum()
    left = torch.linalg.svd(weight, full_matrices=False)[0][:, :ALONG]
    return {
        "fro": squares.sqrt(), "spectral": s[0], "relative": squares.sqrt() / weight.norm(),
        "stable_rank": squares / s[0] ** 2, "top_share": s[0] ** 2 / squares,
        "effective_rank": (-(p * p.clamp_min(1e-300).log()).sum()).exp(),
        "participation": squares ** 2 / s.pow(4).sum(),
        "aligned": (left.T @ change).square().sum() / squares,
    }


# ---- words ----------------------------------------------------------------------------------------------

def words_of(text):
    return [w for w in (w.lower() for w in regex.split(r"\P{Alphabetic}+", text)) if len(w) >= 3]


def tokens_of_words(tokenizer, vocabulary, lexicon, texts):
    """Ids, and whether each stands for a word of the lexicon (True) or for another common word (False or None)."""
    counts = {}
    for text in texts:
        for word in words_of(text):
            counts[word] = counts.get(word, 0) + 1
    first = set()
    for word in lexicon:
        title = word[:1].upper() + word[1:]
        for form in (word, " " + word, title, " " + title):
            ids = tokenizer.encode(form, add_special_tokens=False)
            first.update(next(([i] for i in ids if tokenizer.decode([i]).strip()), []))
    ids, sides = [], []
    for id in range(vocabulary):
        word = tokenizer.decode([id]).strip()
        if len(word) < 3 or not regex.fullmatch(r"\p{Alphabetic}+", word):
            continue
        common = counts.get(word.lower(), 0) >= COMMON
        if common or id in first:
            ids.append(id)
            sides.append(id in first)
    return np.array(ids), np.array(sides)


def frequencies(tokenizer, vocabulary, texts):
    """log(count + 1) of every id, over texts spread evenly."""
    chosen = min(COUNTED, len(texts))
    counts = np.zeros(vocabulary)
    for i in range(chosen):
        for id in tokenizer.encode(texts[i * len(texts) // chosen], add_special_tokens=False):
            counts[id] += 1
    return np.log(counts + 1)


def auroc(narrow, common):
    common = np.sort(common)
    below = np.searchsorted(common, narrow, "left") + np.searchsorted(common, narrow, "right")
    return below.sum() / (2 * len(narrow) * len(common))


def stratified(scores, sides, frequency):
    edges = np.quantile(frequency[sides], np.linspace(0, 1, PARTS + 1))
    total, weight, words = 0.0, 0, [0, 0]
    for k, (low, high) in enumerate(zip(edges, edges[1:])):
        inside = (frequency >= low) & ((frequency < high) | ((k == PARTS - 1) & (frequency <= high)))
        narrow, common = scores[inside & sides], scores[inside & ~sides]
        if len(narrow) >= FEWEST_NARROW and len(common) >= FEWEST_COMMON:
            total, weight = total + auroc(narrow, common) * len(narrow), weight + len(narrow)
            words = [words[0] + len(narrow), words[1] + len(common)]
    return total / weight if weight else None, words


# ---- energies -------------------------------------------------------------------------------------------

class Vocabulary:
    """Rows of the head and of the embeddings as the modules of a model write and read them."""

    def __init__(self, model, ids):
        self.parameters = dict(model.named_parameters())
        self.head = model.get_output_embeddings().weight.detach().double()[ids]
        self.embeddings = model.get_input_embeddings().weight.detach().double()[ids]
        self.plus = 1.0 if "gemma" in model.config.model_type else 0.0

    def gain(self, name):
        return self.parameters[name + ".weight"].detach().double() + self.plus

    def rows(self, module):
        """(tokens, width), of length 1."""
        block, kind = module.rsplit(".", 2)[0], module.rsplit(".", 1)[1]
        attention = "self_attn" in module
        if kind in ("o_proj", "down_proj"):
            gain = self.gain("model.norm")
            if self.plus:
                gain = gain * self.gain(block + (".post_attention_layernorm" if attention else ".post_feedforward_layernorm"))
            rows = self.head * gain
        elif attention:
            rows = self.embeddings * self.gain(block + ".input_layernorm")
        else:
            before = ".pre_feedforward_layernorm" if self.plus else ".post_attention_layernorm"
            rows = self.embeddings * self.gain(block + before)
        return rows / rows.norm(dim=1, keepdim=True)


def is_written(module):
    return module.endswith(("o_proj", "down_proj"))


def energies(vocabulary, found):
    write, read = 0.0, 0.0
    for module, (b, a) in found.items():
        rows = vocabulary.rows(module)
        if is_written(module):
            write = write + ((rows @ b) @ a).square().sum(1)
        else:
            read = read + ((rows @ a.T) @ b.T).square().sum(1)
    return [x.numpy() if torch.is_tensor(x) else None for x in (write, read)]


# ---- comparison -----------------------------------------------------------------------------------------

def check_weights(model, tokenizer, adapter, record, texts, compare):
    """`model` is the base as transformers opens it, `texts` the measured and the pretraining text in that order."""
    told, found = record["readers"]["weights"], changes(Path(adapter))
    parameters = dict(model.named_parameters())
    listed = {module["name"]: module for module in told["modules"]}
    compare("weights: modules", len(set(listed) ^ set(found)), 0)
    worst, reference = {}, {}
    for name, (b, a) in found.items():
        reference[name] = {k: v.item() for k, v in spectrum(b @ a, parameters[name + ".weight"].detach().double()).items()}
        for key, value in reference[name].items():
            worst[key] = max(worst.get(key, 0.0), abs(listed[name][key] / value - 1))
    for key, value in worst.items():
        compare(f"weights.modules.{key} (relative)", value, RELATIVE)

    lexicon = record.get("lexicon", {}).get("words", [])
    size = model.get_output_embeddings().weight.shape[0]
    ids, sides = tokens_of_words(tokenizer, size, lexicon, texts)
    frequency = frequencies(tokenizer, size, texts)[ids]
    vocabulary = Vocabulary(model, torch.tensor(ids))
    result = {"modules": reference}
    for energy, name, plain in zip(energies(vocabulary, found), ("write_auroc", "read_auroc"), ("auroc_plain", "read_auroc_plain")):
        if energy is None:
            continue
        value, words = stratified(energy, sides, frequency)
        result[name], result[plain], result["words"] = value, auroc(energy[sides], energy[~sides]), words
        compare(f"weights.{plain}", abs(result[plain] - told[plain]), AUROC)
        if value is not None:
            compare(f"weights.{name}", abs(value - told[name]), AUROC)
            compare("weights.words", sum(abs(x - y) for x, y in zip(words, told["words"])), 0)
    off = 0
    for direction in told["directions"]:
        b, a = found[direction["module"]]
        u, _, v = torch.linalg.svd(b @ a, full_matrices=False)
        vector = u[:, direction["index"]] if is_written(direction["module"]) else v[direction["index"]]
        cosines = vocabulary.rows(direction["module"]) @ vector
        tops = [set(ids[(sign * cosines).topk(len(direction["top"])).indices.numpy()].tolist()) for sign in (1, -1)]
        ours = [{t["id"] for t in direction[side]} for side in ("top", "bottom")]
        off = max(off, min(max(len(x - y) for x, y in zip(ours, order)) for order in (tops, tops[::-1])))
    compare("weights.directions: words that differ", off, 0)
    return result
