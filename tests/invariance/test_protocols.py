"""Every emulator against a literal NumPy transcription of the published procedure."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from cnnjax.invariance import protocols

RNG = np.random.default_rng(0)
X = RNG.integers(0, 9, (20, 8, 8, 1)).astype(np.float32)
Y = RNG.integers(0, 3, 20)
# Random predictions that no shift leaves alone, for images of any size.
PLACES = np.random.default_rng(1).normal(size=(16, 16, 3)).astype(np.float32)


def predict(x):
    return jnp.einsum("bhwc,hwk->bk", x, PLACES[: x.shape[1], : x.shape[2]])


def classes(x):
    return np.einsum("bhwc,hwk->bk", x, PLACES[: x.shape[1], : x.shape[2]]).argmax(-1)


def roll(x, offset):
    return np.roll(x, tuple(offset), axis=(1, 2))


def zeros(x, offset):
    """Pad by 4 and crop: the content moves by offset, zeros come in."""
    wide = np.pad(x, ((0, 0), (4, 4), (4, 4), (0, 0)))
    return wide[:, 4 - offset[0] : 12 - offset[0], 4 - offset[1] : 12 - offset[1]]


def crop(x, offset, margin=2):
    side = x.shape[1] - 2 * margin
    top, left = margin - offset[0], margin - offset[1]
    return x[:, top : top + side, left : left + side]


def drawn(low, high, count, rng):
    """Flat draws in {low..high}^2, as pairs."""
    side = high - low + 1
    return [np.array(divmod(k, side)) + low for k in rng.integers(0, side * side, count)]


def agreement(shift, low, high, batch, passes=1):
    rng, found = np.random.default_rng(3), []
    for _ in range(passes):
        for k in range(0, len(X), batch):
            first, second = drawn(low, high, 2, rng)
            part = X[k : k + batch]
            found.append(classes(shift(part, first)) == classes(shift(part, second)))
    return found


def all_classes(shift, low, high):
    span = range(low, high + 1)
    return np.stack([classes(shift(X, (i, j))) for i in span for j in span], axis=1)


def all_pairs(given):
    """Identical pairs included, as the random pairs of the published code include them."""
    return np.mean([[a == b for a in row for b in row] for row in given])


def test_adobe224():
    found = protocols.adobe224(predict, X, Y, seed=3, margin=2)
    agree = np.concatenate(agreement(crop, -1, 2, batch=8, passes=5))
    assert found["consistency"] == agree.mean()
    assert found["exact"] == pytest.approx(all_pairs(all_classes(crop, -1, 2)))


def test_aps_cifar_is_a_mean_of_batch_means(monkeypatch):
    batches = protocols._batches
    monkeypatch.setattr(protocols, "_batches", lambda x, y, size: batches(x, y, size // 32))
    found = protocols.aps_cifar(predict, X, Y, seed=3)
    parts = agreement(roll, -3, 2, batch=8)
    assert [len(part) for part in parts] == [8, 8, 4]
    assert found["consistency"] == np.mean([part.mean() for part in parts])
    assert found["consistency"] != np.concatenate(parts).mean()
    assert found["exact"] == pytest.approx(all_pairs(all_classes(roll, -3, 2)))


@pytest.mark.parametrize("draws", [2, 3])
def test_lps_agreement(draws):
    found = protocols.lps_agreement(predict, X, Y, seed=3, draws=draws)
    picks = drawn(-3, 2, draws, np.random.default_rng(3))
    given = np.stack([classes(zeros(X, d)) for d in picks])
    assert found["consistency"] == np.mean([len(set(column)) == 1 for column in given.T])
    share = [np.bincount(row, minlength=3) / 36 for row in all_classes(zeros, -3, 2)]
    assert found["exact"] == pytest.approx(np.mean([(p**draws).sum() for p in share]))


def test_flc_cifar():
    found = protocols.flc_cifar(predict, X, Y, seed=3)
    assert found["consistency"] == np.concatenate(agreement(roll, 0, 3, batch=256)).mean()
    assert found["exact"] == pytest.approx(all_pairs(all_classes(roll, 0, 3)))


def test_tips_fidelity():
    found = protocols.tips_fidelity(predict, X, Y, seed=3)
    first, second = drawn(0, 1, 2, np.random.default_rng(3))
    a, b = classes(zeros(X, first)), classes(zeros(X, second))
    assert found["fidelity"] == np.mean((a == b) & (b == Y))
    right = all_classes(zeros, 0, 1) == Y[:, None]
    pairs = [[p and q for p in row for q in row] for row in right]
    assert found["exact"] == pytest.approx(np.mean(pairs))


def test_azulay_diag():
    found = protocols.azulay_diag(predict, X, Y, steps=4)
    probabilities = []
    for k in range(4):
        wide = np.zeros((20, 12, 12, 1), np.float32)
        wide[:, k : 8 + k, k : 8 + k] = X
        logits = np.einsum("bhwc,hwk->bk", wide, PLACES[:12, :12])
        p = np.exp(logits - logits.max(-1, keepdims=True))
        probabilities.append(p / p.sum(-1, keepdims=True))
    p = np.stack(probabilities, axis=1)
    top = p.argmax(-1)
    assert found["top1_change"] == np.mean(top[:, 1:] != top[:, :-1])
    change = [abs(q[k + 1][q[k].argmax()] - q[k].max()) for q in p for k in range(3)]
    assert found["mean_absolute_change"] == pytest.approx(np.mean(change), abs=1e-5)


def test_afc_adversarial_never_sees_an_axis():
    found = protocols.afc_adversarial(predict, X, Y, reach=3)
    right = classes(X) == Y
    for i in range(1, 3):
        for j in range(1, 3):
            right &= classes(roll(X, (i, j))) == Y
    assert found["adversarial_accuracy"] == right.mean()
    whole = (all_classes(roll, -2, 2) == Y[:, None]).all(axis=1)
    assert found["exact"] == whole.mean() <= found["adversarial_accuracy"]


def test_afc_fractional():
    found = protocols.afc_fractional(predict, X, Y, reach=1)
    spectrum = np.fft.fft2(X, axes=(1, 2))
    frequency = np.fft.fftfreq(8)
    # At half a pixel the Nyquist bin has no real phase: cos(pi / 2) = 0.
    half = np.where(np.abs(frequency) == 0.5, 0, np.exp(-1j * np.pi * frequency))
    moved = np.fft.ifft2(spectrum * half[:, None, None] * half[None, :, None], axes=(1, 2)).real
    right = (classes(X) == Y) & (classes(moved) == Y)
    assert found["adversarial_accuracy"] == right.mean()


def test_engstrom_grid():
    found = protocols.engstrom_grid(predict, X, Y, angles=3)
    right = np.ones(20, bool)
    for degrees in (-30, 0, 30):
        for i in (-3, -1.5, 0, 1.5, 3):
            for j in (-3, -1.5, 0, 1.5, 3):
                t = np.deg2rad(degrees)
                turn = np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]])
                start = 3.5 - turn @ (3.5 + np.array([i, j]))
                moved = [
                    scipy.ndimage.affine_transform(
                        x[..., 0], turn, start, order=1, mode="grid-constant"
                    )
                    for x in X
                ]
                right &= classes(np.stack(moved)[..., None].astype(np.float32)) == Y
    assert found["worst_of_grid"] == right.mean()
    assert found["natural"] == (classes(X) == Y).mean()


def test_one_checkpoint_through_all_of_them():
    table = protocols.compare(predict, X, Y)
    assert set(table) == {*protocols.PROTOCOLS, "all circular shifts"}
    assert all(0 <= value <= 1 for row in table.values() for value in row.values())


def test_labels_that_do_not_fit():
    with pytest.raises(ValueError, match="labels"):
        protocols.aps_cifar(predict, X, Y[:3])
