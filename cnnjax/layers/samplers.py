"""Samplers that follow the content and have parameters: x -> y, or (y, phase) with return_phase.

module = Pool("lps", stride=2)
module = Pool("canonical", method="lip", window=2, stride=2)
"""

from __future__ import annotations

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.layers.learned import convolved
from cnnjax.layers.module import random_key
from cnnjax.ops import padding as pads
from cnnjax.ops import polyphase
from cnnjax.ops.allowed import Number
from cnnjax.ops.padding import Pair
from cnnjax.ops.polyphase import Circular, Norm

TEMPERATURE = Number(above=0)


class Lps(nn.Module, kw_only=True):
    """Learnable polyphase sampling (Rojas-Gomez et al. 2022).

    A small circular network, the same for every component, gives each a logit. Training blends the
    components with Gumbel-softmax weights at `temperature` (default 1); evaluation keeps the
    component of the largest logit. `phase` is that component (...,), or in training the weights
    (..., sh*sw), so that a shortcut can be sampled alike.
    """

    method: str
    stride: Pair
    padding: Circular = "CIRCULAR"
    hidden: Annotated[int | None, Number(least=1, whole=True, optional=True)] = None
    window = None
    dense = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool = False,
        temperature: Any = None,
        phase: jax.Array | None = None,
        return_phase: bool = False,
    ) -> Any:
        x = pads.feature_map(x)
        features = self._features(polyphase.components(x, self.stride))
        ties = jnp.zeros(x.shape[:-3], jnp.int32)
        if phase is None and train:
            logits = jnp.mean(features, axis=(-3, -2, -1))
            noise = jax.random.gumbel(random_key(self), logits.shape, logits.dtype)
            scale = 1.0 if temperature is None else TEMPERATURE.check("temperature", temperature)
            phase = jax.nn.softmax((logits + noise) / scale, axis=-1)
        elif phase is None:
            phase, ties = polyphase.choose_by(features, x, stride=self.stride)
        self.sow("intermediates", "phase", phase)
        self.sow("intermediates", "ties", ties)
        y = polyphase.sample(x, phase, stride=self.stride)
        return (y, phase) if return_phase else y

    def _features(self, parts: jax.Array) -> jax.Array:
        hidden = self.hidden or parts.shape[-1]
        inner = convolved(self, "kernel0", parts, hidden, (3, 3), "CIRCULAR")
        return convolved(self, "kernel1", jax.nn.relu(inner), hidden, (3, 3), "CIRCULAR")


class CanonicalPool(nn.Module, kw_only=True):
    """A dense pool with parameters or randomness, then the component of largest norm."""

    method: str
    inner: nn.Module
    stride: Pair
    p: Norm = 2
    padding: str = "CIRCULAR"
    dense = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool = False,
        temperature: Any = None,
        phase: jax.Array | None = None,
        return_phase: bool = False,
    ) -> Any:
        inner: Any = self.inner
        y = inner.dense(x, train=train, temperature=temperature)
        choice = polyphase.choose(y, stride=self.stride, p=self.p)
        kept = choice.phase if phase is None else phase
        self.sow("intermediates", "phase", kept)
        self.sow("intermediates", "ties", choice.ties)
        y = polyphase.sample(y, kept, stride=self.stride)
        return (y, kept) if return_phase else y

    @property
    def window(self) -> Pair | None:
        return getattr(self.inner, "window", None)
