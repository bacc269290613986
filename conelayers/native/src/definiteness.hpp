// Which programmes of a batch have a quadratic objective that is clearly not convex.
//
// A symmetric matrix is positive semidefinite if, and only if, P + eps I has positive pivots for every eps > 0 (Sylvester). P is
// brought to a unit diagonal first; then eps is beyond the rounding of data that were computed in single precision. Up to the
// first pivot that is not positive, the factorization is that of a positive definite matrix, and so needs no pivoting.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "conelayers/dispatch.hpp"
#include "conelayers/symbolic.hpp"
#include "conelayers/threads.hpp"
#include "ldlt_kernels.hpp"
#include "rows.hpp"

namespace conelayers {

class Definiteness {
  public:
    // The pattern of P's upper triangle by columns, row indices sorted.
    Definiteness(int n, const std::int64_t* indptr, const std::int64_t* indices) : entries_(static_cast<int>(indptr[n])) {
        std::vector<int> coupled(n, -1);
        for (int j = 0; j < n; ++j)
            for (std::int64_t e = indptr[j]; e < indptr[j + 1]; ++e)
                if (indices[e] != j) coupled[j] = coupled[indices[e]] = 0;
        int size = 0;
        for (int& c : coupled)
            if (c == 0) c = size++;
        std::vector<std::int64_t> start{0}, row;
        for (int j = 0; j < n; ++j) {
            for (std::int64_t e = indptr[j]; e < indptr[j + 1]; ++e) {
                const int i = static_cast<int>(indices[e]);
                if (i == j && coupled[j] < 0) alone_.push_back(static_cast<int>(e));
                if (i == j) continue;
                place_.push_back({static_cast<int>(e), static_cast<int>(row.size()), coupled[i], coupled[j]});
                row.push_back(coupled[i]);
            }
            if (coupled[j] < 0) continue;
            const bool stored = indptr[j + 1] > indptr[j] && indices[indptr[j + 1] - 1] == j;
            diagonal_.push_back({stored ? static_cast<int>(indptr[j + 1] - 1) : -1, static_cast<int>(row.size())});
            row.push_back(coupled[j]);
            start.push_back(static_cast<std::int64_t>(row.size()));
        }
        if (size > 0) symbolic_ = std::make_unique<const Symbolic>(size, start.data(), row.data());
        signs_.assign(size, 1);
    }

    int entries() const { return entries_; }

    // Whether each row of values is that of a clearly indefinite matrix. Called without the GIL.
    std::vector<char> indefinite(const Rows& P, int rows, int threads) const {
        std::vector<char> found(rows, 0);
        if (entries_ == 0 || rows == 0) return found;
        const LdltKernels* kernels = symbolic_ ? &ldlt_kernels(best_arch(), rows == 1) : nullptr;
        const int width = kernels ? kernels->width : 1, packs = (rows + width - 1) / width;
        const int workers = std::max(1, std::min(threads, packs));
        const std::size_t values = diagonal_.size() + place_.size();
        const std::size_t each = kernels ? scratch(width) + (values * width + 7) / 8 * 8 : 0;
        AlignedBuffer memory(each * workers + 8);
        ThreadPool::run(packs, workers, [&](int pack, int worker) {
            const int first = pack * width, count = std::min(width, rows - first);
            double* const work = memory.get() + each * worker;
            double* const scaled = work + (each - (values * width + 7) / 8 * 8);
            for (int k = 0; k < count; ++k)
                found[first + k] = scale(P.data + P.stride * (first + k), scaled + values * k);
            if (kernels != nullptr) factor(*kernels, scaled, count, work, found.data() + first);
        });
        return found;
    }

  private:
    static constexpr double kClearly = 1e-5, kSmall = 1e-12, kReplaced = 1e150;

    struct Entry {
        int from, to, row, column;
    };
    struct Diagonal {
        int from, to;  // from < 0: not stored
    };

    std::size_t scratch(int width) const {
        const LdltView view = symbolic_->view();
        return (static_cast<std::size_t>(view.factor_size + view.n + view.work) * width + 7) / 8 * 8;
    }

    // The coupled part with a unit diagonal, plus eps; returns whether the diagonal alone shows the matrix to be indefinite.
    bool scale(const double* P, double* scaled) const {
        double largest = 0.0;
        for (int e = 0; e < entries_; ++e) largest = std::max(largest, std::abs(P[e]));
        const double least = kSmall * largest, clearly = -kClearly * largest;
        if (!(largest > 0.0 && largest < HUGE_VAL)) {
            for (std::size_t k = 0; k < diagonal_.size(); ++k) scaled[diagonal_[k].to] = 1.0;
            for (const Entry& entry : place_) scaled[entry.to] = 0.0;
            return false;  // zero, or no numbers
        }
        for (int e : alone_)
            if (P[e] < clearly) return spoil(scaled);
        std::vector<double> unit(diagonal_.size());
        for (std::size_t k = 0; k < unit.size(); ++k) {
            const double d = diagonal_[k].from < 0 ? 0.0 : P[diagonal_[k].from];
            if (d < clearly) return spoil(scaled);
            unit[k] = 1.0 / std::sqrt(std::max(std::abs(d), least));
            scaled[diagonal_[k].to] = d * unit[k] * unit[k] + kClearly;
        }
        for (const Entry& entry : place_) scaled[entry.to] = P[entry.from] * unit[entry.row] * unit[entry.column];
        return false;
    }

    bool spoil(double* scaled) const {
        std::fill(scaled, scaled + diagonal_.size() + place_.size(), 0.0);
        return true;
    }

    void factor(const LdltKernels& kernels, const double* scaled, int count, double* work, char* found) const {
        const LdltView view = symbolic_->view();
        const long long stride = static_cast<long long>(diagonal_.size() + place_.size());
        double* const factors = work;
        double* const inverse = factors + view.factor_size * kernels.width;
        kernels.factor(view, scaled, stride, 0, count, factors, inverse, inverse + (long long)view.n * kernels.width,
                       signs_.data(), PivotRule{0.0, kReplaced});
        for (int j = 0; j < view.n; ++j)
            for (int k = 0; k < count; ++k)
                if (!(inverse[(long long)j * kernels.width + k] > 2.0 / kReplaced)) found[k] = 1;
    }

    int entries_;
    std::vector<int> alone_;          // diagonal entries of unknowns that no other one is coupled with
    std::vector<Entry> place_;        // the others off the diagonal: from P to the coupled part
    std::vector<Diagonal> diagonal_;  // and on it
    std::vector<signed char> signs_;
    std::unique_ptr<const Symbolic> symbolic_;
};

}  // namespace conelayers
