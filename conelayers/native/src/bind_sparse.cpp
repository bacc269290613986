// Products of one sparse matrix of blocks M_kb with many vectors, item by item: out_k[i] = sum_b M_kb x_b[i] + offset_k.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "conelayers/threads.hpp"
#include "results.hpp"

namespace nb = nanobind;

namespace conelayers {
namespace {

using Ints = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Reals = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<nb::numpy, double>;

// Entries that one task should at least touch; less is not worth a thread.
constexpr long long kTaskEntries = 1 << 15;
constexpr std::size_t kMostBlocks = 64;

// Items that go through the matrix together, so that its entries are read once for all of them.
constexpr int kTogether = 4;

// Where one item's vectors begin, and its result.
struct Item {
    const double* x[kMostBlocks];
    double* out;
};

struct Csr {
    const std::int32_t *start, *column;
    const std::uint8_t* block;
    const double *value, *offset;

    // Rows [first, last) of N items. Runs of rows with one entry each, most rows of most programmes, are a scaled gather.
    template <int N>
    void multiply(const Item* items, int first, int last) const {
        for (int r = first; r < last;) {
            const std::int32_t shift = start[r] - r;
            for (; r < last && start[r + 1] - r == shift + 1; ++r) {
                const std::int32_t k = r + shift, j = column[k], b = block[k];
                for (int i = 0; i < N; ++i) items[i].out[r] = offset[r] + value[k] * items[i].x[b][j];
            }
            for (; r < last && start[r + 1] - start[r] != 1; ++r)
                for (int i = 0; i < N; ++i) {
                    double sum = offset[r];
                    for (std::int32_t k = start[r]; k < start[r + 1]; ++k) sum += value[k] * items[i].x[block[k]][column[k]];
                    items[i].out[r] = sum;
                }
        }
    }
};

// One of several results: so many rows of the matrix from its first one on, for so many items.
void multiply(const Csr& matrix, const std::vector<Matrix>& x, int items, int rows, double* out, int threads) {
    const long long work = std::max(matrix.start[rows] - matrix.start[0], rows);
    // A task is a run of items, or of rows of one item where the matrix alone is large.
    const int slices = static_cast<int>(std::min<long long>(rows, std::max<long long>(1, work / kTaskEntries)));
    const long long run_length = std::max<long long>(1, kTaskEntries / std::max<long long>(work, 1));
    const int together = static_cast<int>((run_length + kTogether - 1) / kTogether * kTogether);
    const int runs = (items + together - 1) / together;
    ThreadPool::run(runs * slices, threads, [&](int task, int) {
        const int run = task / slices, slice = task % slices;
        const int first = static_cast<int>(static_cast<long long>(rows) * slice / slices);
        const int last = static_cast<int>(static_cast<long long>(rows) * (slice + 1) / slices);
        const int end = std::min(items, (run + 1) * together);
        Item batch[kTogether];
        for (int i = run * together; i < end; i += kTogether) {
            const int count = std::min(kTogether, end - i);
            for (int k = 0; k < count; ++k) {
                for (std::size_t b = 0; b < x.size(); ++b)
                    batch[k].x[b] = x[b].data() + (x[b].shape(0) == 1 ? 0 : (i + k) * static_cast<long long>(x[b].shape(1)));
                batch[k].out = out + static_cast<long long>(i + k) * rows;
            }
            if (count == kTogether) matrix.multiply<kTogether>(batch, first, last);
            else for (int k = 0; k < count; ++k) matrix.multiply<1>(batch + k, first, last);
        }
    });
}

std::vector<Output> csr_product(const Ints& start, const Ints& column, const Bytes& block, const Reals& value,
                                const Reals& offset, const std::vector<Matrix>& x, const std::vector<int>& rows,
                                const std::vector<int>& items, int threads) {
    const std::size_t entries = value.shape(0);
    std::size_t all = 0;
    int most = 1;
    for (int count : rows) all += static_cast<std::size_t>(std::max(count, 0));
    for (int count : items)
        if (count != 1) most = count;
    if (start.shape(0) != all + 1 || offset.shape(0) != all || rows.size() != items.size())
        throw std::invalid_argument("indptr, offset, rows and items must agree on the number of rows and results");
    if (column.shape(0) != entries || block.shape(0) != entries || x.size() > kMostBlocks)
        throw std::invalid_argument("indices, blocks and data must have equal lengths, and at most 64 vectors be given");
    for (std::size_t k = 0; k < rows.size(); ++k)
        if (rows[k] < 0 || items[k] < 0 || (items[k] != most && items[k] != 1))
            throw std::invalid_argument("each result must have one item or as many as the others");
    for (const Matrix& vectors : x)
        if (vectors.shape(0) != static_cast<std::size_t>(most) && vectors.shape(0) != 1)
            throw std::invalid_argument("x must have one row or as many as the results have items");
    std::vector<Output> found;
    std::vector<double*> out(rows.size());
    for (std::size_t k = 0; k < rows.size(); ++k)
        found.push_back(new_array<double>({static_cast<std::size_t>(items[k]), static_cast<std::size_t>(rows[k])}, &out[k]));
    nb::gil_scoped_release release;
    std::size_t first = 0;
    for (std::size_t k = 0; k < rows.size(); ++k) {
        const Csr part{start.data() + first, column.data(), block.data(), value.data(), offset.data() + first};
        multiply(part, x, items[k], rows[k], out[k], threads);
        first += static_cast<std::size_t>(rows[k]);
    }
    return found;
}

}  // namespace

void bind_sparse(nb::module_& m) {
    using nb::arg;
    m.def("csr_product", &csr_product, arg("indptr"), arg("indices"), arg("blocks"), arg("data"), arg("offset"),
          arg("x"), arg("rows"), arg("items"), arg("threads") = 1,
          "z[k][i] = sum of M_kb x[b][i] over blocks b, plus offset; column `indices[j]` is one of block `blocks[j]`.");
}

}  // namespace conelayers
