// The Lasso's kernels of one instruction set, as seen by the bindings; see conelayers/lasso/.
#pragma once

#include <cstdint>

#include "conelayers/lasso/columns.hpp"
#include "conelayers/lasso/rows.hpp"

namespace conelayers {

// What describes data to a kernel, the same for every instruction set.
struct TermParts {
    const double *linear, *l1, *l2, *lower, *upper;
};
struct GroupParts {
    long long count;
    const long long *members, *offsets;
    const double *scale, *l1;
};
template <class Value, class Index>
struct CscView {
    const Index *start, *row;
    const Value* value;
};
template <class Value>
struct RowsView {
    const Value* value;
    long long stride;
    const long long* index;
    long long p;
};

struct DescentKernels {
    double (*sweep)(long long k, const double* Q, double* gradient, double* w, const TermParts&);
    long long (*free)(long long k, const double* w, const TermParts&, long long* free);
    void (*jump)(long long k, const double* Q, double* gradient, double* w, const TermParts&, const long long* free,
                 long long s, double* M, double* work);
    void (*bounds)(long long m, const double* Q, const GroupParts&, double* bound);
    double (*groups)(long long m, long long r, const double* Q, double* gradient, double* w, const GroupParts&,
                     const double* bound, double* fresh);
};

template <class Value, class Index>
struct ColumnKernels {
    using View = CscView<Value, Index>;
    void (*times)(const View&, long long p, long long K, const double* w, double* out);
    void (*transposed)(const View&, long long first, long long last, long long K, const double* r, double* out);
    void (*squared)(const View&, long long first, long long last, const double* weight, double* out);
    // work: 2 k numbers. Returns the change of the intercept.
    double (*descend)(const View&, long long n, long long k, const double* h, double* r, double* w, const TermParts&,
                      double total, int epochs, double target, double* work);
    bool (*solve)(const View&, long long n, long long k, const double* h, const double* curvature, const double* rhs,
                  bool intercept, double rtol, int most, double* u, double* work);
};

template <class Value>
struct RowKernels {
    using View = RowsView<Value>;
    void (*times)(const View&, long long first, long long last, long long K, const double* B, const long long* features,
                  long long used, double* out);
    void (*transposed)(const View&, long long n, long long first, long long last, long long K, const double* R,
                       double* out);
    void (*chosen)(const View&, long long first, long long last, const long long* features, long long count,
                   double* out);
    void (*squared)(const View&, long long n, long long first, long long last, const double* weight, double* out);
};

struct LassoKernels {
    DescentKernels descent;
    ColumnKernels<double, std::int32_t> columns_d32;
    ColumnKernels<double, std::int64_t> columns_d64;
    ColumnKernels<float, std::int32_t> columns_f32;
    ColumnKernels<float, std::int64_t> columns_f64;
    RowKernels<double> rows_d;
    RowKernels<float> rows_f;
};

namespace kernels_portable { extern const LassoKernels lasso; }
namespace kernels_avx2 { extern const LassoKernels lasso; }
namespace kernels_avx512 { extern const LassoKernels lasso; }

}  // namespace conelayers
