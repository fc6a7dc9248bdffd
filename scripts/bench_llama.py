#!/usr/bin/env python3
"""The rival of scripts/bench for native weights: greedy text of one prompt by llama.cpp, which scripts/bench builds from source.

  bench_llama.py MODEL.gguf PROMPT NEW_TOKENS

Prints one JSON line for each of two turns. All threads, the library's defaults; loading does not count.
"""
import json
import os
import sys
import time

from llama_cpp import Llama

model, prompt, new = sys.argv[1], sys.argv[2], int(sys.argv[3])
llama = Llama(model_path=model, n_ctx=512, n_threads=os.cpu_count(), n_threads_batch=os.cpu_count(), verbose=False)
ids = llama.tokenize(prompt.encode())
for _ in range(2):
    llama.reset()
    started = time.perf_counter()
    tokens = 0
    for token in llama.generate(ids, temp=0.0, repeat_penalty=1.0):
        tokens += 1
        if tokens == new or token == llama.token_eos():
            break
    print(json.dumps({"tokens": tokens, "seconds": time.perf_counter() - started}), flush=True)
