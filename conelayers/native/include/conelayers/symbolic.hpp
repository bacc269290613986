// Symbolic analysis of a sparse symmetric matrix for LDL^T: where the factor's entries lie, and the updates between its
// supernodes. Host code, run once per pattern; kernels see only the plain `LdltView`.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "elimination.hpp"
#include "layout.hpp"
#include "supernodes.hpp"

namespace conelayers {

class Symbolic {
  public:
    // `indptr`, `indices`: see `UpperPattern`.
    // `order`: elimination order to use instead of minimum degree (empty: minimum degree).
    // `varying`: for each row, whether its diagonal block changes between factorizations whose other entries stay
    // (empty: everything changes). See `ldlt_factor`.
    Symbolic(int n, const std::int64_t* indptr, const std::int64_t* indices, const std::vector<int>& order = {},
             const std::vector<char>& varying = {})
        : n_(n) {
        const UpperPattern pattern{n, indptr, indices};
        pattern.check();
        const Elimination elimination = order.empty() ? Elimination::cheapest(pattern) : Elimination(pattern, order);
        const Supernodes built(elimination, varying_pivots(elimination, varying));
        fill_ = elimination.fill;
        arrange(elimination, built);
        place_entries(pattern);
        link_updates();
        identity_.resize(n_);
        std::iota(identity_.begin(), identity_.end(), 0);
    }

    LdltView view() const {
        LdltView v{};
        v.n = v.given = n_;
        v.supernodes = static_cast<int>(nodes_.size());
        v.work = work_;
        v.entries = static_cast<int>(position_.size());
        v.panel_size = panel_size_;
        v.factor_size = panel_size_ + n_;
        v.fill = fill_;
        v.flops = flops_;
        v.permutation = permutation_.data();
        v.nodes = nodes_.data();
        v.rows = rows_.data();
        v.update_start = update_start_.data();
        v.updates = updates_.data();
        v.relative = relative_.data();
        v.identity = identity_.data();
        v.position = position_.data();
        return v;
    }

    int dimension() const { return n_; }

  private:
    // From rows to pivots: what a pivot's elimination changes lies above it in the tree.
    static std::vector<char> varying_pivots(const Elimination& elimination, const std::vector<char>& varying) {
        std::vector<char> pivots(elimination.order.size(), 1);
        if (varying.empty()) return pivots;
        for (std::size_t k = 0; k < pivots.size(); ++k) {
            pivots[k] = varying[elimination.order[k]];
            for (int c : elimination.children[k]) pivots[k] |= pivots[c];
        }
        return pivots;
    }

    // Supernodes in postorder; final elimination positions; panels.
    void arrange(const Elimination& elimination, const Supernodes& built) {
        const std::vector<int> sequence = built.postorder();
        std::vector<int> renumber(n_);
        permutation_.clear();
        for (int s : sequence)
            for (int k : built[s].pivots) {
                renumber[k] = static_cast<int>(permutation_.size());
                permutation_.push_back(elimination.order[k]);
            }
        node_of_.assign(n_, -1);
        for (int s : sequence) add_panel(built[s], renumber);
        inverse_.assign(n_, 0);
        for (int k = 0; k < n_; ++k) inverse_[permutation_[k]] = k;
    }

    void add_panel(const Supernodes::Node& node, const std::vector<int>& renumber) {
        Supernode s{};
        s.first = renumber[node.pivots.front()];
        s.width = static_cast<int>(node.pivots.size());
        s.below = static_cast<int>(node.below.size());
        s.diagonal = node.diagonal ? 1 : 0;
        s.varying = node.varying ? 1 : 0;
        s.ld = s.below + (node.diagonal ? 0 : s.width);
        s.rows = static_cast<int>(rows_.size());
        s.panel = panel_size_;
        for (int i : node.below) rows_.push_back(renumber[i]);
        std::sort(rows_.begin() + s.rows, rows_.end());
        for (int k = 0; k < s.width; ++k) node_of_[s.first + k] = static_cast<int>(nodes_.size());
        panel_size_ += static_cast<long long>(s.ld) * s.width;
        work_ = std::max(work_, 4 * s.width);
        for (int k = 0; k < s.width; ++k) {
            const double below = s.below + (s.diagonal ? 0 : s.width - 1 - k);
            flops_ += below * below + 2 * below;
        }
        nodes_.push_back(s);
    }

    void place_entries(const UpperPattern& pattern) {
        const auto [n, indptr, indices] = pattern;
        position_.assign(static_cast<std::size_t>(indptr[n]), 0);
        for (int j = 0; j < n; ++j)
            for (std::int64_t p = indptr[j]; p < indptr[j + 1]; ++p) {
                const int a = std::min(inverse_[indices[p]], inverse_[j]);
                const int b = std::max(inverse_[indices[p]], inverse_[j]);
                if (a == b) {
                    position_[p] = panel_size_ + a;
                    continue;
                }
                const Supernode& s = nodes_[node_of_[a]];
                position_[p] = s.panel + static_cast<long long>(a - s.first) * s.ld + local_row(s, b);
            }
    }

    int local_row(const Supernode& s, int row) const {
        if (row < s.first + s.width) return row - s.first;
        const int* begin = rows_.data() + s.rows;
        const int* found = std::lower_bound(begin, begin + s.below, row);
        if (found == begin + s.below || *found != row) throw std::logic_error("row missing from the factor");
        return static_cast<int>(found - begin) + (s.diagonal ? 0 : s.width);
    }

    void link_updates() {
        std::vector<std::vector<Update>> lists(nodes_.size());
        for (int k = 0; k < static_cast<int>(nodes_.size()); ++k) {
            const Supernode& s = nodes_[k];
            for (int p = 0; p < s.below;) {
                const int target = node_of_[rows_[s.rows + p]];
                const Supernode& t = nodes_[target];
                int end = p;
                while (end < s.below && rows_[s.rows + end] < t.first + t.width) ++end;
                Update u{k, p, end, static_cast<int>(relative_.size())};
                if (relative_.size() + s.below > static_cast<std::size_t>(std::numeric_limits<int>::max()))
                    throw std::length_error("the factor is too large for 32-bit positions");
                for (int r = p; r < s.below; ++r) relative_.push_back(local_row(t, rows_[s.rows + r]));
                lists[target].push_back(u);
                p = end;
            }
        }
        update_start_.assign(1, 0);
        for (const auto& list : lists) {
            updates_.insert(updates_.end(), list.begin(), list.end());
            update_start_.push_back(static_cast<int>(updates_.size()));
        }
    }

    int n_;
    long long fill_ = 0, panel_size_ = 0;
    double flops_ = 0.0;
    int work_ = 8;
    std::vector<int> permutation_, inverse_, node_of_;
    std::vector<Supernode> nodes_;
    std::vector<int> rows_, update_start_, relative_;
    std::vector<Update> updates_;
    std::vector<int> identity_;
    std::vector<long long> position_;
};

}  // namespace conelayers
