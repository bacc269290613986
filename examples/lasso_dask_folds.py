"""Folds on a Dask cluster: the same estimator, another joblib backend.

Needs `dask` and `distributed`. A local cluster stands in for a real one; give `Client` a scheduler's address for that.

Run: python examples/lasso_dask_folds.py [--workers 2]
"""

import argparse

from sklearn.datasets import make_regression

from conelayers.model_selection import LassoImplicitCV


def main(argv: list[str] | None = None) -> dict[str, float]:
    from dask.distributed import Client, LocalCluster
    from joblib import parallel_config

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(argv)

    X, y = make_regression(200, 400, n_informative=10, noise=20.0, random_state=0)
    here = LassoImplicitCV(cv=4).fit(X, y)
    with (
        LocalCluster(
            n_workers=options.workers, threads_per_worker=1, dashboard_address=None, processes=False
        ) as cluster,
        Client(cluster),
        parallel_config(backend="dask"),
    ):
        there = LassoImplicitCV(cv=4, n_jobs=-1).fit(X, y)
    print(f"alpha here {here.alpha_:.6g}, on the cluster {there.alpha_:.6g}")
    return {"here": here.alpha_, "there": there.alpha_}


if __name__ == "__main__":
    main()
