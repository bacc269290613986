// Symbolic analysis of a sparse symmetric matrix for LDL^T: ordering, elimination tree, fill, supernodes and the
// list of updates between them. Host code, run once per pattern; kernels see only the plain `LdltView`.
//
// Besides the usual supernodes (chains of pivots with nested rows) there are groups of independent pivots with
// identical rows below: the constraint rows of a quadratic programme. A group updates its ancestors as one dense
// product, which is where nearly all of the work lies.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <stdexcept>
#include <utility>
#include <vector>

#include "layout.hpp"
#include "ordering.hpp"

namespace conelayers {

class Symbolic {
  public:
    // The upper triangle with diagonal, compressed columns: entries indices[indptr[j]..indptr[j+1]) <= j, any
    // order, no duplicates. Every pivot exists whether or not its diagonal entry is stored.
    // `order`: elimination order to use instead of minimum degree (empty: minimum degree).
    // `varying`: for each row, whether its diagonal block changes between factorizations whose other entries stay
    // (empty: everything changes). See `ldlt_factor`.
    Symbolic(int n, const std::int64_t* indptr, const std::int64_t* indices, std::vector<int> order = {},
             std::vector<char> varying = {})
        : n_(n), varying_(std::move(varying)) {
        check(indptr, indices);
        check_order(order);
        if (order.empty()) order = best_order(indptr, indices);
        else eliminate(indptr, indices, order);
        spread_variation(order);
        find_supernodes();
        amalgamate();
        arrange(order);
        place_entries(indptr, indices);
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
    struct Node {  // a supernode while it is being built; pivots in elimination order of the first pass
        std::vector<int> pivots;
        std::vector<int> below;  // sorted
        int parent = -1;
        bool diagonal = false;
        bool varying = true;
        bool alive = true;
        double zeros = 0.0;  // explicit zeros that amalgamation has put in
    };

    void check(const std::int64_t* indptr, const std::int64_t* indices) const {
        if (n_ < 0 || indptr[0] != 0) throw std::invalid_argument("indptr must start at 0");
        for (int j = 0; j < n_; ++j) {
            if (indptr[j + 1] < indptr[j]) throw std::invalid_argument("indptr must not decrease");
            for (std::int64_t p = indptr[j]; p < indptr[j + 1]; ++p)
                if (indices[p] < 0 || indices[p] > j)
                    throw std::invalid_argument("indices must lie in the upper triangle");
        }
    }

    void check_order(const std::vector<int>& order) const {
        std::vector<char> seen(n_, 0);
        for (int k : order)
            if (k < 0 || k >= n_ || seen[k]++) throw std::invalid_argument("order must be a permutation");
        if (!order.empty() && order.size() != seen.size()) throw std::invalid_argument("order must have n entries");
    }

    std::vector<std::vector<int>> adjacency(const std::int64_t* indptr, const std::int64_t* indices) const {
        std::vector<std::vector<int>> neighbours(n_);
        for (int j = 0; j < n_; ++j)
            for (std::int64_t p = indptr[j]; p < indptr[j + 1]; ++p) {
                const int i = static_cast<int>(indices[p]);
                if (i == j) continue;
                neighbours[i].push_back(j);
                neighbours[j].push_back(i);
            }
        return neighbours;
    }

    // The cheaper of two minimum-degree orders; leaves the column structures of that order. Dense rows, which would make
    // neighbours of everything, are set aside and come last (Amestoy, Davis & Duff 1996).
    std::vector<int> best_order(const std::int64_t* indptr, const std::int64_t* indices) {
        auto cost = [&](const std::vector<int>& order) {
            eliminate(indptr, indices, order);
            double sum = 0.0;
            for (const auto& rows : structure_) sum += double(rows.size()) * double(rows.size());
            return sum;
        };
        auto graph = adjacency(indptr, indices);
        const std::vector<char> dense = set_aside_dense(graph);
        const auto dense_last = [&](std::vector<int> order) {
            std::stable_partition(order.begin(), order.end(), [&](int k) { return !dense[k]; });
            return order;
        };
        std::vector<int> external = dense_last(MinimumDegree(graph, false).order());
        const double external_cost = cost(external);
        std::vector<int> whole = dense_last(MinimumDegree(graph, true).order());
        if (cost(whole) <= external_cost) return whole;
        cost(external);
        return external;
    }

    // Take nodes of more than 10 sqrt(n) neighbours out of the graph; returns which.
    std::vector<char> set_aside_dense(std::vector<std::vector<int>>& graph) const {
        const double limit = std::max(16.0, 10.0 * std::sqrt(double(n_)));
        std::vector<char> dense(n_, 0);
        for (int k = 0; k < n_; ++k) dense[k] = double(graph[k].size()) > limit;
        for (int k = 0; k < n_; ++k) {
            auto& neighbours = graph[k];
            if (dense[k]) neighbours.clear();
            else neighbours.erase(std::remove_if(neighbours.begin(), neighbours.end(), [&](int j) { return dense[j]; }),
                                  neighbours.end());
        }
        return dense;
    }

    // Column structures of L in the given order, and the elimination tree (parent = first row below).
    void eliminate(const std::int64_t* indptr, const std::int64_t* indices, const std::vector<int>& order) {
        std::vector<int> rank(n_);
        for (int k = 0; k < n_; ++k) rank[order[k]] = k;
        structure_.assign(n_, {});
        fill_ = 0;
        for (int j = 0; j < n_; ++j)
            for (std::int64_t p = indptr[j]; p < indptr[j + 1]; ++p) {
                const int a = rank[indices[p]], b = rank[j];
                if (a != b) structure_[std::min(a, b)].push_back(std::max(a, b));
            }
        tree_.assign(n_, -1);
        std::vector<std::vector<int>> children(n_);
        std::vector<int> mark(n_, -1);
        for (int k = 0; k < n_; ++k) {
            std::vector<int> rows;
            mark[k] = k;
            auto take = [&](int i) {
                if (mark[i] != k) {
                    mark[i] = k;
                    rows.push_back(i);
                }
            };
            for (int i : structure_[k]) take(i);
            for (int c : children[k])
                for (int i : structure_[c]) take(i);
            std::sort(rows.begin(), rows.end());
            structure_[k] = std::move(rows);
            fill_ += static_cast<long long>(structure_[k].size());
            if (!structure_[k].empty()) {
                tree_[k] = structure_[k].front();
                children[tree_[k]].push_back(k);
            }
        }
        children_ = std::move(children);
    }

    // From rows to pivots: what a pivot's elimination changes lies above it in the tree.
    void spread_variation(const std::vector<int>& order) {
        if (varying_.empty()) varying_.assign(n_, 1);
        std::vector<char> pivots(n_);
        for (int k = 0; k < n_; ++k) {
            pivots[k] = varying_[order[k]];
            for (int c : children_[k]) pivots[k] |= pivots[c];
        }
        varying_ = std::move(pivots);
    }

    // Chains of pivots with nested rows; groups of siblings with equal rows. What varies and what does not stay apart.
    void find_supernodes() {
        owner_.assign(n_, -1);
        for (int k = 0; k < n_; ++k) {
            std::vector<int> nested;  // children whose rows are exactly {k} and the rows of k
            for (int c : children_[k])
                if (structure_[c].size() == structure_[k].size() + 1) nested.push_back(c);
            int extended = -1;
            if (nested.size() == 1 && varying_[nested[0]] == varying_[k]) extended = owner_[nested[0]];
            if (extended >= 0) {
                building_[extended].pivots.push_back(k);
                building_[extended].below = structure_[k];
            } else {
                extended = static_cast<int>(building_.size());
                building_.emplace_back();
                building_.back().pivots = {k};
                building_.back().below = structure_[k];
                building_.back().varying = varying_[k] != 0;
            }
            owner_[k] = extended;
        }
        group_siblings();
        link_parents();
    }

    // Single pivots with equal rows below are siblings in the elimination tree, hence independent.
    void group_siblings() {
        std::map<std::pair<bool, std::vector<int>>, int> leaders;
        for (std::size_t s = 0; s < building_.size(); ++s) {
            Node& node = building_[s];
            if (node.pivots.size() != 1 || node.below.empty()) continue;
            const auto [found, fresh] = leaders.try_emplace({node.varying, node.below}, static_cast<int>(s));
            if (fresh) continue;
            Node& leader = building_[found->second];
            leader.pivots.push_back(node.pivots[0]);
            leader.diagonal = true;
            node.alive = false;
            owner_[node.pivots[0]] = found->second;
        }
    }

    void link_parents() {
        for (Node& node : building_)
            if (node.alive && !node.below.empty()) node.parent = owner_[node.below.front()];
    }

    // Merge a chain into its parent chain where the explicit zeros that this stores are few.
    void amalgamate() {
        std::vector<std::vector<int>> kids(building_.size());
        for (std::size_t s = 0; s < building_.size(); ++s)
            if (building_[s].alive && building_[s].parent >= 0) kids[building_[s].parent].push_back(int(s));
        for (std::size_t t = 0; t < building_.size(); ++t) {
            Node& parent = building_[t];
            if (!parent.alive || parent.diagonal) continue;
            for (bool merged = true; merged;) {
                merged = false;
                int best = -1;
                double best_zeros = 0.0;
                for (int s : kids[t]) {
                    const Node& child = building_[s];
                    if (!child.alive || child.diagonal || child.varying != parent.varying) continue;
                    const double height = double(parent.pivots.size() + parent.below.size());
                    const double zeros = (height - double(child.below.size())) * double(child.pivots.size()) +
                                         child.zeros + parent.zeros;
                    const double width = double(child.pivots.size() + parent.pivots.size());
                    const double total = width * (height + double(child.pivots.size()) - width / 2);
                    const bool small = width <= 4 && zeros <= 4;
                    if (!small && zeros > 0.08 * total) continue;
                    if (best < 0 || zeros < best_zeros) best = s, best_zeros = zeros;
                }
                if (best >= 0) {
                    absorb(best, static_cast<int>(t), best_zeros, kids);
                    merged = true;
                }
            }
        }
    }

    void absorb(int s, int t, double zeros, std::vector<std::vector<int>>& kids) {
        Node &child = building_[s], &parent = building_[t];
        child.pivots.insert(child.pivots.end(), parent.pivots.begin(), parent.pivots.end());
        parent.pivots = std::move(child.pivots);
        child.alive = false;
        parent.zeros = zeros;
        for (int g : kids[s]) {
            building_[g].parent = t;
            kids[t].push_back(g);
        }
        kids[s].clear();
        for (int k : parent.pivots) owner_[k] = t;
    }

    // Supernodes in postorder; final elimination positions; panels.
    void arrange(const std::vector<int>& order) {
        std::vector<std::vector<int>> kids(building_.size());
        std::vector<int> roots;
        for (std::size_t s = 0; s < building_.size(); ++s) {
            if (!building_[s].alive) continue;
            if (building_[s].parent >= 0) kids[building_[s].parent].push_back(static_cast<int>(s));
            else roots.push_back(static_cast<int>(s));
        }
        std::vector<int> sequence, stack(roots);
        while (!stack.empty()) {  // parents before children; reversed below
            const int s = stack.back();
            stack.pop_back();
            sequence.push_back(s);
            for (int c : kids[s]) stack.push_back(c);
        }
        std::reverse(sequence.begin(), sequence.end());
        std::vector<int> renumber(n_);
        permutation_.clear();
        for (int s : sequence)
            for (int k : building_[s].pivots) {
                renumber[k] = static_cast<int>(permutation_.size());
                permutation_.push_back(order[k]);
            }
        node_of_.assign(n_, -1);
        for (int s : sequence) add_panel(building_[s], renumber);
        inverse_.assign(n_, 0);
        for (int k = 0; k < n_; ++k) inverse_[permutation_[k]] = k;
    }

    void add_panel(const Node& node, const std::vector<int>& renumber) {
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

    void place_entries(const std::int64_t* indptr, const std::int64_t* indices) {
        position_.assign(static_cast<std::size_t>(indptr[n_]), 0);
        for (int j = 0; j < n_; ++j)
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
    std::vector<char> varying_;
    std::vector<std::vector<int>> structure_, children_;
    std::vector<int> tree_, owner_;
    std::vector<Node> building_;
    std::vector<int> permutation_, inverse_, node_of_;
    std::vector<Supernode> nodes_;
    std::vector<int> rows_, update_start_, relative_;
    std::vector<Update> updates_;
    std::vector<int> identity_;
    std::vector<long long> position_;
};

}  // namespace conelayers
