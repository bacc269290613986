"""The compiled engine: batched LDL^T and batched interior point, one problem per SIMD lane; the Lasso's kernels.

The C++ headers are in ``include/conelayers``; ``_engine`` is the compiled module. Importing this package loads the
module and never compiles anything.
"""

from typing import TYPE_CHECKING

try:
    from conelayers.native._engine import (
        LDLT,
        Differentiator,
        Engine,
        LDLTFactor,
        clearly_indefinite,
        conjugate_gradient,
        csc_columns,
        csc_squared,
        csc_times,
        csc_transposed,
        csr_product,
        derivative_image,
        descend_columns,
        descend_gram,
        descend_groups,
        engine_image,
        instruction_set,
        rows_chosen,
        rows_squared,
        rows_times,
        rows_transposed,
    )
except ImportError as error:  # a source tree that has not been built
    raise ImportError(
        "conelayers.native is not compiled. Install a C++17 compiler (for example `apt install g++`) and run "
        "`pip install .` in the source folder."
    ) from error

if TYPE_CHECKING:  # these are types only, and not in the compiled module
    from conelayers.native._engine import EngineSolution as EngineSolution
    from conelayers.native._engine import Gradients as Gradients

__all__ = [
    "LDLT",
    "Differentiator",
    "Engine",
    "LDLTFactor",
    "clearly_indefinite",
    "conjugate_gradient",
    "csc_columns",
    "csc_squared",
    "csc_times",
    "csc_transposed",
    "csr_product",
    "derivative_image",
    "descend_columns",
    "descend_gram",
    "descend_groups",
    "engine_image",
    "instruction_set",
    "rows_chosen",
    "rows_squared",
    "rows_times",
    "rows_transposed",
]
