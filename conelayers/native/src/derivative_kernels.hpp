// The derivative kernels of one instruction set, as seen by the bindings.
#pragma once

#include "conelayers/derivative_layout.hpp"
#include "rows.hpp"

namespace conelayers {

// One pack: items [first, first + items).
struct PackRange {
    int first, items;
};

struct DerivativeProblem {
    Rows p, a, v;
    double mu;
};

struct PullbackData {
    Rows x, y, s, x_cotangent, y_cotangent, s_cotangent;
    Rows direction;  // p_entries + n + a_entries + m numbers, or null
    double *dp, *dq, *da, *db, *lambda, *u, *residual;  // row-major, a row per item
    double* outside;  // (batch, 2): what no motion of x, and none of v, makes of the data's motion along the direction
};

struct ProbeData {
    Rows y, s;
    const double* rhs;  // (n + m), the same for all items
    double accuracy;
    double *length, *residual;  // (batch,)
};

struct PolishData {
    Rows p, q, a, b, x, y, s;
    int steps;
    double target;
    double *x_out, *y_out, *s_out, *residual;
    double* relative;  // (batch, 3): relative primal residual, dual residual and gap
};

struct DerivativeKernels {
    int width;  // lanes per pack
    long long (*work_size)(const DerivativeView&);  // doubles per thread
    // Solve J (dx, dv) = (r1, r2) for `count` right-hand sides of each item; r1, dx (batch, count, n), r2, dv
    // (batch, count, m), residual (batch, count). Where J is singular: least_norm.hpp.
    void (*solve)(const DerivativeView&, const DerivativeProblem&, PackRange, int count, const double* r1,
                  const double* r2, double* dx, double* dv, double* residual, double* work);
    // out = D u, (batch, count, m).
    void (*apply)(const DerivativeView&, const DerivativeProblem&, PackRange, int count, const double* u, double* out,
                  double* work);
    // out = Pi_{K*}(v), (batch, m).
    void (*project)(const DerivativeView&, const DerivativeProblem&, PackRange, double* out, double* work);
    void (*pullback)(const DerivativeView&, const DerivativeProblem&, PackRange, const PullbackData&, double* work);
    // Solve J z = rhs to a relative residual of about `accuracy`: |z| and the residual reached.
    void (*probe)(const DerivativeView&, const DerivativeProblem&, PackRange, const ProbeData&, double* work);
    void (*polish)(const DerivativeView&, PackRange, const PolishData&, double* work);
};

// The kernels for a batch of so many items.
const DerivativeKernels& derivative_kernels(long long items);

namespace kernels_portable { extern const DerivativeKernels derivative_pack, derivative_single; }
namespace kernels_avx2 { extern const DerivativeKernels derivative_pack, derivative_single; }
namespace kernels_avx512 { extern const DerivativeKernels derivative_pack, derivative_single; }

}  // namespace conelayers
