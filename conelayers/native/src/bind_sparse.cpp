// Products of one sparse matrix with many vectors, item by item: out[i] = M x[i] + offset.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>

#include "conelayers/threads.hpp"

namespace nb = nanobind;

namespace conelayers {
namespace {

using Ints = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Reals = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using MatrixOut = nb::ndarray<double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// Entries that one task should at least touch; less is not worth a thread.
constexpr long long kTaskEntries = 1 << 15;

struct Csr {
    const std::int32_t *start, *column;
    const double *value, *offset;
    int rows;
    bool single;  // every row has exactly one entry: a scaled gather

    void multiply(const double* x, double* out, int first, int last) const {
        if (single) {
            for (int r = first; r < last; ++r) out[r] = offset[r] + value[r] * x[column[r]];
            return;
        }
        for (int r = first; r < last; ++r) {
            double sum = offset[r];
            for (std::int32_t k = start[r]; k < start[r + 1]; ++k) sum += value[k] * x[column[k]];
            out[r] = sum;
        }
    }
};

void csr_product(const Ints& start, const Ints& column, const Reals& value, const Reals& offset, const Matrix& x,
                 const MatrixOut& out, int threads) {
    const int rows = static_cast<int>(out.shape(1)), items = static_cast<int>(out.shape(0));
    if (static_cast<int>(start.shape(0)) != rows + 1 || static_cast<int>(offset.shape(0)) != rows)
        throw std::invalid_argument("indptr, offset and out must agree on the number of rows");
    if (x.shape(0) != out.shape(0)) throw std::invalid_argument("x and out must have as many items");
    bool single = static_cast<int>(value.shape(0)) == rows;
    for (int r = 0; single && r < rows; ++r) single = start.data()[r] == r;
    const Csr matrix{start.data(), column.data(), value.data(), offset.data(), rows, single};
    const long long columns = x.shape(1), entries = std::max<long long>(value.shape(0), rows);
    // A task is a run of items, or of rows of one item where the matrix alone is large.
    const int slices = static_cast<int>(std::min<long long>(rows, std::max<long long>(1, entries / kTaskEntries)));
    const int together = static_cast<int>(std::max<long long>(1, kTaskEntries / std::max<long long>(entries, 1)));
    const int runs = (items + together - 1) / together;
    nb::gil_scoped_release release;
    ThreadPool::run(runs * slices, threads, [&](int task, int) {
        const int run = task / slices, slice = task % slices;
        const int first = static_cast<int>(static_cast<long long>(rows) * slice / slices);
        const int last = static_cast<int>(static_cast<long long>(rows) * (slice + 1) / slices);
        for (int i = run * together; i < std::min(items, (run + 1) * together); ++i)
            matrix.multiply(x.data() + i * columns, out.data() + static_cast<long long>(i) * rows, first, last);
    });
}

}  // namespace

void bind_sparse(nb::module_& m) {
    using nb::arg;
    m.def("csr_product", &csr_product, arg("indptr"), arg("indices"), arg("data"), arg("offset"), arg("x"), arg("out"),
          arg("threads") = 1, "out[i] = M x[i] + offset for the CSR matrix M and every row x[i].");
}

}  // namespace conelayers
