"""A net's twin in exact arithmetic: the same modules over integers, (variables, images) -> vectors.

    variables = exact.integers(net, variables, taps=3, seed=0)
    found = shift_logits(exact.Twin(net), images, variables=variables)
    vectors, bits, culprit = exact.split(found)
    assert bits.max() < exact.TOO_MANY   # then every sum was exact, whatever its order

Kernels become sparse integers; batch norm becomes an integer offset, other norms the identity
(a shift-blind affine map either way, which is why they may be left out of a proof about shifts); a
mean over a window becomes a sum unless its size is a power of two. Nothing else is touched, so what
is proved of the twin is a property of the net's plan and not of its weights.

`bits` is how many bits the largest partial sum of any module needs above the last bit set: at most
24 in float32 (53 in float64, 8 in bfloat16), and the arithmetic was exact. What leaves the last
feature map is compared before the full connections: they see one vector, and no place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.invariance.logits import InEvaluation, OfNet
from cnnjax.invariance.sites import is_pool, name, stages
from cnnjax.layers.heads import Attention, FixedHead
from cnnjax.ops import heads, local
from cnnjax.ops.windows import wide

NORMS = (nn.BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm, nn.RMSNorm)
EXACT_HEADS = (heads.gap, heads.gmp, heads.gap_gmp, heads.topk_mean, heads.flatten)
TOO_MANY = 999.0
Range = tuple[jax.Array, jax.Array]
NOTHING = 1 << 15  # beyond the exponents of any format


class Twin(OfNet):
    """net in exact arithmetic; each row ends in the bits it needed and the module that needed most.

    `paths` names the modules by that number. Products use the whole format, on accelerators
    too; vectors of fewer bits than float32 are widened, as `culprit` may be any whole number.
    """

    def __call__(self, variables: Any, x: jax.Array) -> jax.Array:
        audit, y = self.run(variables, x)
        vector = (y if audit.vector is None else audit.vector).reshape(x.shape[0], -1)
        vector = wide(vector)
        worst = jnp.stack([bits for _, bits in audit.bits], axis=-1)
        culprit = jnp.argmax(worst, axis=-1, keepdims=True)
        tail = jnp.concatenate([jnp.max(worst, axis=-1, keepdims=True), culprit], axis=-1)
        return jnp.concatenate([vector, tail.astype(vector.dtype)], axis=-1)

    def run(self, variables: Any, x: jax.Array) -> tuple[Audit, Any]:
        audit = Audit()
        with nn.intercept_methods(audit), jax.default_matmul_precision("highest"):
            y = InEvaluation(self.net)(variables, x)
        audit.note_head(x)
        return audit, y

    def paths(self, variables: Any, shape: tuple[int, ...]) -> list[str]:
        """Return the modules' paths in the order in which `culprit` numbers them."""
        audits: list[Audit] = []

        def run(v: Any, x: jax.Array) -> Any:
            audits.append(self.run(v, x)[0])
            return x

        jax.eval_shape(run, variables, jax.ShapeDtypeStruct((1, *shape), jnp.float32))
        return [path for path, _ in audits[0].bits]

    def last_map(self, variables: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the last map (N, H', W', C) and the bits (N,) that it needed."""
        audit, _ = self.run(variables, x)
        last = x if audit.last is None else audit.last
        return last, jnp.max(jnp.stack([bits for _, bits in audit.bits]), axis=0)


def split(found: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split what a Twin returned into vectors (..., F), bits (...,) and culprit (...,)."""
    return found[..., :-2], found[..., -2], found[..., -1].astype(int)


def integers(variables: Any, *, taps: int, seed: int) -> Any:
    """Return variables of the same shapes with `taps` entries of +-1 per output of a kernel.

    Biases are 0 to 2. What is neither kernel nor bias keeps its value.
    """
    rng = np.random.default_rng(seed)

    def one(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        key = getattr(path[-1], "key", "")
        if key == "kernel" and leaf.ndim >= 2:
            return jnp.asarray(_sparse(rng, leaf.shape, taps), leaf.dtype)
        if key == "bias" and leaf.ndim == 1:
            return jnp.asarray(rng.integers(0, 3, leaf.shape), leaf.dtype)
        return leaf

    return jax.tree_util.tree_map_with_path(one, variables)


def _sparse(rng: np.random.Generator, shape: tuple[int, ...], taps: int) -> np.ndarray:
    fan_in, outputs = int(np.prod(shape[:-1])), shape[-1]
    kernel = np.zeros((fan_in, outputs))
    for column in range(outputs):
        places = rng.choice(fan_in, min(taps, fan_in), replace=False)
        # The first is positive: behind a rectifier a net of negative kernels says nothing.
        kernel[places, column] = np.append(1, rng.choice([-1, 1], len(places) - 1))
    return kernel.reshape(shape)


@dataclass
class Audit:
    """The interceptor: folds norms and means, notes the bits of every module's arithmetic."""

    bits: list[tuple[str, jax.Array]] = field(default_factory=list)
    vector: jax.Array | None = None
    last: jax.Array | None = None
    # By identity: most maps are one module's output and the next one's input.
    ranges: dict[int, tuple[jax.Array, Range]] = field(default_factory=dict)

    def __call__(self, call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        array = args[0] if args and hasattr(args[0], "ndim") else None
        if context.method_name != "__call__" or array is None or array.ndim < 2:
            return call(*args, **kwargs)
        if array.ndim == 4:
            self.vector = None
        elif array.ndim == 2 and self.vector is None:
            self.vector = array
        result = _folded(call, args, kwargs, module)
        y = result[0] if isinstance(result, tuple) else result
        if array.ndim == 4:
            bits = self.needed(module, array, y)
            self.bits.append((name(module), bits + TOO_MANY if _rounds(module) else bits))
            if y.ndim == 2 and self.vector is None:
                self.vector = y
            if y.ndim == 4:
                self.last = y
        return result

    def note_head(self, image: jax.Array) -> None:
        """Note what a sum over all places of the last map needs, wherever the net takes it."""
        last = image if self.last is None else self.last
        low, high = self.range(last)
        needed = high - low + float(np.log2(last.shape[1] * last.shape[2]))
        self.bits.append(("head", _within(needed, last.dtype)))

    def needed(self, module: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        """Bits (batch,) of the widest partial sum; TOO_MANY where the output has fewer."""
        low, high = self.range(x)
        inside = high - low + _reach(module)
        low_y, high_y = self.range(y) if y.ndim == 4 else (low, high)
        return _within(jnp.maximum(inside, high_y - low_y), y.dtype)

    def range(self, x: jax.Array) -> Range:
        """Return `_range` of a map, worked out once."""
        if id(x) not in self.ranges:
            self.ranges[id(x)] = x, _range(x)  # x with it, so that its id is not given again
        return self.ranges[id(x)][1]


def _rounds(module: Any) -> bool:
    """True for our heads whose sums are not of integers: their rounding moves with the image."""
    if isinstance(module, FixedHead):
        return module.function not in EXACT_HEADS
    return isinstance(module, Attention)


def _folded(call: Callable[..., Any], args: Any, kwargs: Any, module: Any) -> Any:
    if isinstance(module, NORMS) and _per_channel(module):
        result = call(*args, **kwargs)  # keeps the module's variables in use
        if not isinstance(module, nn.BatchNorm):
            return args[0].astype(result.dtype)
        offset = jnp.arange(args[0].shape[-1]) % 3 - 1
        return (args[0] + offset.reshape((1,) * (args[0].ndim - 1) + (-1,))).astype(result.dtype)
    if is_pool(module) and module.method == "mean" and module.padding in ("CIRCULAR", "VALID"):
        area = module.window[0] * module.window[1]
        if area & (area - 1):
            own = {"window": module.window, "stride": module.stride, "padding": module.padding}
            return local.total(args[0], **own)
    return call(*args, **kwargs)


def _per_channel(module: Any) -> bool:
    return all(np.ndim(leaf) <= 1 for leaf in jax.tree.leaves(module.variables))


def _reach(module: Any) -> Any:
    """Return by how many bits a module's sums may exceed its largest input."""
    kernel = module.variables.get("params", {}).get("kernel")
    if kernel is not None and not is_pool(module):
        # A transposed kernel has its outputs on the last axis but one.
        outputs = -2 if getattr(module, "transpose_kernel", False) else -1
        axes = tuple(axis for axis in range(kernel.ndim) if axis != kernel.ndim + outputs)
        return jnp.log2(jnp.max(jnp.sum(jnp.abs(kernel), axis=axes)) + 2.0)
    if is_pool(module):
        chain = stages(module)
        # Binomial taps of order n - 1 along both axes.
        blur = 2 * (chain[-1][0][0] - 1) if len(chain) > 1 else 0
        return float(np.log2(np.prod(chain[0][0]))) + blur
    return 0.0


def _within(needed: jax.Array, dtype: Any) -> jax.Array:
    limit = jnp.finfo(dtype).nmant + 1
    return jnp.where(needed > limit, TOO_MANY, needed)


def _range(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return per image the exponents of the last bit set anywhere and of the largest value."""
    x = wide(x)
    digits = jnp.finfo(x.dtype).nmant
    whole = jnp.int64 if digits > 23 else jnp.int32
    pattern = jax.lax.bitcast_convert_type(x, whole)
    exponent = (pattern >> digits) & (2 * jnp.finfo(x.dtype).maxexp - 1)
    mantissa = (pattern & ((1 << digits) - 1)) | (1 << digits)
    exponent = exponent - jnp.finfo(x.dtype).maxexp + 2  # of the power of two above the value
    trailing = jax.lax.population_count((mantissa & -mantissa) - 1)
    axes = tuple(range(1, x.ndim))
    low = jnp.min(jnp.where(x == 0, NOTHING, exponent - digits - 1 + trailing), axis=axes)
    high = jnp.max(jnp.where(x == 0, -NOTHING, exponent), axis=axes)
    low, high = jnp.where(low == NOTHING, 0, low), jnp.where(high == -NOTHING, 0, high)
    return low.astype(jnp.float32), high.astype(jnp.float32)
