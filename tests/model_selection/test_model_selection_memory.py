"""Folds are rows of one X, in memory as in their answers; nothing but the estimators needs scikit-learn."""

import subprocess
import sys

import numpy as np
import scipy.sparse as sp

from conelayers.model_selection import LassoImplicitCV

PLAIN = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("sklearn", "joblib", "numba", "matplotlib"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])

sys.meta_path.insert(0, Absent())
import numpy as np
from conelayers.lasso import L1, ProximalModel, Quadratic
from conelayers.model_selection import CrossValidation, LogSpace, Safeguarded, tune

assert abs(tune(lambda a: (a - 0.3) ** 2, lambda z: z, {"a": (1e-2, 1.0)}).hyperparameters["a"] - 0.3) < 1e-2
X, half = np.random.default_rng(0).normal(size=(40, 6)), np.arange(20)
space, model, folds = LogSpace.between({"alpha": (1e-3, 1.0)}), ProximalModel(Quadratic(), L1()), [(half, half + 20)]
found = Safeguarded().run(CrossValidation(model, space, X, X[:, 0], cv=folds))
calls = {
    "conelayers[lasso]": lambda: CrossValidation(model, space, X, X[:, 0], cv=3),
    "conelayers[plots]": found.history.plot,
}
for extra, call in calls.items():
    try:
        call()
    except ImportError as error:
        assert extra in str(error), error
    else:
        raise AssertionError(extra)
try:
    from conelayers.model_selection import LassoImplicitCV
except ImportError as error:
    assert "pip install 'conelayers[lasso]'" in str(error), error
else:
    raise AssertionError("LassoImplicitCV")
"""


def test_a_plain_install_tunes_and_names_what_it_lacks():
    done = subprocess.run([sys.executable, "-c", PLAIN], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_single_precision_and_sparse_folds_answer_as_dense_double_ones():
    rng = np.random.default_rng(0)
    X = np.where(rng.random((90, 40)) < 0.4, rng.standard_normal((90, 40)), 0).astype(np.float32)
    y = X[:, :4] @ np.ones(4) + 0.3 * rng.standard_normal(90)
    expected = LassoImplicitCV(cv=3, tol=1e-10).fit(X.astype(float), y)
    for other in (X, sp.csc_array(X), sp.csr_array(X.astype(float))):
        found = LassoImplicitCV(cv=3, tol=1e-10).fit(other, y)
        np.testing.assert_allclose(found.coef_, expected.coef_, atol=1e-6)
        assert found.alpha_ == np.float64(found.alpha_) and abs(found.alpha_ / expected.alpha_ - 1) < 1e-6
