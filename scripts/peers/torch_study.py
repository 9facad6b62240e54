"""The default study as a plain PyTorch script, channels_last. Needs torch, numpy, scikit-learn.

    python scripts/peers/torch_study.py [--seeds 3] [--epochs 6] [--pools max,aps] [--strides 2,3]
                                        [--shifts all|places] [--processes 1] [--out FILE.csv]

Digits are learned near the centre of a 36 x 36 canvas and judged at 49 places or, for `all`, at all
1,296 circular shifts, each image rolled and run. A row a trial.
"""

import argparse
import csv
import functools
import itertools
import math
import multiprocessing
import os
import sys
import time
from concurrent import futures

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

SIDE, WIDTHS, KERNEL, WINDOW, CLASSES = 36, (8, 16), 5, 3, 10
BATCH, RATE, WARMUP, REACH, TEST, PART = 16, 0.03, 0.05, 2, 360, 60
POOLS = ("max", "min", "sum", "mean", "decimate", "max_blur", "aps")
COLUMNS = ("pool", "stride", "seed", "accuracy", "accuracy_away", "consistency", "seconds")


def load():
    """Return (train images, labels, test images, labels); images (N, 1, 36, 36) in [0, 1]."""
    ink, labels = load_digits(return_X_y=True)
    small = ink.reshape(-1, 8, 8).astype(np.float32) / 16
    large = small.repeat(2, axis=1).repeat(2, axis=2)
    images = np.pad(large, ((0, 0), (10, 10), (10, 10)))[:, None]
    parts = train_test_split(images, labels, test_size=TEST, stratify=labels, random_state=0)
    x, x_test, y, y_test = map(torch.from_numpy, parts)
    x, x_test = (part.contiguous(memory_format=torch.channels_last) for part in (x, x_test))
    return x, y, x_test, y_test


def pad(x):
    """Pad height and width by one pixel, around the torus."""
    return F.pad(x, (1, 1, 1, 1), mode="circular")


def max_pool(x, stride):
    return F.max_pool2d(pad(x), WINDOW, stride)


def mean_pool(x, stride):
    return F.avg_pool2d(pad(x), WINDOW, stride)


def blur_pool(x, stride):
    """The binomial filter 1 2 1, then every stride-th sample (Zhang 2019)."""
    row = torch.tensor([1.0, 2.0, 1.0]) / 4
    channels = x.shape[1]
    kernel = torch.outer(row, row).expand(channels, 1, 3, 3)
    return F.conv2d(pad(x), kernel, stride=stride, groups=channels)


def aps(x, stride):
    """The polyphase component of largest norm (Chaman and Dokmanic 2021)."""
    phases = itertools.product(range(stride), range(stride))
    parts = torch.stack([x[:, :, i::stride, j::stride] for i, j in phases], dim=1)
    best = parts.square().sum((2, 3, 4)).argmax(1)
    return parts[torch.arange(len(x)), best]


POOLING = {
    "max": max_pool,
    "min": lambda x, stride: -max_pool(-x, stride),
    "mean": mean_pool,
    "sum": lambda x, stride: WINDOW**2 * mean_pool(x, stride),
    "max_blur": lambda x, stride: blur_pool(max_pool(x, 1), stride),
    "aps": aps,
}


class Net(nn.Module):
    """Convolution, batch norm, ReLU, pool a width; global average; logits."""

    def __init__(self, pool, stride):
        super().__init__()
        self.pool, self.stride = pool, stride
        step, border = stride if pool == "decimate" else 1, KERNEL // 2
        self.convs, self.norms, before = nn.ModuleList(), nn.ModuleList(), 1
        for width in WIDTHS:
            conv = nn.Conv2d(before, width, KERNEL, step, border, padding_mode="circular")
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)
            self.convs.append(conv)
            self.norms.append(nn.BatchNorm2d(width))
            before = width
        self.logits = nn.Linear(before, CLASSES)

    def forward(self, x):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
            if self.pool != "decimate":
                x = POOLING[self.pool](x, self.stride)
        return self.logits(x.mean((2, 3)))


def move(images):
    """Return every image moved by up to REACH pixels; only black leaves the canvas."""
    moved = F.pad(images, (REACH,) * 4)
    rows, columns = (torch.randint(0, 2 * REACH + 1, (len(images), 1)) for _ in range(2))
    rows, columns = rows + torch.arange(SIDE), columns + torch.arange(SIDE)
    which = torch.arange(len(images))[:, None, None]
    return moved[which, 0, rows[:, :, None], columns[:, None, :]][:, None]


def rate(step, steps):
    """Return the share of RATE at a step: a linear rise, then half a cosine."""
    rise = round(WARMUP * steps)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))


def train(net, images, labels, epochs):
    """Train the network in place."""
    count = -(-len(labels) // BATCH)
    steps = epochs * count
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, functools.partial(rate, steps=steps))
    net.train()
    for _ in range(epochs):
        order = torch.from_numpy(np.resize(torch.randperm(len(labels)).numpy(), count * BATCH))
        for rows in order.reshape(count, BATCH):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(net(move(images[rows])), labels[rows]).backward()
            optimizer.step()
            schedule.step()


@torch.inference_mode()
def judge(net, images, labels, shifts):
    """Return accuracy in place, accuracy away, and how often two places of an image agree."""
    net.eval()
    # In parts: maps of all images are 30 MB each, at which PyTorch's memory grows without end.
    found = [
        torch.cat([net(torch.roll(part, shift, (2, 3))).argmax(1) for part in images.split(PART)])
        for shift in shifts
    ]
    found, places = torch.stack(found, dim=1), len(shifts)
    right = (found == labels[:, None]).float()
    counts = F.one_hot(found, CLASSES).sum(1)
    same = (counts.square().sum(1) - places) / (places * (places - 1))
    away = torch.tensor([any(shift) for shift in shifts])
    return [float(part.mean()) for part in (right[:, ~away], right[:, away], same)]


def run_arm(options, arm):
    """Train and judge every seed of an arm; return its rows."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // options.processes))
    x, y, x_test, y_test = load()
    whole = options.shifts == "all"
    sides = range(SIDE) if whole else np.rint(np.linspace(-10, 10, 7)).astype(int).tolist()
    shifts, rows = list(itertools.product(sides, sides)), []
    for seed in range(options.seeds):
        begin = time.perf_counter()
        torch.manual_seed(seed)
        net = Net(*arm).to(memory_format=torch.channels_last)
        train(net, x, y, options.epochs)
        figures = judge(net, x_test, y_test, shifts)
        rows.append((*arm, seed, *figures, time.perf_counter() - begin))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--pools", default=",".join(POOLS))
    parser.add_argument("--strides", default="1,2,3")
    parser.add_argument("--shifts", choices=("all", "places"), default="all")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", default=None)
    options = parser.parse_args()
    arms = itertools.product(options.pools.split(","), map(int, options.strides.split(",")))
    work = functools.partial(run_arm, options)
    if options.processes > 1:
        spawn = multiprocessing.get_context("spawn")
        with futures.ProcessPoolExecutor(options.processes, mp_context=spawn) as pool:
            found = list(pool.map(work, arms))
    else:
        found = map(work, arms)
    with open(options.out, "w", newline="") if options.out else sys.stdout as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for rows in found:
            table.writerows(rows)


if __name__ == "__main__":
    main()
