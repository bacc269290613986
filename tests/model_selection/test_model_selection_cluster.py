"""Folds on a local Dask cluster."""

import pytest
from sklearn.datasets import make_regression

from conelayers.model_selection import LassoImplicitCV


def test_folds_on_a_dask_cluster():
    distributed = pytest.importorskip("dask.distributed")
    from joblib import parallel_config

    X, y = make_regression(80, 60, n_informative=5, noise=10.0, random_state=0)
    alone = LassoImplicitCV(cv=3).fit(X, y)
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None)
    with cluster, distributed.Client(cluster), parallel_config(backend="dask"):
        together = LassoImplicitCV(cv=3, n_jobs=-1).fit(X, y)
    assert together.alpha_ == alone.alpha_
