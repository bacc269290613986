"""Two-layer ReLU networks, with batch normalization too, trained to the global optimum as convex programmes.

    v, w = ConvexReLU(X)(y, weight_decay);  model.predict(X_new, v, w);  model.network(v, w) -> nn.Sequential

`patterns` enumerates where neurons can be active, `features` is what batch normalization makes of the data,
`convex_relu` the programme as a layer, `networks` its solution as a network, `closed_form` the case without a solver.
"""

from conelayers.convex_networks.closed_form import batch_norm_closed_form
from conelayers.convex_networks.convex_relu import ConvexReLU, logistic_loss, squared_loss
from conelayers.convex_networks.patterns import activation_patterns

__all__ = ["ConvexReLU", "activation_patterns", "batch_norm_closed_form", "logistic_loss", "squared_loss"]
