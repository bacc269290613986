// Products of one sparse matrix [M_1 M_2 ...] with many vectors, item by item: out[i] = sum_b M_b x_b[i] + offset.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "conelayers/threads.hpp"

namespace nb = nanobind;

namespace conelayers {
namespace {

using Ints = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Reals = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using MatrixOut = nb::ndarray<double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// Entries that one task should at least touch; less is not worth a thread.
constexpr long long kTaskEntries = 1 << 15;
constexpr std::size_t kMostBlocks = 64;

struct Csr {
    const std::int32_t *start, *column;
    const std::uint8_t* block;
    const double *value, *offset;
    bool single;  // every row has exactly one entry: a scaled gather

    // Rows [first, last) for one item, whose vectors begin at x[0], x[1], ...
    void multiply(const double* const* x, double* out, int first, int last) const {
        if (single) {
            for (int r = first; r < last; ++r) out[r] = offset[r] + value[r] * x[block[r]][column[r]];
            return;
        }
        for (int r = first; r < last; ++r) {
            double sum = offset[r];
            for (std::int32_t k = start[r]; k < start[r + 1]; ++k) sum += value[k] * x[block[k]][column[k]];
            out[r] = sum;
        }
    }
};

void csr_product(const Ints& start, const Ints& column, const Bytes& block, const Reals& value, const Reals& offset,
                 const std::vector<Matrix>& x, const MatrixOut& out, int threads) {
    const int rows = static_cast<int>(out.shape(1)), items = static_cast<int>(out.shape(0));
    const std::size_t entries = value.shape(0), blocks = x.size();
    if (static_cast<int>(start.shape(0)) != rows + 1 || static_cast<int>(offset.shape(0)) != rows)
        throw std::invalid_argument("indptr, offset and out must agree on the number of rows");
    if (column.shape(0) != entries || block.shape(0) != entries || blocks > kMostBlocks)
        throw std::invalid_argument("indices, blocks and data must have equal lengths, and at most 64 vectors be given");
    for (const Matrix& vectors : x)
        if (vectors.shape(0) != out.shape(0) && vectors.shape(0) != 1)
            throw std::invalid_argument("x must have one row or as many as out");
    bool single = static_cast<int>(entries) == rows;
    for (int r = 0; single && r < rows; ++r) single = start.data()[r] == r;
    const Csr matrix{start.data(), column.data(), block.data(), value.data(), offset.data(), single};
    const long long work = std::max<long long>(static_cast<long long>(entries), rows);
    // A task is a run of items, or of rows of one item where the matrix alone is large.
    const int slices = static_cast<int>(std::min<long long>(rows, std::max<long long>(1, work / kTaskEntries)));
    const int together = static_cast<int>(std::max<long long>(1, kTaskEntries / std::max<long long>(work, 1)));
    const int runs = (items + together - 1) / together;
    nb::gil_scoped_release release;
    ThreadPool::run(runs * slices, threads, [&](int task, int) {
        const int run = task / slices, slice = task % slices;
        const int first = static_cast<int>(static_cast<long long>(rows) * slice / slices);
        const int last = static_cast<int>(static_cast<long long>(rows) * (slice + 1) / slices);
        const double* begin[kMostBlocks] = {};
        for (int i = run * together; i < std::min(items, (run + 1) * together); ++i) {
            for (std::size_t b = 0; b < blocks; ++b)
                begin[b] = x[b].data() + (x[b].shape(0) == 1 ? 0 : i * static_cast<long long>(x[b].shape(1)));
            matrix.multiply(begin, out.data() + static_cast<long long>(i) * rows, first, last);
        }
    });
}

}  // namespace

void bind_sparse(nb::module_& m) {
    using nb::arg;
    m.def("csr_product", &csr_product, arg("indptr"), arg("indices"), arg("blocks"), arg("data"), arg("offset"),
          arg("x"), arg("out"), arg("threads") = 1,
          "out[i] = sum of M_b x[b][i] over blocks b, plus offset; column `indices[k]` is one of block `blocks[k]`.");
}

}  // namespace conelayers
