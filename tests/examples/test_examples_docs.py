"""Every block of Python in the pages runs, in the order of its page, given what the page takes for granted."""

import re
import sys
from pathlib import Path

import matplotlib
import pytest
import torch
from matplotlib import pyplot

matplotlib.use("Agg")

ROOT = Path(__file__).parents[2]
PAGES = sorted(page for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")] if "```python" in page.read_text())

# What a reader of the page has at hand.
A_LAYER = """
import cvxpy as cp
import torch
from conelayers import CvxpyLayer

x, a = cp.Variable(2), cp.Parameter(2)
problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [cp.sum(x) <= 1, x >= 0])
parameters, variables = [a], [x]
layer = CvxpyLayer(problem, parameters, variables)
"""
GIVEN = {
    "choosing.md": A_LAYER,
    "trust.md": A_LAYER
    + """
a_value, direction = torch.tensor([0.2, 0.9]), torch.tensor([1.0, 0.5])

def train():
    layer(torch.rand(3, 2))
""",
    "lasso.md": """
import cvxpy as cp
import torch
from conelayers import CvxpyLayer

torch.manual_seed(0)
X = torch.randn(40, 6, dtype=torch.float64)
y = torch.sign(X[:, 0] + 0.3 * torch.randn(40, dtype=torch.float64))
w, l1, l2 = torch.ones(40), torch.tensor([0.01, 0.1]), torch.tensor(0.1)
b, alpha = cp.Variable(6), cp.Parameter(nonneg=True, name="alpha")
loss = cp.sum_squares(X.numpy() @ b - y.numpy()) / 40
layer = CvxpyLayer(cp.Problem(cp.Minimize(loss + alpha * cp.norm1(b))), [alpha], [b])
held_out = torch.randn(6, dtype=torch.float64)
""",
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.filterwarnings("ignore")
def test_blocks_run(page):
    namespace = {"__name__": page.stem}
    blocks = [GIVEN.get(page.name, ""), *re.findall(r"```python\n(.*?)```", page.read_text(), re.S)]
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        for number, block in enumerate(blocks):
            exec(compile(block, f"{page.name}, block {number}", "exec"), namespace)
    finally:
        torch.set_default_dtype(default)
        if "jax" in sys.modules:  # a page switches double precision on, for the whole process
            sys.modules["jax"].config.update("jax_enable_x64", False)
        pyplot.close("all")
