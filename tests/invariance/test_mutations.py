"""Plant plausible bugs, one at a time, in a copy of the package: each must make a named test fail.

The list is the point: a suite that a wrong roll sign survives proves nothing about shifts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]


class Bug(NamedTuple):
    what: str
    file: str
    right: str
    wrong: str
    test: str


BUGS = (
    Bug(
        "content moves the other way",
        "ops/shifts.py",
        "jnp.arange(image.shape[axis]) - offset[axis]",
        "jnp.arange(image.shape[axis]) + offset[axis]",
        "tests/ops/test_shifts.py::test_circular_is_roll_with_its_sign",
    ),
    Bug(
        "zero-filled shifts repeat the last pixel",
        "ops/shifts.py",
        'if boundary != "zeros":',
        "if True:",
        "tests/ops/test_shifts.py::test_whole_pixels_equal_a_padded_slice",
    ),
    Bug(
        "the last, partial chunk is dropped",
        "invariance/logits.py",
        "math.ceil(total / rows) * rows",
        "total // rows * rows",
        "tests/invariance/test_logits.py::test_a_radius_in_chunks_of_any_size",
    ),
    Bug(
        "identical pairs are counted as agreements",
        "invariance/metrics.py",
        "(counts * (counts - 1)).sum(axis=1) / (shifts * (shifts - 1))",
        "(counts * counts).sum(axis=1) / (shifts * shifts)",
        "tests/invariance/test_metrics.py::test_consistency_counts_every_pair",
    ),
    Bug(
        "worst case over shifts becomes best case",
        "invariance/metrics.py",
        "correct(predictions, labels).all(axis=1)",
        "correct(predictions, labels).any(axis=1)",
        "tests/invariance/test_metrics.py::test_accuracies",
    ),
    Bug(
        "top-1 change against the first shift, not the one before",
        "invariance/metrics.py",
        "predictions[:, 1:] != predictions[:, :-1]",
        "predictions[:, 1:] != predictions[:, :1]",
        "tests/invariance/test_metrics.py::test_changes_along_a_path",
    ),
    Bug(
        "dense phases are read with the wrong roll sign",
        "invariance/exhaustive.py",
        "(-moves.all_offsets(size) % ",
        "(moves.all_offsets(size) % ",
        "tests/invariance/test_exhaustive.py::test_dense_pass_equals_rolling_bit_for_bit",
    ),
    Bug(
        "row and column phases change places",
        "invariance/exhaustive.py",
        "y.transpose(4, 0, 6, 1, 2, 3, 5, 7)",
        "y.transpose(6, 0, 4, 1, 2, 3, 5, 7)",
        "tests/invariance/test_exhaustive.py::test_dense_pass_equals_rolling_bit_for_bit",
    ),
    Bug(
        "off-by-one padding: the dense pool wraps at the wrong end",
        "invariance/exhaustive.py",
        "((0, 0), (0, window[0] - 1), (0, window[1] - 1), (0, 0))",
        "((0, 0), (window[0] - 1, 0), (window[1] - 1, 0), (0, 0))",
        "tests/invariance/test_exhaustive.py::test_branches_keep_their_phases_together",
    ),
    Bug(
        "the dense pass is believed without a sample",
        "invariance/exhaustive.py",
        "AGREE = 1e-4",
        "AGREE = 1e9",
        "tests/invariance/test_exhaustive.py::test_whatever_has_no_dense_pass_is_rolled",
    ),
    Bug(
        "the phase comes from another image of the batch",
        "ops/polyphase.py",
        "_decide(norms(x, stride=stride, p=p), x, stride)",
        "_decide(norms(jnp.flip(x, 0), stride=stride, p=p), x, stride)",
        "tests/invariance/test_certificate.py::test_verdicts",
    ),
    Bug(
        "certificates never meet a tied phase",
        "invariance/proof.py",
        "np.stack([first, second, shuffled, even, tied])",
        "np.stack([first, second, shuffled, first, second])",
        "tests/invariance/test_certificate.py::test_flawed_samplers_are_refused",
    ),
    Bug(
        "a sum may need more bits than float32 has",
        "invariance/exact.py",
        "jnp.where(needed > limit, TOO_MANY, needed)",
        "needed",
        "tests/invariance/test_certificate.py::test_too_many_bits_are_noticed",
    ),
    Bug(
        "the padded margin forgets the padding",
        "ops/views.py",
        "start = view.moved(axis, -before)",
        "start = view.moved(axis, 0)",
        "tests/invariance/test_certificate.py::test_zero_padding_guarantees_the_interior",
    ),
    Bug(
        "the margin is that of the branch that comes last",
        "invariance/structure.py",
        "max(below), max(above)",
        "below[0], above[0]",
        "tests/invariance/test_structure.py::test_touched_cells_are_those",
    ),
    Bug(
        "the last column is no border",
        "invariance/structure.py",
        "view.high + start > self.pixels - 1",
        "view.high + start > self.pixels",
        "tests/invariance/test_structure.py::test_touched_cells_are_those",
    ),
    Bug(
        "a blur's default taps are forgotten",
        "invariance/sites.py",
        "{**card.params, **given}",
        "{**given}",
        "tests/invariance/test_sites.py::test_the_window_is_all_that_an_output_sees",
    ),
    Bug(
        "the border of lip's own convolution is forgotten",
        "invariance/sites.py",
        'if hasattr(module, "around"):',
        "if False:",
        "tests/invariance/test_sites.py::test_a_pool_counts_as_circular_where_it_rolls",
    ),
    Bug(
        "patches count as padded",
        "invariance/sites.py",
        "return m * stride == n and not side[0]",
        "return stride == 1 and m * stride == n and not side[0]",
        "tests/invariance/test_exhaustive.py::test_sites_that_touch_no_border",
    ),
    Bug(
        "the strides of a transposed convolution sample",
        "invariance/sites.py",
        "stride = (1, 1) if is_transposed(module) else steps",
        "stride = steps",
        "tests/invariance/test_certificate.py::test_a_transposed_convolution",
    ),
    Bug(
        "lattices of two branches are compared as tuples",
        "invariance/exhaustive.py",
        "(max(self.lattice[0], lattice[0]), max(self.lattice[1], lattice[1]))",
        "max(self.lattice, lattice)",
        "tests/invariance/test_exhaustive.py::test_what_does_not_fit_together",
    ),
    Bug(
        "the culprit's number is rounded to half precision",
        "invariance/exact.py",
        "vector = wide(vector)",
        "vector = jnp.asarray(vector)",
        "tests/invariance/test_certificate.py::test_the_culprit_is_named_among_many",
    ),
    Bug(
        "a head that rounds is called broken",
        "invariance/proof.py",
        "elif _rounded(vectors, apart):",
        "elif False:",
        "tests/invariance/test_certificate.py::test_a_head_that_rounds",
    ),
    Bug(
        "a brief proof infers from a stride that does not hold",
        "invariance/proof.py",
        "if cell[0, 0]:",
        "if True:",
        "tests/invariance/test_certificate.py::test_an_unequal_multiple",
    ),
    Bug(
        "the interior is proved by numbers that do not fit",
        "invariance/certificate.py",
        "if bits.max() >= exact.TOO_MANY:",
        "if False:",
        "tests/invariance/test_certificate.py::test_the_interior_is_not_proved",
    ),
    Bug(
        "the twin multiplies at the accelerator's default precision",
        "invariance/exact.py",
        'jax.default_matmul_precision("highest")',
        'jax.default_matmul_precision("default")',
        "tests/invariance/test_certificate.py::test_the_twin_asks_for_products",
    ),
    Bug(
        "phases that were never chosen are dropped",
        "invariance/layerwise.py",
        "np.bincount(np.concatenate(kept), minlength=math.prod(strides[path]))",
        "np.bincount(np.concatenate(kept))",
        "tests/invariance/test_layerwise.py::test_phases_and_ties_are_counted",
    ),
    Bug(
        "validation draws from the stream of training",
        "invariance/probes.py",
        "[seed, SPLITS.index(split)]",
        "[seed]",
        "tests/invariance/test_probes.py::test_splits_are_independent_unless_the_leak",
    ),
)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("bug", BUGS, ids=[bug.what for bug in BUGS])
def test_a_planted_bug_is_caught(bug, tmp_path):
    shutil.copytree(ROOT / "cnnjax", tmp_path / "cnnjax")
    for folder in ("tests", "experiments"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    file = tmp_path / "cnnjax" / bug.file
    text = file.read_text()
    assert text.count(bug.right) == 1, "the code has moved on; so must this list"
    file.write_text(text.replace(bug.right, bug.wrong))
    path, _, name = bug.test.partition("::")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", path, "-k", name],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1, run.stdout[-2000:]
