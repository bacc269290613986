// The compiled module conelayers.native._engine.
#include <nanobind/nanobind.h>

#include "conelayers/dispatch.hpp"

namespace nb = nanobind;

namespace conelayers {
void bind_ldlt(nb::module_& m);
void bind_sparse(nb::module_& m);
void bind_views(nb::module_& m);
void bind_lasso(nb::module_& m);
#if defined(CONELAYERS_WITH_ENGINE)
void bind_engine(nb::module_& m);
#endif
#if defined(CONELAYERS_WITH_DERIVATIVE)
void bind_derivative(nb::module_& m);
#endif
}  // namespace conelayers

NB_MODULE(_engine, m) {
    // Solvers kept per structure live until the interpreter ends; that is no leak.
    nb::set_leak_warnings(false);
    m.doc() = "Batched LDL^T and batched interior point, compiled.";
    m.def("instruction_set", [] {
        const conelayers::Arch arch = conelayers::best_arch();
        return arch == conelayers::kAvx512 ? "avx512" : (arch == conelayers::kAvx2 ? "avx2" : "portable");
    });
    conelayers::bind_ldlt(m);
    conelayers::bind_sparse(m);
    conelayers::bind_views(m);
    conelayers::bind_lasso(m);
#if defined(CONELAYERS_WITH_ENGINE)
    conelayers::bind_engine(m);
#endif
#if defined(CONELAYERS_WITH_DERIVATIVE)
    conelayers::bind_derivative(m);
#endif
}
