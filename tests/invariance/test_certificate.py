"""Certificates of nets whose guarantee is known: what must be certified, what refused."""

from __future__ import annotations

import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_nets
from toy_nets import Toy, spec

from cnnjax import build
from cnnjax.config import Config
from cnnjax.invariance import certificate as certificates
from cnnjax.invariance import exact, structure
from cnnjax.invariance.certificate import audit_logits, certify
from cnnjax.invariance.exhaustive import exhaustive_logits
from cnnjax.invariance.proof import each_phase, every_shift, finest_lattice, prove
from cnnjax.layers.pooling import HEADS, pool

SHAPE = (8, 12, 2)
MAX = spec("max", window=2, stride=2, padding="CIRCULAR")
APS = spec("aps", stride=2)
BOX = spec("mean", window=3, stride=2, padding="CIRCULAR")
CANONICAL = spec("canonical", method="max", window=3, stride=2)


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def long(*values):
    return pytest.param(*values, marks=[pytest.mark.slow, pytest.mark.long])


def certificate(net, shape=SHAPE):
    return certify(net, toy_nets.trained(net, shape), shape)


class Broken(nn.Module):
    """A polyphase sampler with one flaw, behind a circular convolution."""

    flaw: str

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), padding="CIRCULAR")(x))
        n, height, width, channels = x.shape
        parts = x.reshape(n, height // 2, 2, width // 2, 2, channels)
        parts = parts.transpose(0, 2, 4, 1, 3, 5).reshape(n, 4, -1, channels)
        norms = jnp.sum(parts * parts, axis=2)
        if self.flaw != "per channel":
            norms = norms.sum(-1, keepdims=True)
        if self.flaw == "bf16 norms":
            norms = norms.astype(jnp.bfloat16)
        phase = jnp.argmax(norms, axis=1)[:, None, None]
        if self.flaw == "fixed phase":
            phase = jnp.zeros_like(phase)
        shape = (n, 1, *parts.shape[2:])
        kept = jnp.take_along_axis(parts, jnp.broadcast_to(phase, shape), axis=1)
        y = kept[:, 0].reshape(n, height // 2, width // 2, channels)
        y = nn.relu(nn.Conv(4, (3, 3), padding="CIRCULAR")(y))
        return nn.Dense(3)(jnp.mean(y, axis=(1, 2)))


VERDICTS = pytest.mark.parametrize(
    ("net", "verdict"),
    [
        (Toy((APS,), head="gap", norm=True), "exact for all circular shifts"),
        slow(Toy((MAX, MAX), head="gap"), "exact on the 4 x 4 lattice"),
        (Toy((BOX,), head="gap", strided=True), "exact on the 2 x 2 lattice"),
        slow(Toy((BOX,), head="gap"), "exact on the 2 x 2 lattice"),
        slow(Toy((spec("lps", stride=2),), head="gap"), "exact for all circular shifts"),
        slow(Toy((CANONICAL,), head="gap"), "exact for all circular shifts"),
        (Toy((MAX,), head="flatten"), "none: flatten head"),
        (Toy((APS,), head="gap", padding="SAME"), "none: shift"),
    ],
)


@VERDICTS
def test_verdicts(net, verdict):
    found = certificate(net)
    assert found.verdict.startswith(verdict)
    assert found.proof.culprit is None and not found.proof.vacuous
    assert (found.audit.first_break is None) == (found.guarantee == "all")


@pytest.mark.slow
@VERDICTS
def test_brief_verdicts(net, verdict):
    found = certify(net, toy_nets.trained(net, SHAPE), SHAPE, brief=True)
    assert found.verdict.startswith(verdict) and found.audit is None
    assert found.proof.shifts < found.proof.circular_shifts == 96


@pytest.mark.slow
@pytest.mark.parametrize("flaw", ["per channel", "bf16 norms", "first of tied", "fixed phase"])
def test_flawed_samplers_are_refused(flaw):
    net = Broken(flaw)
    variables = toy_nets.trained(net, SHAPE)
    brief = each_phase(structure.read(net, variables, SHAPE), SHAPE[:2])
    for shifts in (every_shift(SHAPE[:2]), brief):
        proof = prove(net, variables, SHAPE, shifts)
        assert proof.culprit is None and not proof.vacuous
        assert proof.lattice != (1, 1) and proof.counterexample is not None


def test_a_brief_certificate_says_what_was_tried_and_audits_what_is_known():
    net = Toy((MAX,), head="gap")
    variables, x = toy_nets.trained(net, SHAPE), toy_nets.images(SHAPE)
    known = audit_logits(variables, exhaustive_logits(net, variables, x), SHAPE[:2])
    found = certify(net, variables, SHAPE, brief=True, audit=known)
    assert found.verdict == "exact on the 2 x 2 lattice"
    text = found.paragraph()
    assert "12 of 96 shifts" in text and "all 96 circular shifts): logits" in text
    assert "tied" not in text and "first layer" not in text
    whole = certify(net, variables, SHAPE, images=x)
    assert found.audit.deviation == whole.audit.deviation
    assert found.audit.classes_changed == whole.audit.classes_changed


@pytest.mark.slow
def test_a_brief_certificate_audits_where_its_verdict_hangs_on_it():
    rounding = Toy((APS, spec("softpool", window=2, stride=2, padding="CIRCULAR")), head="gap")
    x = certificates.noise(SHAPE)
    variables = toy_nets.trained(rounding, SHAPE)
    alone = certify(rounding, variables, SHAPE, brief=True)
    assert alone.guarantee == "not proved" and alone.audit is None
    found = certify(rounding, variables, SHAPE, brief=True, images=x)
    assert found.verdict == certify(rounding, variables, SHAPE).verdict
    assert found.guarantee == "tolerance" and found.audit.images == 2
    exactly = Toy((MAX,), head="gap")
    variables = toy_nets.trained(exactly, SHAPE)
    assert certify(exactly, variables, SHAPE, brief=True, images=x).audit is None


def test_each_phase_is_tried_and_only_where_it_stands_for_the_others():
    net = Toy((MAX, spec("aps", stride=(1, 3))), head="gap")
    plan = structure.read(net, toy_nets.trained(net, SHAPE), SHAPE)
    tried = each_phase(plan, (8, 12))
    assert {tuple(phase) for phase in tried.offsets % (2, 6)} == set(np.ndindex(2, 6))
    assert tried.offsets[0].tolist() == [0, 0] and len(tried.offsets) == 12 + 8
    assert ((tried.offsets >= 0) & (tried.offsets < (8, 12))).all()
    assert len(each_phase(plan, (9, 12)).offsets) == 9 * 12  # 2 does not divide 9
    assert len(each_phase(plan, (2, 6)).offsets) == 2 * 6


def test_an_unequal_multiple_of_the_stride_leaves_nothing_to_infer():
    net = Toy((MAX,), head="gap")
    tried = each_phase(structure.read(net, toy_nets.trained(net, SHAPE), SHAPE), (8, 12))
    equal = np.ones(len(tried.offsets), bool)
    equal[1] = False
    assert finest_lattice(tried.spread(equal)) in ((1, 2), (2, 1))
    equal[-1] = False
    assert tried.spread(equal).sum() == 1


@pytest.mark.slow
def test_zero_padding_guarantees_the_interior_and_says_how_far():
    found = certificate(Toy((MAX, MAX), head="gap", padding="SAME"), (16, 16, 1))
    # 3x3 convolutions at strides 1 and 2 touch one cell each: ceil((ceil(1/2) + 1) / 2) * 4.
    assert found.verdict == "interior only, margin 4 px"
    assert found.structure.margin == 4 and not found.structure.circular
    touched = certificate(Toy((MAX, MAX), head="gap", padding="SAME"), (8, 8, 1))
    assert touched.verdict.startswith("none: padding reaches every place")


class Smooth(nn.Module):
    """No integer survives tanh."""

    @nn.compact
    def __call__(self, x, train=False):
        x = jnp.tanh(nn.Conv(4, (3, 3), padding="CIRCULAR")(x))
        x = nn.Conv(4, (3, 3), padding="CIRCULAR", name="second")(x)
        return jnp.mean(x, axis=(1, 2))


def test_what_is_not_dyadic_holds_to_a_tolerance_and_is_never_called_broken():
    found = certificate(Smooth())
    assert found.guarantee == "tolerance" and found.proof.culprit == "second"
    assert "1e-05" in found.verdict


def test_a_net_that_says_nothing_proves_nothing():
    class Silent(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return 0.0 * jnp.mean(nn.Conv(3, (3, 3), padding="CIRCULAR")(x), axis=(1, 2))

    assert certificate(Silent()).verdict.startswith("not proved: the stand-in weights")


def test_certificate_reads_as_json_and_as_a_paragraph():
    found = certificate(Toy((APS,), head="gmp"), (4, 6, 1))
    read = json.loads(json.dumps(found.to_dict()))
    assert read["verdict"] == "exact for all circular shifts"
    assert read["structure"]["selecting"] == ["PolyphasePool_0"]
    text = found.paragraph()
    assert "\n" not in text and "all 24 shifts" in text and "Total stride 2 x 2" in text


def test_bits_are_counted_to_the_last_one():
    values = jnp.asarray([[1.0, 0.5], [3.0, -8.0], [0.0, 0.0], [2.0**-3, 2.0**20]])
    low, high = exact._range(values)
    assert (high - low).tolist() == [2, 4, 0, 24]


def test_too_many_bits_are_noticed():
    class Growing(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.Conv(4, (3, 3), padding="CIRCULAR")(2.0**23 * x + 1.0)
            return jnp.sum(x, axis=(1, 2))

    found = certificate(Growing())
    assert found.guarantee in ("tolerance", "not proved")
    assert (found.proof.culprit, found.proof.bits) == ("Conv_0", exact.TOO_MANY)


class Headed(nn.Module):
    """A circular convolution and one of our heads."""

    head: str

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), padding="CIRCULAR")(x))
        return nn.Dense(3)(HEADS[self.head].module(name="head")(x))


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_blind_heads_are_never_called_broken(head):
    found = certificate(Headed(head))
    exactly = head in ("gap", "gmp", "gap_gmp", "topk_mean")
    allowed = ("all",) if exactly else ("all", "tolerance")
    assert found.guarantee in (allowed if HEADS[head].blind else ("none",)), found.verdict


class Rooted(nn.Module):
    """A head of a stranger that rounds as it adds."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), padding="CIRCULAR")(x))
        return nn.Dense(3)(jnp.sum(jnp.sqrt(x), axis=(1, 2)))


def test_a_head_that_rounds_is_not_called_broken():
    found = certificate(Rooted())
    assert found.guarantee == "tolerance" and found.proof.culprit == "the head"


class Pointwise(nn.Module):
    """A full connection at every place, with more bits than float32 has."""

    @nn.compact
    def __call__(self, x, train=False):
        return jnp.sum(nn.Dense(4, name="wide")(2.0**21 * x + 1.0), axis=(1, 2))


@pytest.mark.slow
def test_full_connections_of_maps_have_their_bits_counted():
    net = Pointwise()
    x = jnp.full((1, *SHAPE), 1.0)
    variables = {"params": {"wide": {"kernel": jnp.full((2, 4), 2.0**3), "bias": jnp.zeros(4)}}}
    bits = exact.Twin(net)(variables, x)[0, -2]
    assert bits == exact.TOO_MANY


def test_the_twin_asks_for_products_of_the_whole_format():
    net = Toy((MAX,), head="gap")
    variables, x = toy_nets.trained(net, SHAPE), jnp.zeros((1, *SHAPE))
    text = jax.jit(exact.Twin(net)).lower(variables, x).as_text()
    assert "convolution" in text and "HIGHEST" in text and "DEFAULT" not in text


class Deep(nn.Module):
    """In bfloat16, with more layers than it has numbers beyond 256."""

    layers: int

    @nn.compact
    def __call__(self, x, train=False):
        x = x.astype(jnp.bfloat16)
        for k in range(self.layers):
            x = nn.Conv(1, (1, 1), use_bias=False, dtype=jnp.bfloat16, name=f"layer{k}")(x)
        x = nn.Conv(1, (1, 1), dtype=jnp.bfloat16, use_bias=False, name="last")(x)
        return jnp.max(x, axis=(1, 2))


@pytest.mark.slow
def test_the_culprit_is_named_among_many_in_half_precision():
    # Number 301 has nine bits, bfloat16 eight.
    net = Deep(301)
    twin, shape = exact.Twin(net), (1, 2, 1)
    variables = {"params": {name: {"kernel": jnp.ones((1, 1, 1, 1))} for name in
                            [*(f"layer{k}" for k in range(301)), "last"]}}  # fmt: skip
    variables["params"]["last"]["kernel"] *= 2.0**9
    found = np.asarray(twin(variables, jnp.asarray([[[[1.0], [3.0]]]])))
    _, bits, culprit = exact.split(found)
    assert bits[0] == exact.TOO_MANY
    assert twin.paths(variables, shape)[culprit[0]] == "last"


def test_the_interior_is_not_proved_by_numbers_that_do_not_fit():
    class Huge(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return jnp.max(nn.Conv(2, (3, 3), name="conv")(x), axis=(1, 2))

    net = Huge()
    variables = toy_nets.trained(net, (12, 12, 1))
    plan = structure.read(net, variables, (12, 12, 1))
    proof = prove(net, variables, (12, 12, 1))
    fits = certificates._interior(net, variables, (12, 12, 1), plan, proof, 0)
    assert fits == ("interior only, margin 1 px", "interior")
    original = exact.integers

    def huge(variables, **how):
        return jax.tree.map(lambda leaf: leaf * 2.0**23 + 1, original(variables, **how))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "integers", huge)
        words, kind = certificates._interior(net, variables, (12, 12, 1), plan, proof, 0)
    assert kind == "not proved" and "exact arithmetic" in words


@pytest.mark.slow
def test_float64_has_room_where_float32_has_not():
    class Growing(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.Conv(4, (3, 3), padding="CIRCULAR", param_dtype=x.dtype)(2.0**23 * x + 1.0)
            return jnp.sum(nn.relu(x), axis=(1, 2))

    with jax.enable_x64(True):
        net = Growing()
        variables = net.init(jax.random.key(0), jnp.zeros((1, *SHAPE), jnp.float64))
        found = certify(net, variables, SHAPE)
    assert found.verdict == "exact for all circular shifts"
    assert 24 < found.proof.bits <= 53


@pytest.mark.slow
def test_a_transposed_convolution_makes_the_stride_smaller():
    class Decoder(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.ConvTranspose(3, (4, 4), strides=(2, 2), padding=self.padding)(x)
            x = nn.Conv(3, (3, 3), padding=self.padding)(nn.relu(x))
            return jnp.sum(nn.relu(x), axis=(1, 2))

        padding: str = "CIRCULAR"

    found = certificate(Decoder())
    assert found.structure.stride == (0.5, 0.5) and found.structure.circular
    assert found.verdict == "exact for all circular shifts"
    json.dumps(found.to_dict())
    assert not certificate(Decoder("SAME")).structure.circular


class Sliced(nn.Module):
    """A stride between its modules, as functional code has it."""

    padding: str

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), padding=self.padding)(x))[:, ::2, ::2]
        return jnp.mean(nn.relu(nn.Conv(4, (3, 3), padding=self.padding)(x)), axis=(1, 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("padding", "verdict"),
    [("CIRCULAR", "exact on the 2 x 2 lattice"), ("SAME", "interior only, margin 4 px")],
)
def test_a_slice_between_modules_counts(padding, verdict):
    """No site tells its stride: the program does, and a brief proof tries all its phases."""
    net, shape = Sliced(padding), (12, 16, 2)
    variables = toy_nets.trained(net, shape)
    for brief in (False, True):
        assert certify(net, variables, shape, brief=brief).verdict == verdict


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("blur", {"stride": 2, "padding": "ZEROS"}),
        ("lip", {"window": 2, "stride": 2, "padding": "VALID"}),
    ],
)
def test_padding_inside_a_pool_is_seen(method, arguments):
    net = Toy((spec(method, **arguments),), head="gap")
    found = certificate(net)
    assert not found.structure.circular
    assert found.guarantee in ("none", "interior", "not proved")


# net, pool, head, padding: what it guarantees for 16 x 16 images.
REAL = [
    ("cnn", "aps", "gap", "CIRCULAR", "exact for all circular shifts"),
    ("cnn", "max", "gap", "CIRCULAR", "exact on the 8 x 8 lattice"),
    ("cnn", "aps", "flatten", "CIRCULAR", "none: flatten head"),
    long("resnet20_cifar", "aps", "gap", "CIRCULAR", "exact for all circular shifts"),
    long("resnet20_cifar", "canonical:method=blur", "gap", "CIRCULAR", "exact for all"),
    long("resnet20_cifar", "decimate", "gap", "CIRCULAR", "exact on the 4 x 4 lattice"),
    long("resnet20_cifar", "aps", "gap", "ZEROS", "none"),
    long("resnet20_cifar", "aps", "flatten", "CIRCULAR", "none: flatten head"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "method", "head", "padding", "verdict"), REAL)
def test_networks_of_the_table(name, method, head, padding, verdict):
    config = Config(net=name, pool=method, head=head, padding=padding)
    shape = (16, 16, 3)
    net = build.build_net(config, 10, shape)
    variables = jax.jit(functools.partial(net.init, train=False))(
        jax.random.key(0), jnp.zeros((1, *shape))
    )
    for brief in (False, True) if name == "cnn" else (False,):
        found = certify(net, variables, shape, brief=brief)
        assert found.verdict.startswith(verdict), found.paragraph()


def test_finest_lattice():
    equal = np.zeros((6, 8), bool)
    equal[::3, ::4] = True
    assert finest_lattice(equal) == (3, 4)
    assert finest_lattice(np.ones((6, 8), bool)) == (1, 1)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 0), (8.0, 8, 1)])
def test_a_shape_that_is_no_image(shape):
    net = Toy((MAX,))
    with pytest.raises(ValueError, match="image_shape"):
        certify(net, {}, shape)


@pytest.mark.slow
def test_odd_sizes_are_answered():
    found = certificate(Toy((MAX,), head="gap"), (7, 9, 1))
    assert found.guarantee == "none" or found.proof.lattice != (1, 1)
    assert not found.structure.circular


def test_tied_phases_break_the_first_index_rule_and_not_ours():
    """Norms 25 = 9 + 16 tie, and the phases are no shifts of each other."""
    x = np.zeros((8, 16, 1), np.float32)
    x[2, 2, 0], x[2, 3, 0], x[4, 5, 0] = 5, 3, 4
    moved = jnp.stack([jnp.roll(jnp.asarray(x), d, axis=1) for d in range(16)])
    ours = np.sort(_sampled(moved).reshape(16, -1), axis=1)
    assert (ours == ours[0]).all()
    first = np.sort(_first_index(moved).reshape(16, -1), axis=1)
    assert (first == first[0]).all(axis=1).sum() == 8


def _sampled(x: jax.Array) -> np.ndarray:
    return np.asarray(pool(x, "aps", stride=2))


def _first_index(x: jax.Array) -> np.ndarray:
    parts = jnp.stack([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=1)
    phase = jnp.argmax(jnp.sum(parts * parts, axis=(2, 3, 4)), axis=1)
    return np.asarray(parts[jnp.arange(len(x)), phase])
