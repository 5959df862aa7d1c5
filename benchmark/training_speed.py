#!/usr/bin/env python3
"""Training speed of `llava-mini train` beside the same model written in Python's torch, in turns in one run.

    apt install python3-torch python3-sentencepiece
    /usr/bin/python3 benchmark/training_speed.py [--threads N] [--rounds N] [--steps N]

Both train models of recipes/tiny.json's shapes on scenes: the dense phase (tower and projector, a cross entropy over the
vocabulary at every patch) and questions (everything, C = 1), with the recipe's batches. The Python side does what a
careful author would: the tower once a picture, all questions of a batch padded to one length, fused products for q, k, v
and gate, up, torch's own AdamW with its foreach kernels. Its data lie ready in memory; ours are made while it trains.
Prints samples a second, the ratio, and which share of the GEMM peak (a large f32 product on the same threads, by the
same OpenBLAS) all operations of our training make, data, optimiser and everything else included in the time.
"""

import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import sentencepiece
import torch
from torch import nn
from torch.nn import functional as F

ROOT = pathlib.Path(__file__).resolve().parent.parent
TRAINER = os.environ.get("LLAVA_MINI", str(ROOT / "build/release/bin/llava-mini"))
REGISTERS = 4  # tokens of the prompt that hold no word


def attend(q, k, v, mask=None):
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return (scores if mask is None else scores + mask).softmax(-1) @ v


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class TowerLayer(nn.Module):
    def __init__(self, width, inner, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.out(attend(q, k, v).transpose(1, 2).reshape(b, t, d))
        y = self.fc1(self.norm2(x))
        return x + self.fc2(y * torch.sigmoid(1.702 * y))


class LlamaLayer(nn.Module):
    def __init__(self, width, inner, heads):
        super().__init__()
        self.heads, self.inner = heads, inner
        self.norm1, self.norm2 = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.gate_up, self.down = nn.Linear(width, 2 * inner, bias=False), nn.Linear(inner, width, bias=False)

    @staticmethod
    def norm(x, weight):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight

    def forward(self, x, cos, sin, mask):
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm(x, self.norm1)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.out(attend(rotate(q, cos, sin), rotate(k, cos, sin), v, mask).transpose(1, 2).reshape(b, t, d))
        gate, up = self.gate_up(self.norm(x, self.norm2)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class LlavaMini(nn.Module):
    def __init__(self, config, tower):
        super().__init__()
        d, dv = config["hidden_size"], tower["hidden_size"]
        self.heads, self.patch = config["num_attention_heads"], tower["patch_size"]
        side = tower["image_size"] // self.patch
        self.patches = side * side
        self.embed = nn.Embedding(config["vocab_size"], d)
        self.patch_embed = nn.Conv2d(3, dv, self.patch, self.patch, bias=False)
        self.cls, self.positions = nn.Parameter(torch.zeros(dv)), nn.Parameter(torch.zeros(self.patches + 1, dv))
        self.pre = nn.LayerNorm(dv)
        self.tower = nn.ModuleList(TowerLayer(dv, tower["intermediate_size"], tower["num_attention_heads"])
                                   for _ in range(tower["num_hidden_layers"]))
        self.query, self.norm_q, self.norm_kv = nn.Parameter(torch.zeros(1, dv)), nn.LayerNorm(dv), nn.LayerNorm(dv)
        self.compressor = nn.MultiheadAttention(dv, dv // config["compressor_head_dim"], batch_first=True)
        self.projector = nn.Sequential(nn.Linear(dv, d), nn.GELU(), nn.Linear(d, d))
        layer = lambda: LlamaLayer(d, config["intermediate_size"], self.heads)
        self.prefusion = nn.ModuleList(layer() for _ in range(config["prefusion_layer_num"]))
        self.layers = nn.ModuleList(layer() for _ in range(config["num_hidden_layers"]))
        self.norm = nn.Parameter(torch.ones(d))
        half = config["head_dim"] // 2
        angles = torch.arange(512)[:, None] * config["rope_theta"] ** (-torch.arange(half) / half)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        self.register_buffer("mask", torch.full((512, 512), float("-inf")).triu(1))

    def features(self, pixels):
        x = self.patch_embed(pixels).flatten(2).transpose(1, 2)
        x = self.pre(torch.cat((self.cls.expand(len(x), 1, -1), x), 1) + self.positions)
        for layer in self.tower:
            x = layer(x)
        return x[:, 1:]

    def llama(self, layers, x):
        t = x.shape[1]
        for layer in layers:
            x = layer(x, self.cos[:t], self.sin[:t], self.mask[:t, :t])
        return x

    def patch_scores(self, pixels):
        return self.projector(self.features(pixels)) @ self.embed.weight.T

    def forward(self, pixels, picture_of, questions, answers, targets):
        """Questions [Q, n] are fused, answers [Q, m] are not; targets [Q, m] with -100 for padding."""
        features = self.features(pixels)
        kv = self.norm_kv(features)
        token = self.compressor(self.norm_q(self.query).expand(len(kv), 1, -1), kv, kv, need_weights=False)[0]
        vision = self.projector(torch.cat((features, token), 1))
        x = torch.cat((vision[picture_of], self.embed(questions)), 1)
        fused = self.llama(self.prefusion, x)[:, self.patches:]
        y = self.llama(self.layers, torch.cat((fused, self.embed(answers)), 1))[:, fused.shape[1] - 1:-1]
        wanted = targets != -100
        logits = LlamaLayer.norm(y[wanted], self.norm) @ self.embed.weight.T
        return F.cross_entropy(logits, targets[wanted])


def batches_of(folder, vocabulary, size, count):
    """Batches of questions from samples on disk, tokenized and padded; pixels are noise of the right shape."""
    samples = json.loads((folder / "samples.json").read_text())
    made = []
    for first in range(0, size * count, size):
        questions, answers, picture_of = [], [], []
        for picture, sample in enumerate(samples[first:first + size]):
            turns = sample["conversations"]
            for human, gpt in zip(turns[::2], turns[1::2]):
                text = human["value"].replace("<image>\n", "")
                questions.append(vocabulary.encode("\n" + text) + [3] * REGISTERS)
                answers.append(vocabulary.encode(gpt["value"]) + [2])
                picture_of.append(picture)
        pad = lambda rows, value: torch.tensor([row + [value] * (max(map(len, rows)) - len(row)) for row in rows])
        made.append((torch.randn(size, 3, 96, 96), torch.tensor(picture_of), pad(questions, 0), pad(answers, 0),
                     pad(answers, -100)))
    return made


def python_rate(model, phase, batches, dense):
    parameters = [p for name, p in model.named_parameters()
                  if not dense or name.startswith(("tower", "projector", "embed", "patch", "pre.", "cls", "pos"))]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=tuple(phase["betas"]), foreach=True)
    start = None
    for step, batch in enumerate(batches):
        if step == 5:
            start = time.monotonic()  # the first steps warm up
        optimizer.zero_grad(set_to_none=True)
        if dense:
            scores = model.patch_scores(batch[0])
            loss = F.cross_entropy(scores.flatten(0, 1), torch.randint(2048, (scores.shape[0] * scores.shape[1],)))
        else:
            loss = model(*batch)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return (len(batches) - 5) * len(batches[0][0]) / (time.monotonic() - start)


def gemm_peak(side=1536, rounds=20):
    """GFLOP/s of the fastest of some products of square matrices."""
    a, b, best = torch.randn(side, side), torch.randn(side, side), math.inf
    for _ in range(rounds):
        start = time.monotonic()
        torch.mm(a, b)
        best = min(best, time.monotonic() - start)
    return 2 * side ** 3 / best / 1e9


def our_rate(recipe, phase, steps, threads, folder):
    phase = {**phase, "samples": phase["batch"] * steps, "loss": {"answers": 1.0} if phase["name"] != "dense" else
             phase["loss"], "grids": [1]}
    (folder / "recipe.json").write_text(json.dumps({**recipe, "phases": [phase], "validation_samples": 0}))
    out = folder / f"{phase['name']}-{time.monotonic_ns()}"
    subprocess.run([TRAINER, "train", "--recipe", folder / "recipe.json", "--tokenizer", ROOT / "recipes/tiny-tokenizer",
                    "--out", out, "-t", str(threads), "--log-every", str(steps // 2)], check=True,
                   stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    events = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    last = [event for event in events if event["event"] == "train"][-1]
    return last["samples_per_s"], last["gflops_per_s"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    torch.manual_seed(1)
    recipe = json.loads((ROOT / "recipes/tiny.json").read_text())
    phases = {phase["name"]: phase for phase in recipe["phases"]}
    vocabulary = sentencepiece.SentencePieceProcessor(model_file=str(ROOT / "recipes/tiny-tokenizer/tokenizer.model"))
    model = LlavaMini(recipe["model"]["config"], recipe["model"]["tower"])
    print(f"torch {torch.__version__}, {flags.threads} threads, {sum(p.numel() for p in model.parameters()):,} weights")
    peak = gemm_peak()
    print(f"GEMM peak {peak:.0f} GFLOP/s")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        for name in ("dense", "questions"):
            phase = phases[name]
            size = phase["batch"]
            options = phase["data"][-2 if name == "questions" else 0]["options"]
            turns = [str(options.get(key, usual)) for key, usual in (("min_turns", 4), ("max_turns", 8))]
            subprocess.run([TRAINER, "scenes", "-N", str(size * (flags.steps + 5)), "--things", "1",
                            str(options["max_things"]), "--turns", *turns, "--out", folder / name], check=True,
                           stderr=subprocess.DEVNULL)
            batches = batches_of(folder / name, vocabulary, size, flags.steps + 5)
            ours, theirs = [], []
            for _ in range(flags.rounds):
                ours.append(our_rate(recipe, phase, flags.steps, flags.threads, folder))
                theirs.append(python_rate(model, phase, batches, name == "dense"))
            (a, gflops), b = sorted(ours)[len(ours) // 2], sorted(theirs)[len(theirs) // 2]
            print(f"{name}: llava-mini {a:.1f} samples/s, Python's torch {b:.1f}, ratio {a / b:.2f}; "
                  f"{gflops:.1f} GFLOP/s, {gflops / peak:.0%} of the GEMM peak", flush=True)


if __name__ == "__main__":
    sys.exit(main())
