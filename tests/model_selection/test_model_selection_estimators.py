"""The estimators follow scikit-learn's conventions and find what its grids find."""

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.datasets import load_diabetes, make_regression
from sklearn.linear_model import LassoCV
from sklearn.model_selection import GroupKFold, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from conelayers.model_selection.estimators import (
    ElasticNetImplicitCV,
    GroupLassoImplicitCV,
    LassoImplicitCV,
    LogisticImplicitCV,
    MultiTaskLassoImplicitCV,
    WeightedLassoImplicitCV,
)
from conelayers.model_selection.searches import LBFGS, GridSearch, Safeguarded

ESTIMATORS = [
    LassoImplicitCV(),
    ElasticNetImplicitCV(search=Safeguarded(size=3)),
    GroupLassoImplicitCV(search=Safeguarded(size=4)),
    WeightedLassoImplicitCV(search=LBFGS(max_evaluations=3)),
    MultiTaskLassoImplicitCV(search=Safeguarded(size=4)),
    LogisticImplicitCV(search=Safeguarded(size=4)),
]


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)
