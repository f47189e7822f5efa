#!/usr/bin/env python3
"""llama.cpp's rates on the same file: llama_job.py MODEL.gguf THREADS PROMPT_TOKENS prints {"prefill":,"decode":} in tokens/s."""
import json
import sys
import time

from llama_cpp import Llama

path, threads, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
llama = Llama(path, n_ctx=2048, n_threads=threads, n_threads_batch=threads, n_batch=2048, verbose=False)
ids = [1 + i * 7919 % 40000 for i in range(count)]
llama.eval(ids[:8])
llama.reset()
begin = time.perf_counter()
llama.eval(ids)
prefill = count / (time.perf_counter() - begin)
llama.reset()
llama.eval(ids[:32])
begin = time.perf_counter()
for i in range(128):
    llama.eval([ids[i]])
print(json.dumps(dict(prefill=prefill, decode=128 / (time.perf_counter() - begin))))
