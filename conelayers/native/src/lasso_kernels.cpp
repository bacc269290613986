// Compiled once per instruction set (see CMakeLists.txt).
#include "lasso_kernels.hpp"

namespace conelayers {
namespace CONELAYERS_KERNELS {
namespace {

SeparableParts parts(const TermParts& t) { return {t.linear, t.l1, t.l2, t.lower, t.upper}; }
RowGroups grouped(const GroupParts& g) { return {g.count, g.members, g.offsets, g.scale, g.l1}; }

double sweep(long long k, const double* Q, double* gradient, double* w, const TermParts& term) {
    return gram_sweep(k, Q, gradient, w, parts(term));
}
long long moving(long long k, const double* w, const TermParts& term, long long* free) {
    return free_entries(k, w, parts(term), free);
}
void jump(long long k, const double* Q, double* gradient, double* w, const TermParts& term, const long long* free,
          long long s, double* M, double* work) {
    newton_jump(k, Q, gradient, w, parts(term), free, s, M, work);
}
void bounds(long long m, const double* Q, const GroupParts& groups, double* bound) {
    group_bounds(m, Q, grouped(groups), bound);
}
double descend_groups(long long m, long long r, const double* Q, double* gradient, double* w, const GroupParts& groups,
                      const double* bound, double* fresh) {
    return group_sweep(m, r, Q, gradient, w, grouped(groups), bound, fresh);
}

template <class Value, class Index>
struct OfColumns {
    using View = CscView<Value, Index>;
    static Columns<Value, Index> read(const View& X) { return {X.start, X.row, X.value}; }

    static void times(const View& X, long long p, long long K, const double* w, double* out) {
        columns_times(read(X), p, K, w, out);
    }
    static void transposed(const View& X, long long first, long long last, long long K, const double* r, double* out) {
        columns_transposed(read(X), first, last, K, r, out);
    }
    static void squared(const View& X, long long first, long long last, const double* weight, double* out) {
        for (long long j = first; j < last; ++j) out[j] = read(X).square(j, weight);
    }
    static double descend(const View& X, long long n, long long k, const double* h, double* r, double* w, const TermParts& term,
                          double total, int epochs, double target, double* work) {
        ColumnDescent<Value, Index> model{read(X), k, h, r, w, work, work + k, parts(term), total, 0.0};
        model.best_shift(n);
        model.run(epochs, target);
        return model.shift;
    }
    static bool solve(const View& X, long long n, long long k, const double* h, const double* curvature,
                      const double* rhs, bool intercept, double rtol, int most, double* u, double* work) {
        return conjugate_gradient(read(X), n, k, h, curvature, rhs, intercept, rtol, most, u, work);
    }
    static constexpr ColumnKernels<Value, Index> all = {&times, &transposed, &squared, &descend, &solve};
};

template <class Value>
struct OfRows {
    using View = RowsView<Value>;
    static DenseRows<Value> read(const View& X) { return {X.value, X.stride, X.index, X.p}; }

    static void times(const View& X, long long first, long long last, long long K, const double* B,
                      const long long* features, long long used, double* out) {
        rows_times(read(X), first, last, K, B, features, used, out);
    }
    static void transposed(const View& X, long long n, long long first, long long last, long long K, const double* R,
                           double* out) {
        rows_transposed(read(X), n, first, last, K, R, out);
    }
    static void chosen(const View& X, long long first, long long last, const long long* features, long long count,
                       double* out) {
        rows_chosen(read(X), first, last, features, count, out);
    }
    static void squared(const View& X, long long n, long long first, long long last, const double* weight,
                        double* out) {
        rows_squared(read(X), n, first, last, weight, out);
    }
    static constexpr RowKernels<Value> all = {&times, &transposed, &chosen, &squared};
};

}  // namespace

extern const LassoKernels lasso;
const LassoKernels lasso = {{&sweep, &moving, &jump, &bounds, &descend_groups},
                            OfColumns<double, std::int32_t>::all,
                            OfColumns<double, std::int64_t>::all,
                            OfColumns<float, std::int32_t>::all,
                            OfColumns<float, std::int64_t>::all,
                            OfRows<double>::all,
                            OfRows<float>::all};

}  // namespace CONELAYERS_KERNELS
}  // namespace conelayers
