// Host-side analysis of a family of cone programmes: the KKT pattern, its symbolic factorization, and the maps
// from the entries of P, A and H to the factor. Run once per structure.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bordering.hpp"
#include "engine_layout.hpp"
#include "symbolic.hpp"

namespace conelayers {

class Structure {
  public:
    // P: upper triangle by columns; A: by columns. kinds, dims (order for semidefinite), params per cone.
    Structure(int n, int m, const std::int64_t* P_indptr, const std::int64_t* P_indices,
              const std::int64_t* A_indptr, const std::int64_t* A_indices, int cones, const std::int64_t* kinds,
              const std::int64_t* dims, const double* params)
        : n_(n), m_(m) {
        read(P_indptr, P_indices, n, n, P_column_, P_row_, "P");
        read(A_indptr, A_indices, n, m, A_column_, A_row_, "A");
        for (int j = 0; j < n; ++j)
            for (int e = P_column_[j]; e < P_column_[j + 1]; ++e)
                if (P_row_[e] > j) throw std::invalid_argument("P must be given by its upper triangle");
        for (int k = 0; k < cones; ++k) add_cone(kinds[k], dims[k], params[k]);
        if (rows_ != m) throw std::invalid_argument("the cones' dimensions must add up to m");
        find_origins();
        build();
    }

    EngineView view() const {
        EngineView v{};
        v.n = n_, v.m = m_;
        v.P_nnz = static_cast<int>(P_row_.size()), v.A_nnz = static_cast<int>(A_row_.size());
        v.P_column = P_column_.data(), v.P_row = P_row_.data();
        v.A_column = A_column_.data(), v.A_row = A_row_.data();
        v.cones = static_cast<int>(cones_.size()), v.cone = cones_.data();
        v.degree = degree_, v.symmetric = symmetric_ ? 1 : 0, v.max_order = max_order_;
        v.h_size = h_size_, v.scaling_size = scaling_size_;
        v.kkt = symbolic_.front().view();
        v.kkt.given = n_ + m_;
        v.signs = signs_.data();
        v.P_position = P_position_.data(), v.A_position = A_position_.data();
        v.diagonal_position = diagonal_position_.data(), v.h_position = h_position_.data();
        v.definitions = definitions_, v.bounds = bounds_;
        v.definition = definition_.data(), v.bound = bound_.data();
        return v;
    }

  private:
    static void read(const std::int64_t* indptr, const std::int64_t* indices, int columns, int rows,
                     std::vector<int>& column, std::vector<int>& row, const char* name) {
        if (indptr[0] != 0) throw std::invalid_argument(std::string(name) + "_indptr must start at 0");
        column.assign(1, 0);
        for (int j = 0; j < columns; ++j) {
            if (indptr[j + 1] < indptr[j]) throw std::invalid_argument(std::string(name) + "_indptr must not decrease");
            for (std::int64_t e = indptr[j]; e < indptr[j + 1]; ++e) {
                const bool sorted = e == indptr[j] || indices[e] > indices[e - 1];
                if (indices[e] < 0 || indices[e] >= rows || !sorted)
                    throw std::invalid_argument(std::string(name) + "_indices must be in range and increasing");
                row.push_back(static_cast<int>(indices[e]));
            }
            column.push_back(static_cast<int>(row.size()));
        }
    }

    void add_cone(std::int64_t kind, std::int64_t size, double parameter) {
        if (kind < 0 || kind > kDualPower || size < 0) throw std::invalid_argument("unknown cone kind or negative size");
        ConeBlock c{};
        c.kind = static_cast<int>(kind), c.row = rows_, c.dim = static_cast<int>(size), c.alpha = parameter;
        if (c.kind == kSecondOrder && c.dim <= 1) c.kind = kNonnegative;
        if (c.kind == kSemidefinite) {
            c.order = c.dim;
            c.dim = c.order * (c.order + 1) / 2;
            if (c.order <= 1) c.kind = kNonnegative;
        }
        if (c.kind >= kExponential) {
            if (c.dim != 3) throw std::invalid_argument("exponential and power cones have three rows");
            if (c.kind >= kPower && !(c.alpha > 0 && c.alpha < 1))
                throw std::invalid_argument("the exponent of a power cone must lie strictly between 0 and 1");
            symmetric_ = false;
        }
        if (c.dim == 0) return;
        const long long d = c.dim;
        c.h = h_size_, c.scaling = scaling_size_;
        c.sparse = c.kind == kSecondOrder && c.dim > kLargestDenseCone ? 1 : 0;
        h_size_ += c.kind <= kNonnegative ? d : c.sparse ? border_size(c.dim) : d * (d + 1) / 2;
        if (c.kind == kSecondOrder) scaling_size_ += 2 * d + 1;
        if (c.kind >= kExponential) scaling_size_ += 9;
        if (c.kind == kSemidefinite) {
            scaling_size_ += 2LL * c.order * c.order + c.order;
            max_order_ = std::max(max_order_, c.order);
        }
        degree_ += c.kind == kNonnegative ? c.dim
                   : c.kind == kSecondOrder ? 1
                   : c.kind == kSemidefinite ? c.order
                   : c.kind >= kExponential ? 3 : 0;
        rows_ += c.dim;
        cones_.push_back(c);
    }

    // See origin.hpp. A row defines one unknown at most.
    void find_origins() {
        std::vector<int> kind(m_, -1), entries(m_, 0);
        for (const ConeBlock& c : cones_) std::fill_n(kind.begin() + c.row, c.dim, c.kind);
        for (const int row : A_row_) ++entries[row];
        std::vector<char> defines(m_, 0);
        definition_.assign(n_, -1), bound_.assign(2 * n_, -1);
        for (int j = 0; j < n_; ++j) {
            int bounds = 0;
            for (int e = A_column_[j]; e < A_column_[j + 1]; ++e) {
                const int row = A_row_[e];
                if (kind[row] == kZero && A_column_[j + 1] - A_column_[j] == 1 && !defines[row])
                    definition_[j] = e, defines[row] = 1, ++definitions_;
                if (kind[row] == kNonnegative && entries[row] == 1 && bounds < 2) bound_[2 * j + bounds++] = e;
            }
            bounds_ += bounds > 0 ? 1 : 0;
        }
    }

    // [P, A'; A, -H] and its borders, upper triangle by columns, every diagonal entry present.
    void build() {
        const int N = n_ + m_;
        std::vector<std::int64_t> indptr{0}, indices;
        std::vector<long long> P_entry(P_row_.size()), A_entry(A_row_.size()), diagonal(N), h_entry(h_size_);
        for (int j = 0; j < n_; ++j) {
            for (int e = P_column_[j]; e < P_column_[j + 1]; ++e) {
                P_entry[e] = static_cast<long long>(indices.size());
                indices.push_back(P_row_[e]);
            }
            const bool present = P_column_[j + 1] > P_column_[j] && P_row_[P_column_[j + 1] - 1] == j;
            if (!present) indices.push_back(j);
            diagonal[j] = static_cast<long long>(indices.size()) - 1;
            indptr.push_back(static_cast<std::int64_t>(indices.size()));
        }
        std::vector<std::vector<std::pair<int, int>>> rows(m_);  // (column, entry) of each row of A
        for (int j = 0; j < n_; ++j)
            for (int e = A_column_[j]; e < A_column_[j + 1]; ++e) rows[A_row_[e]].emplace_back(j, e);
        for (const ConeBlock& c : cones_) {
            long long h = c.h;
            for (int i = 0; i < c.dim; ++i) {
                for (const auto& [column, entry] : rows[c.row + i]) {
                    A_entry[entry] = static_cast<long long>(indices.size());
                    indices.push_back(column);
                }
                for (int k = c.kind <= kNonnegative || c.sparse ? i : 0; k <= i; ++k) {
                    h_entry[h++] = static_cast<long long>(indices.size());
                    indices.push_back(n_ + c.row + k);
                }
                diagonal[n_ + c.row + i] = static_cast<long long>(indices.size()) - 1;
                indptr.push_back(static_cast<std::int64_t>(indices.size()));
            }
        }
        signs_.assign(N, -1);
        std::fill(signs_.begin(), signs_.begin() + n_, static_cast<signed char>(1));
        for (const ConeBlock& c : cones_)
            if (c.sparse) append_border(n_ + c.row, c.dim, h_entry.data() + c.h + c.dim, indptr, indices, signs_);
        std::vector<char> varying(signs_.size(), 1);  // rows whose entries of H change from one iteration to the next
        std::fill_n(varying.begin(), n_, 0);
        for (const ConeBlock& c : cones_)
            if (c.kind == kZero) std::fill_n(varying.begin() + n_ + c.row, c.dim, 0);
        const int order = static_cast<int>(signs_.size());
        symbolic_.emplace_back(order, indptr.data(), indices.data(), std::vector<int>{}, std::move(varying));
        const long long* place = symbolic_.front().view().position;
        auto map = [&](const std::vector<long long>& entries) {
            std::vector<long long> out;
            out.reserve(entries.size());
            for (long long e : entries) out.push_back(place[e]);
            return out;
        };
        P_position_ = map(P_entry), A_position_ = map(A_entry);
        diagonal_position_ = map(diagonal), h_position_ = map(h_entry);
    }

    int n_, m_, rows_ = 0, degree_ = 0, max_order_ = 0;
    int definitions_ = 0, bounds_ = 0;
    bool symmetric_ = true;
    long long h_size_ = 0, scaling_size_ = 0;
    std::vector<int> P_column_, P_row_, A_column_, A_row_;
    std::vector<ConeBlock> cones_;
    std::vector<int> definition_, bound_;
    std::vector<Symbolic> symbolic_;  // one, made once the pattern is known
    std::vector<signed char> signs_;
    std::vector<long long> P_position_, A_position_, diagonal_position_, h_position_;
};

}  // namespace conelayers
