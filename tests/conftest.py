"""One default floating type for every test, whichever of them are selected."""

import torch

torch.set_default_dtype(torch.float64)
