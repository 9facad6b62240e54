"""Data sets: a spec such as `mnist:train=1000` -> pictures and labels as NumPy arrays.

    dataset = cnnjax.data.load("digits_canvas")
    dataset.train.images            # (1437, 36, 36, 1) uint8

NumPy only: importing this package costs neither JAX nor scikit-learn.
"""

from cnnjax.data.catalog import DATASETS as DATASETS
from cnnjax.data.catalog import load as load
from cnnjax.data.dataset import Dataset as Dataset
from cnnjax.data.dataset import DatasetCard as DatasetCard
from cnnjax.data.dataset import Download as Download
from cnnjax.data.dataset import File as File
from cnnjax.data.dataset import Split as Split
from cnnjax.data.files import data_root as data_root
from cnnjax.data.subset import stratified_permutation as stratified_permutation
from cnnjax.data.subset import stratified_subset as stratified_subset
