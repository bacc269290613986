// Python bindings of the Lasso's kernels. Designs come in the types that they are stored in and are never converted.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <utility>
#include <vector>

#include "conelayers/dispatch.hpp"
#include "conelayers/threads.hpp"
#include "lasso_kernels.hpp"

namespace nb = nanobind;

namespace conelayers {
namespace {

template <class T, int D>
using In = nb::ndarray<const T, nb::ndim<D>, nb::c_contig, nb::device::cpu>;
template <class T, int D>
using InOut = nb::ndarray<T, nb::ndim<D>, nb::c_contig, nb::device::cpu>;
using Reals = In<double, 1>;
using Table = In<double, 2>;
using Places = In<std::int64_t, 1>;
using Output = nb::ndarray<nb::numpy, double>;

// A new numpy array of undefined values that gives its memory back: results come in many sizes, and keeping those for
// the next ones would hold a multiple of the design.
template <class T>
nb::ndarray<nb::numpy, T> fresh_array(std::initializer_list<std::size_t> shape, T** data) {
    std::size_t count = 1;
    for (std::size_t extent : shape) count *= extent;
    *data = new T[std::max<std::size_t>(count, 1)];
    nb::capsule owner(*data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
    return nb::ndarray<nb::numpy, T>(*data, shape, owner);
}

// Entries of a design that one task should at least touch; less is not worth a thread.
constexpr long long kTaskEntries = 1 << 16;

const LassoKernels& kernels() {
#if defined(CONELAYERS_X86)
    const int arch = best_arch();
    if (arch == kAvx512) return kernels_avx512::lasso;
    if (arch == kAvx2) return kernels_avx2::lasso;
#endif
    return kernels_portable::lasso;
}

const long long* places(const Places& index) { return reinterpret_cast<const long long*>(index.data()); }

void require(bool holds, const char* message) {
    if (!holds) throw std::invalid_argument(message);
}

// task(first, last) over [0, count), on threads where the work is worth them; ranges are multiples of `unit`.
template <class Task>
void over_ranges(long long count, long long entries, int threads, long long unit, const Task& task) {
    const long long wanted = std::min<long long>(4 * std::max(threads, 1), entries / kTaskEntries);
    const long long slices = threads > 1 ? std::max<long long>(1, std::min(wanted, count / unit)) : 1;
    ThreadPool::run(static_cast<int>(slices), threads, [&](int slice, int) {
        const long long first = count * slice / slices / unit * unit;
        const long long last = slice + 1 == slices ? count : count * (slice + 1) / slices / unit * unit;
        task(first, last);
    });
}

// The five parts of a separable term, as one array (5, k).
TermParts parts(const Table& term, std::size_t k) {
    require(term.shape(0) == 5 && term.shape(1) == k, "term must have shape (5, k)");
    const double* t = term.data();
    return {t, t + k, t + 2 * k, t + 3 * k, t + 4 * k};
}

int descend_gram(const Table& Q, const InOut<double, 1>& gradient, const InOut<double, 1>& w, const Table& term,
                 int epochs, double target) {
    const std::size_t size = w.shape(0);
    require(Q.shape(0) == size && Q.shape(1) == size && gradient.shape(0) == size, "Q and gradient must fit w");
    const TermParts given = parts(term, size);
    const long long k = static_cast<long long>(size);
    nb::gil_scoped_release release;
    const DescentKernels& run = kernels().descent;
    std::vector<long long> free(size);
    std::unique_ptr<double[]> work, M;
    long long room = 0;
    for (int epoch = 0; epoch < epochs; ++epoch) {
        if (run.sweep(k, Q.data(), gradient.data(), w.data(), given) <= target) return epoch + 1;
        // a jump costs a factorization: after as many sweeps as cost the same, at least five
        const long long used = k - std::count(w.data(), w.data() + k, 0.0);
        if (epoch % (5 + used * used / (12 * k)) != 4) continue;
        const long long s = run.free(k, w.data(), given, free.data());
        if (!work) work.reset(new double[jump_work(k)]);
        if (s > room) M.reset(new double[(room = s) * s]);
        run.jump(k, Q.data(), gradient.data(), w.data(), given, free.data(), s, M.get(), work.get());
    }
    return epochs;
}

int descend_groups(const Table& Q, const InOut<double, 2>& gradient, const InOut<double, 2>& w, const Reals& scale,
                   const Table& l1, const Places& members, const Places& offsets, int epochs, double target) {
    const std::size_t m = w.shape(0), r = w.shape(1);
    require(Q.shape(0) == m && Q.shape(1) == m, "Q must fit w");
    require(gradient.shape(0) == m && gradient.shape(1) == r && l1.shape(0) == m && l1.shape(1) == r,
            "gradient and l1 must have the shape of w");
    require(members.shape(0) == m && offsets.shape(0) == scale.shape(0) + 1, "groups must hold every row once");
    nb::gil_scoped_release release;
    const DescentKernels& run = kernels().descent;
    const GroupParts groups{static_cast<long long>(scale.shape(0)), places(members), places(offsets), scale.data(),
                            l1.data()};
    std::vector<double> bound(scale.shape(0)), fresh(m * r);
    run.bounds(m, Q.data(), groups, bound.data());
    for (int epoch = 0; epoch < epochs; ++epoch)
        if (run.groups(m, r, Q.data(), gradient.data(), w.data(), groups, bound.data(), fresh.data()) <= target)
            return epoch + 1;
    return epochs;
}

template <class Value, class Index>
const ColumnKernels<Value, Index>& column_kernels() {
    const LassoKernels& all = kernels();
    if constexpr (sizeof(Value) == 8 && sizeof(Index) == 4) return all.columns_d32;
    else if constexpr (sizeof(Value) == 8) return all.columns_d64;
    else if constexpr (sizeof(Index) == 4) return all.columns_f32;
    else return all.columns_f64;
}

// Functions of a matrix in compressed columns.
template <class Value, class Index>
struct Csc {
    using Starts = In<Index, 1>;
    using Values = In<Value, 1>;

    static CscView<Value, Index> view(const Starts& indptr, const Starts& indices, const Values& data) {
        require(indptr.shape(0) > 0 && indices.shape(0) == data.shape(0) &&
                    static_cast<std::size_t>(indptr.data()[indptr.shape(0) - 1]) <= data.shape(0),
                "indptr, indices and data must be compressed columns");
        return {indptr.data(), indices.data(), data.data()};
    }
    static long long columns(const Starts& indptr) { return static_cast<long long>(indptr.shape(0)) - 1; }

    static Output times(const Starts& indptr, const Starts& indices, const Values& data, long long n, const Table& w) {
        const auto X = view(indptr, indices, data);
        const long long p = columns(indptr), K = static_cast<long long>(w.shape(1));
        require(static_cast<long long>(w.shape(0)) == p, "w must have a row per column");
        double* out;
        auto made = fresh_array<double>({static_cast<std::size_t>(n), w.shape(1)}, &out);
        {
            nb::gil_scoped_release release;
            std::fill(out, out + n * K, 0.0);
            column_kernels<Value, Index>().times(X, p, K, w.data(), out);
        }
        return Output(made);
    }

    static Output transposed(const Starts& indptr, const Starts& indices, const Values& data, const Table& r,
                             int threads) {
        const auto X = view(indptr, indices, data);
        const long long p = columns(indptr), K = static_cast<long long>(r.shape(1));
        double* out;
        auto made = fresh_array<double>({static_cast<std::size_t>(p), r.shape(1)}, &out);
        {
            nb::gil_scoped_release release;
            over_ranges(p, indptr.data()[p] * K, threads, 1, [&](long long first, long long last) {
                column_kernels<Value, Index>().transposed(X, first, last, K, r.data(), out);
            });
        }
        return Output(made);
    }

    static Output squared(const Starts& indptr, const Starts& indices, const Values& data, const Reals& weight) {
        const auto X = view(indptr, indices, data);
        const long long p = columns(indptr);
        double* out;
        auto made = fresh_array<double>({static_cast<std::size_t>(p)}, &out);
        column_kernels<Value, Index>().squared(X, 0, p, weight.data(), out);
        return Output(made);
    }

    // Some columns of the rows that `place` numbers (a negative number: not among them), in double precision.
    static auto chosen(const Starts& indptr, const Starts& indices, const Values& data, const Places& features,
                       std::optional<Places> place) {
        const auto X = view(indptr, indices, data);
        const std::size_t k = features.shape(0);
        const std::int64_t* number = place ? place->data() : nullptr;
        Index *start, *row;
        double* value;
        auto starts = fresh_array<Index>({k + 1}, &start);
        start[0] = 0;
        for (std::size_t j = 0; j < k; ++j) {
            const std::int64_t from = features.data()[j];
            require(from >= 0 && from < columns(indptr), "features must be columns");
            Index count = 0;
            for (Index a = X.start[from]; a < X.start[from + 1]; ++a)
                count += number == nullptr || number[X.row[a]] >= 0 ? 1 : 0;
            start[j + 1] = start[j] + count;
        }
        auto rows = fresh_array<Index>({static_cast<std::size_t>(start[k])}, &row);
        auto values = fresh_array<double>({static_cast<std::size_t>(start[k])}, &value);
        for (std::size_t j = 0; j < k; ++j) {
            Index to = start[j];
            const std::int64_t from = features.data()[j];
            for (Index a = X.start[from]; a < X.start[from + 1]; ++a) {
                const std::int64_t i = number == nullptr ? X.row[a] : number[X.row[a]];
                if (i < 0) continue;
                row[to] = static_cast<Index>(i);
                value[to++] = static_cast<double>(X.value[a]);
            }
        }
        return std::make_tuple(starts, rows, values);
    }

    static double descend(const Starts& indptr, const Starts& indices, const Values& data, const Reals& h,
                          const InOut<double, 1>& r, bool intercept, const InOut<double, 1>& w, const Table& term,
                          int epochs, double target) {
        const auto X = view(indptr, indices, data);
        const long long k = columns(indptr), n = static_cast<long long>(h.shape(0));
        require(static_cast<long long>(w.shape(0)) == k && r.shape(0) == h.shape(0), "w and r must fit X");
        const TermParts given = parts(term, w.shape(0));
        nb::gil_scoped_release release;
        const double total = intercept ? std::max(std::accumulate(h.data(), h.data() + n, 0.0), 0.0) : 0.0;
        std::vector<double> work(2 * k);
        return column_kernels<Value, Index>().descend(X, n, k, h.data(), r.data(), w.data(), given, total, epochs,
                                                      target, work.data());
    }

    static std::pair<Output, bool> solve(const Starts& indptr, const Starts& indices, const Values& data,
                                         const Reals& h, const Reals& curvature, const Reals& rhs, bool intercept,
                                         double rtol, int most) {
        const auto X = view(indptr, indices, data);
        const long long k = columns(indptr), n = static_cast<long long>(h.shape(0));
        require(static_cast<long long>(curvature.shape(0)) == k &&
                    static_cast<long long>(rhs.shape(0)) == k + (intercept ? 1 : 0),
                "curvature and rhs must fit X");
        double* u;
        auto made = fresh_array<double>({rhs.shape(0)}, &u);
        bool solved;
        {
            nb::gil_scoped_release release;
            std::vector<double> work(n + 4 * (k + 1));
            solved = column_kernels<Value, Index>().solve(X, n, k, h.data(), curvature.data(), rhs.data(), intercept,
                                                          rtol, most, u, work.data());
        }
        return {Output(made), solved};
    }

    static void bind(nb::module_& m) {
        const auto indptr = nb::arg("indptr").noconvert(), indices = nb::arg("indices").noconvert(),
                   data = nb::arg("data").noconvert();
        m.def("csc_times", &times, indptr, indices, data, nb::arg("n"), nb::arg("w"));
        m.def("csc_transposed", &transposed, indptr, indices, data, nb::arg("r"), nb::arg("threads") = 1);
        m.def("csc_squared", &squared, indptr, indices, data, nb::arg("weight"));
        m.def("csc_columns", &chosen, indptr, indices, data, nb::arg("features"), nb::arg("place").none());
        m.def("descend_columns", &descend, indptr, indices, data, nb::arg("h"), nb::arg("r").noconvert(),
              nb::arg("intercept"), nb::arg("w").noconvert(), nb::arg("term"), nb::arg("epochs"), nb::arg("target"));
        m.def("conjugate_gradient", &solve, indptr, indices, data, nb::arg("h"), nb::arg("curvature"), nb::arg("rhs"),
              nb::arg("intercept"), nb::arg("rtol"), nb::arg("most"));
    }
};

// Functions of some rows of a dense row-major matrix.
template <class Value>
struct Rows {
    using Dense = nb::ndarray<const Value, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

    static RowsView<Value> view(const Dense& X, const std::optional<Places>& index) {
        const long long p = static_cast<long long>(X.shape(1));
        return {X.data(), p, index ? places(*index) : nullptr, p};
    }
    static std::size_t count(const Dense& X, const std::optional<Places>& index) {
        return index ? index->shape(0) : X.shape(0);
    }
    static const RowKernels<Value>& run() {
        if constexpr (sizeof(Value) == 8) return kernels().rows_d;
        else return kernels().rows_f;
    }

    // X B', shape (n, K), for B of shape (K, p), or (K, used) on the features in use.
    static Output times(const Dense& X, std::optional<Places> index, const Table& B, std::optional<Places> features,
                        int threads) {
        const auto rows = view(X, index);
        const std::size_t n = count(X, index);
        const long long K = static_cast<long long>(B.shape(0)), used = static_cast<long long>(B.shape(1));
        require(used == (features ? static_cast<long long>(features->shape(0)) : rows.p), "B must fit X");
        double* out;
        auto made = fresh_array<double>({n, B.shape(0)}, &out);
        {
            nb::gil_scoped_release release;
            over_ranges(n, n * used, threads, 1, [&](long long first, long long last) {
                run().times(rows, first, last, K, B.data(), features ? places(*features) : nullptr, used, out);
            });
        }
        return Output(made);
    }

    // R X, shape (K, p), for R of shape (K, n). A range of features stays in the cache while rows go by.
    static Output transposed(const Dense& X, std::optional<Places> index, const Table& R, int threads) {
        const auto rows = view(X, index);
        const long long n = static_cast<long long>(count(X, index)), K = static_cast<long long>(R.shape(0));
        require(static_cast<long long>(R.shape(1)) == n, "R must have a column per row");
        double* out;
        auto made = fresh_array<double>({R.shape(0), X.shape(1)}, &out);
        {
            nb::gil_scoped_release release;
            over_ranges(rows.p, n * rows.p, threads, 16, [&](long long first, long long last) {
                for (long long low = first; low < last; low += kRange)
                    run().transposed(rows, n, low, std::min(last, low + kRange), K, R.data(), out);
            });
        }
        return Output(made);
    }

    // Some features of the rows, shape (n, count), in double precision.
    static Output chosen(const Dense& X, std::optional<Places> index, const Places& features, int threads) {
        const auto rows = view(X, index);
        const std::size_t n = count(X, index), k = features.shape(0);
        for (std::size_t a = 0; a < k; ++a)
            require(features.data()[a] >= 0 && features.data()[a] < rows.p, "features must be columns of X");
        double* out;
        auto made = fresh_array<double>({n, k}, &out);
        {
            nb::gil_scoped_release release;
            over_ranges(n, n * k, threads, 1, [&](long long first, long long last) {
                run().chosen(rows, first, last, places(features), k, out);
            });
        }
        return Output(made);
    }

    static Output squared(const Dense& X, std::optional<Places> index, const Reals& weight, int threads) {
        const auto rows = view(X, index);
        const long long n = static_cast<long long>(count(X, index));
        require(static_cast<long long>(weight.shape(0)) == n, "weight must have an entry per row");
        double* out;
        auto made = fresh_array<double>({X.shape(1)}, &out);
        {
            nb::gil_scoped_release release;
            over_ranges(rows.p, n * rows.p, threads, 16, [&](long long first, long long last) {
                for (long long low = first; low < last; low += kRange)
                    run().squared(rows, n, low, std::min(last, low + kRange), weight.data(), out);
            });
        }
        return Output(made);
    }

    static void bind(nb::module_& m) {
        const auto X = nb::arg("X").noconvert();
        const auto index = nb::arg("index").none();
        m.def("rows_times", &times, X, index, nb::arg("B"), nb::arg("features").none(), nb::arg("threads") = 1);
        m.def("rows_transposed", &transposed, X, index, nb::arg("R"), nb::arg("threads") = 1);
        m.def("rows_chosen", &chosen, X, index, nb::arg("features"), nb::arg("threads") = 1);
        m.def("rows_squared", &squared, X, index, nb::arg("weight"), nb::arg("threads") = 1);
    }

    static constexpr long long kRange = 4096;
};

}  // namespace

void bind_lasso(nb::module_& m) {
    m.def("descend_gram", &descend_gram, nb::arg("Q"), nb::arg("gradient").noconvert(), nb::arg("w").noconvert(),
          nb::arg("term"), nb::arg("epochs"), nb::arg("target"));
    m.def("descend_groups", &descend_groups, nb::arg("Q"), nb::arg("gradient").noconvert(), nb::arg("w").noconvert(),
          nb::arg("scale"), nb::arg("l1"), nb::arg("members"), nb::arg("offsets"), nb::arg("epochs"),
          nb::arg("target"));
    Csc<double, std::int32_t>::bind(m);
    Csc<double, std::int64_t>::bind(m);
    Csc<float, std::int32_t>::bind(m);
    Csc<float, std::int64_t>::bind(m);
    Rows<double>::bind(m);
    Rows<float>::bind(m);
}

}  // namespace conelayers
