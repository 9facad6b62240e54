"""usage: cnnjax certify DIR... [--json=FILE] [--images=N]

Say which shifts the trained network of a trial is exactly invariant to, and prove it. DIR is a
trial (trials/<id> of a study) or a study, which stands for all its finished trials. One paragraph
a trial goes to standard output; --json writes the certificates in full.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax.traverse_util import unflatten_dict

from cnnjax import build, data
from cnnjax.cli.flags import Flags
from cnnjax.invariance.certificate import Certificate, certify
from cnnjax.study.files import place
from cnnjax.study.store import TrialFiles
from cnnjax.study.trained import config_of, trials


def main(words: list[str]) -> int:
    """Run the verb; return 0. A directory without a trained trial raises OSError."""
    flags = Flags("certify", __doc__ or "")
    flags.string("json", None, "file for the certificates in full")
    flags.integer("images", 2, "test images for the audit of the trained network")
    rest = flags.parse(words)
    if rest is None:
        return 0
    if not rest:
        raise ValueError("expected a trial or a study directory, got none")
    if flags.json is not None and not Path(flags.json or "/").absolute().parent.is_dir():
        raise ValueError(f"--json: expected a file in a directory that exists, got {flags.json!r}")
    found: dict[str, Any] = {}
    for trial in [trial for word in rest for trial in trials(place(word))]:
        certificate = certify_trial(trial, images=flags.images)
        found[str(trial)] = certificate.to_dict()
        print(f"{trial}: {certificate.paragraph()}")
    if flags.json:
        Path(flags.json).write_text(json.dumps(found, indent=2) + "\n")
    return 0


def certify_trial(directory: Path, *, images: int = 2) -> Certificate:
    """Certify the network of one trial at its trained variables."""
    files = TrialFiles(directory)
    config = config_of(files)
    dataset = data.load(config.dataset, config.data_dir)
    net = build.build_net(config, dataset.num_classes, dataset.image_shape)
    variables = unflatten_dict(files.variables(), sep="/")
    sample = build.build_input(dataset)(jnp.asarray(dataset.test[0][:images]))
    return certify(net, variables, dataset.image_shape, images=sample)
