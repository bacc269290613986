// The reduced KKT matrix [[P, A'], [A, -W]] of one pattern with its borders: where each entry of P, A and W goes in its factor. Host code,
// run once per pattern; kernels see only the plain `DerivativeView`.
#pragma once

#include "layout.hpp"
#include "projection/layout.hpp"
#if !defined(CONELAYERS_DEVICE)
#include <algorithm>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "symbolic.hpp"
#endif

namespace conelayers {

struct DerivativeView {
    int n, m;
    int p_entries, a_entries;
    const int *p_start, *p_row;  // upper triangle of P, compressed columns
    const int *a_start, *a_row;  // A, compressed columns
    const long long* p_position;  // entry -> place in the factor
    const long long* a_position;
    const long long* w_position;
    const long long* x_diagonal;
    const signed char* signs;
    ProjectionView cone;
    LdltView ldlt;
};

#if !defined(CONELAYERS_DEVICE)

class DerivativeLayout {
  public:
    // order: of elimination, if one is known for this pattern (empty: none).
    DerivativeLayout(int n, int m, const std::int64_t* p_indptr, const std::int64_t* p_indices,
                     const std::int64_t* a_indptr, const std::int64_t* a_indices, ProjectionLayout cone,
                     std::vector<int> order = {})
        : n_(n), m_(m), cone_(std::move(cone)) {
        if (cone_.view().rows != m) throw std::invalid_argument("the cones' rows must add up to m");
        copy(p_indptr, p_indices, n, p_start_, p_row_);
        copy(a_indptr, a_indices, m, a_start_, a_row_);
        for (int j = 0; j < n; ++j)
            for (int k = p_start_[j]; k < p_start_[j + 1]; ++k)
                if (p_row_[k] > j) throw std::invalid_argument("P must hold its upper triangle");
        signs_.assign(n + m, -1);
        std::fill(signs_.begin(), signs_.begin() + n, static_cast<signed char>(1));
        assemble_pattern(std::move(order));
    }

    DerivativeView view() const {
        DerivativeView v{};
        v.n = n_, v.m = m_;
        v.p_entries = static_cast<int>(p_row_.size()), v.a_entries = static_cast<int>(a_row_.size());
        v.p_start = p_start_.data(), v.p_row = p_row_.data();
        v.a_start = a_start_.data(), v.a_row = a_row_.data();
        v.p_position = p_position_.data(), v.a_position = a_position_.data();
        v.w_position = w_position_.data(), v.x_diagonal = x_diagonal_.data();
        v.signs = signs_.data();
        v.cone = cone_.view();
        v.ldlt = symbolic_->view();
        v.ldlt.given = n_ + m_;
        return v;
    }

  private:
    void copy(const std::int64_t* indptr, const std::int64_t* indices, int rows, std::vector<int>& start,
              std::vector<int>& row) const {
        if (indptr[0] != 0) throw std::invalid_argument("indptr must start at 0");
        for (int j = 0; j < n_; ++j) {
            if (indptr[j + 1] < indptr[j]) throw std::invalid_argument("indptr must not decrease");
            for (std::int64_t k = indptr[j]; k < indptr[j + 1]; ++k)
                if (indices[k] < 0 || indices[k] >= rows) throw std::invalid_argument("row index out of range");
        }
        start.assign(indptr, indptr + n_ + 1);
        row.assign(indices, indices + indptr[n_]);
    }

    // Columns of the upper triangle: those of x hold P and the diagonal, those of the rows hold A' and W.
    void assemble_pattern(std::vector<int> order) {
        std::vector<std::int64_t> indptr{0}, indices;
        std::vector<int> p_entry(p_row_.size()), a_entry(a_row_.size()), w_entry, x_entry(n_);
        for (int j = 0; j < n_; ++j) {
            x_entry[j] = static_cast<int>(indices.size());
            indices.push_back(j);
            for (int k = p_start_[j]; k < p_start_[j + 1]; ++k) {
                p_entry[k] = p_row_[k] == j ? x_entry[j] : static_cast<int>(indices.size());
                if (p_row_[k] != j) indices.push_back(p_row_[k]);
            }
            indptr.push_back(static_cast<std::int64_t>(indices.size()));
        }
        std::vector<std::vector<std::pair<int, int>>> rows(m_);  // (variable, entry of A)
        for (int j = 0; j < n_; ++j)
            for (int k = a_start_[j]; k < a_start_[j + 1]; ++k) rows[a_row_[k]].emplace_back(j, k);
        w_entry.assign(cone_.view().weight_size, 0);
        for (const ProjectionBlock& block : cone_.blocks())
            for (int c = 0; c < block.dim; ++c) {
                for (const auto& [variable, entry] : rows[block.first + c]) {
                    a_entry[entry] = static_cast<int>(indices.size());
                    indices.push_back(variable);
                }
                for (int r = is_polyhedral(block.kind) || block.sparse ? c : 0; r <= c; ++r) {
                    w_entry[block.weight + weight_index(block, r, c)] = static_cast<int>(indices.size());
                    indices.push_back(n_ + block.first + r);
                }
                indptr.push_back(static_cast<std::int64_t>(indices.size()));
            }
        for (const ProjectionBlock& block : cone_.blocks())
            if (block.sparse)
                append_border(n_ + block.first, block.dim, w_entry.data() + block.weight + block.dim, indptr, indices,
                              signs_);
        const int size = static_cast<int>(signs_.size());
        symbolic_ = std::make_unique<Symbolic>(size, indptr.data(), indices.data(), std::move(order));
        const LdltView ldlt = symbolic_->view();
        const auto place = [&](const std::vector<int>& entries) {
            std::vector<long long> result;
            for (int e : entries) result.push_back(ldlt.position[e]);
            return result;
        };
        p_position_ = place(p_entry), a_position_ = place(a_entry);
        w_position_ = place(w_entry), x_diagonal_ = place(x_entry);
    }

    static int weight_index(const ProjectionBlock& block, int row, int column) {
        if (is_polyhedral(block.kind) || block.sparse) return column;
        return row * block.dim - row * (row - 1) / 2 + (column - row);
    }

    int n_, m_;
    ProjectionLayout cone_;
    std::vector<int> p_start_, p_row_, a_start_, a_row_;
    std::vector<long long> p_position_, a_position_, w_position_, x_diagonal_;
    std::vector<signed char> signs_;
    std::unique_ptr<Symbolic> symbolic_;  // built once the pattern is known
};

#endif

}  // namespace conelayers
