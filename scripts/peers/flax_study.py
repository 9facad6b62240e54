"""The default study as a plain Flax script: what one writes without cnnjax. Needs jax, flax, optax.

    python scripts/peers/flax_study.py [--seeds 3] [--epochs 6] [--pools max,aps] [--strides 2,3]
                                       [--shifts all|places] [--processes 1] [--out FILE.csv]

Digits are learned near the centre of a 36 x 36 canvas and judged at 49 places or, for `all`, at all
1,296 circular shifts, each image rolled and run. A row a trial.
"""

import argparse
import csv
import functools
import itertools
import multiprocessing
import sys
import time
from concurrent import futures

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SIDE, WIDTHS, KERNEL, WINDOW, CLASSES = 36, (8, 16), 5, 3, 10
BATCH, RATE, WARMUP, REACH, TEST = 16, 0.03, 0.05, 2, 360
POOLS = ("max", "min", "sum", "mean", "decimate", "max_blur", "aps")
COLUMNS = ("pool", "stride", "seed", "accuracy", "accuracy_away", "consistency", "seconds")


def load():
    """Return (train images, labels, test images, labels); images (N, 36, 36, 1) in [0, 1]."""
    ink, labels = load_digits(return_X_y=True)
    small = ink.reshape(-1, 8, 8).astype(np.float32) / 16
    large = small.repeat(2, axis=1).repeat(2, axis=2)
    images = np.pad(large, ((0, 0), (10, 10), (10, 10)))[..., None]
    train, test, y, z = train_test_split(
        images, labels, test_size=TEST, stratify=labels, random_state=0
    )
    return jnp.asarray(train), y, jnp.asarray(test), z


def pad(x):
    """Pad height and width by one pixel, around the torus."""
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="wrap")


def max_pool(x, stride):
    return nn.max_pool(pad(x), (WINDOW, WINDOW), (stride, stride))


def mean_pool(x, stride):
    return nn.avg_pool(pad(x), (WINDOW, WINDOW), (stride, stride))


def blur_pool(x, stride):
    """The binomial filter 1 2 1, then every stride-th sample (Zhang 2019)."""
    row = jnp.array([1.0, 2.0, 1.0]) / 4
    channels, strides, layout = x.shape[-1], (stride, stride), ("NHWC", "HWIO", "NHWC")
    kernel = jnp.tile(jnp.outer(row, row)[:, :, None, None], (1, 1, 1, channels))
    return jax.lax.conv_general_dilated(
        pad(x), kernel, strides, "VALID", dimension_numbers=layout, feature_group_count=channels
    )


def aps(x, stride):
    """The polyphase component of largest norm (Chaman and Dokmanic 2021)."""
    n, h, w, c = x.shape
    parts = x.reshape(n, h // stride, stride, w // stride, stride, c)
    parts = parts.transpose(0, 2, 4, 1, 3, 5).reshape(n, stride**2, h // stride, w // stride, c)
    best = jnp.square(parts).sum((2, 3, 4)).argmax(1)
    return jnp.take_along_axis(parts, best[:, None, None, None, None], axis=1)[:, 0]


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

    pool: str
    stride: int

    @nn.compact
    def __call__(self, x, train=False):
        step = self.stride if self.pool == "decimate" else 1
        for width in WIDTHS:
            init = nn.initializers.he_normal()
            x = nn.Conv(width, (KERNEL,) * 2, step, padding="CIRCULAR", kernel_init=init)(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)(x)
            x = nn.relu(x)
            if self.pool != "decimate":
                x = POOLING[self.pool](x, self.stride)
        return nn.Dense(CLASSES)(x.mean((1, 2)))


def make_step(net, steps):
    """Return (optimiser, jitted step); the step moves every image by up to REACH pixels."""
    rise = round(WARMUP * steps)
    tx = optax.adam(optax.warmup_cosine_decay_schedule(RATE / rise, RATE, rise, steps))

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, key, images, labels):
        variables, memory = state
        offsets = jax.random.randint(key, (len(images), 2), -REACH, REACH + 1)
        images = jax.vmap(lambda x, d: jnp.roll(x, d, (0, 1)))(images, offsets)

        def loss(params):
            logits, new = net.apply(
                {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), new

        grads, new = jax.grad(loss, has_aux=True)(variables["params"])
        updates, memory = tx.update(grads, memory)
        return {**new, "params": optax.apply_updates(variables["params"], updates)}, memory

    return tx, step


def train(net, tx, step, images, labels, seed, epochs):
    """Return the trained variables."""
    key, rng = jax.random.key(seed), np.random.default_rng(seed)
    variables = jax.jit(net.init)(key, images[:1])
    state = variables, tx.init(variables["params"])
    count = -(-len(labels) // BATCH)
    for epoch in range(epochs):
        order = np.resize(rng.permutation(len(labels)), count * BATCH)
        for i, rows in enumerate(order.reshape(count, BATCH)):
            draw = jax.random.fold_in(key, epoch * count + i)
            state = step(state, draw, images[rows], labels[rows])
    return state[0]


def judge(classify, variables, images, labels, shifts):
    """Return accuracy in place, accuracy away, and how often two places of an image agree."""
    found = np.stack([classify(variables, images, shift) for shift in shifts], axis=1)
    right, places = found == labels[:, None], len(shifts)
    counts = (found[..., None] == np.arange(CLASSES)).sum(1)
    same = ((counts**2).sum(1) - places) / (places * (places - 1))
    away = np.any(shifts != 0, axis=1)
    return right[:, ~away].mean(), right[:, away].mean(), same.mean()


def run_arm(options, arm):
    """Train and judge every seed of an arm; return its rows."""
    pool, stride = arm
    (x, y, x_test, y_test), net = load(), Net(pool, stride)
    tx, step = make_step(net, options.epochs * -(-len(y) // BATCH))

    @jax.jit
    def classify(variables, images, shift):
        return net.apply(variables, jnp.roll(images, shift, (1, 2))).argmax(-1)

    whole, nearby = np.arange(SIDE), np.rint(np.linspace(-10, 10, 7)).astype(int)
    sides = whole if options.shifts == "all" else nearby
    shifts = np.array(list(itertools.product(sides, sides)))
    rows = []
    for seed in range(options.seeds):
        begin = time.perf_counter()
        variables = train(net, tx, step, x, y, seed, options.epochs)
        figures = judge(classify, variables, x_test, y_test, shifts)
        rows.append((pool, stride, seed, *figures, time.perf_counter() - begin))
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
