"""Every test of fixed points draws the same numbers, alone and among others."""

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
