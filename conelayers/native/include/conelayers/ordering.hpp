// Fill-reducing ordering of a symmetric sparse matrix: approximate minimum degree on the quotient graph.
//
// Amestoy, Davis, Duff, "An approximate minimum degree ordering algorithm", SIAM J. Matrix Anal. Appl. 17 (1996).
// Host code, run once per sparsity pattern.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace conelayers {

class MinimumDegree {
  public:
    // adjacency: for each vertex its neighbours, without itself and without duplicates.
    // whole_degree: count a supervariable's own members in its degree. On the KKT matrices of dense quadratic
    // programmes this breaks ties the right way (constraint rows before variables); on others it may lose.
    MinimumDegree(std::vector<std::vector<int>> adjacency, bool whole_degree)
        : whole_(whole_degree), n_(static_cast<int>(adjacency.size())), vars_(std::move(adjacency)), elems_(n_), members_(n_),
          weight_(n_, 1), degree_(n_), state_(n_, kVariable), mark_(n_, 0), overlap_(n_, 0),
          overlap_mark_(n_, 0), bucket_(n_, 0), heads_(n_ + 1, -1), next_(n_, -1), prev_(n_, -1), merged_(n_) {
        for (int i = 0; i < n_; ++i) {
            degree_[i] = static_cast<int>(vars_[i].size());
            insert(i);
        }
    }

    // Returns the elimination order: order[k] is the k-th vertex to eliminate.
    std::vector<int> order() {
        std::vector<int> result;
        result.reserve(n_);
        int eliminated = 0;
        while (eliminated < n_) {
            const int pivot = smallest();
            eliminated += weight_[pivot];
            eliminate(pivot, n_ - eliminated);
            emit(pivot, result);
        }
        return result;
    }

  private:
    enum : char { kVariable, kElement, kDead };

    void insert(int i) {
        bucket_[i] = std::min(degree_[i] + (whole_ ? weight_[i] - 1 : 0), n_);
        const int d = bucket_[i];
        next_[i] = heads_[d];
        prev_[i] = -1;
        if (heads_[d] >= 0) prev_[heads_[d]] = i;
        heads_[d] = i;
        lowest_ = std::min(lowest_, d);
    }

    void remove(int i) {
        if (prev_[i] >= 0) next_[prev_[i]] = next_[i];
        else heads_[bucket_[i]] = next_[i];
        if (next_[i] >= 0) prev_[next_[i]] = prev_[i];
    }

    int smallest() {
        while (heads_[lowest_] < 0) ++lowest_;
        const int pivot = heads_[lowest_];
        remove(pivot);
        return pivot;
    }

    // Vertices merged into a supervariable follow it in the order.
    void emit(int pivot, std::vector<int>& result) const {
        std::vector<int> stack{pivot};
        while (!stack.empty()) {
            const int i = stack.back();
            stack.pop_back();
            result.push_back(i);
            for (int j : merged_[i]) stack.push_back(j);
        }
    }

    // Turn `pivot` into an element: the union of its variables and of the variables of its elements.
    void eliminate(int pivot, int remaining) {
        std::vector<int>& boundary = members_[pivot];
        ++stamp_;
        mark_[pivot] = stamp_;
        int size = 0;
        auto take = [&](int i) {
            if (state_[i] != kVariable || mark_[i] == stamp_) return;
            mark_[i] = stamp_;
            boundary.push_back(i);
            size += weight_[i];
        };
        for (int i : vars_[pivot]) take(i);
        for (int e : elems_[pivot]) {
            for (int i : members_[e]) take(i);
            state_[e] = kDead;  // absorbed
            members_[e].clear();
            members_[e].shrink_to_fit();
        }
        state_[pivot] = kElement;
        vars_[pivot].clear();
        elems_[pivot].clear();
        for (int i : boundary) remove(i);
        measure_overlap(boundary);
        for (int i : boundary) update_variable(i, pivot, size, remaining);
        merge_indistinguishable(boundary);
        boundary.erase(std::remove_if(boundary.begin(), boundary.end(),
                                      [&](int i) { return state_[i] != kVariable; }),
                       boundary.end());
        for (int i : boundary) insert(i);
    }

    // overlap_[e] = weight of element e outside the new boundary.
    void measure_overlap(const std::vector<int>& boundary) {
        ++overlap_stamp_;
        for (int i : boundary) {
            for (int e : elems_[i]) {
                if (state_[e] != kElement) continue;
                if (overlap_mark_[e] != overlap_stamp_) {
                    overlap_mark_[e] = overlap_stamp_;
                    int w = 0;
                    for (int j : members_[e]) w += state_[j] == kVariable ? weight_[j] : 0;
                    overlap_[e] = w;
                }
                overlap_[e] -= weight_[i];
            }
        }
    }

    void update_variable(int i, int pivot, int boundary_size, int remaining) {
        int d = boundary_size - weight_[i];
        auto& elems = elems_[i];
        std::size_t kept = 0;
        for (int e : elems) {
            if (state_[e] != kElement || overlap_[e] == 0) continue;  // absorbed, or inside the new element
            elems[kept++] = e;
            d += overlap_[e];
        }
        elems.resize(kept);
        elems.push_back(pivot);
        auto& vars = vars_[i];
        kept = 0;
        for (int j : vars) {
            if (state_[j] != kVariable || mark_[j] == stamp_) continue;  // reached through the new element
            vars[kept++] = j;
            d += weight_[j];
        }
        vars.resize(kept);
        degree_[i] = std::max(0, std::min(d, remaining - weight_[i]));
    }

    // Vertices of the boundary with equal quotient-graph neighbourhoods are eliminated together.
    void merge_indistinguishable(const std::vector<int>& boundary) {
        std::vector<std::pair<std::uint64_t, int>> keys;
        keys.reserve(boundary.size());
        for (int i : boundary) {
            std::sort(vars_[i].begin(), vars_[i].end());
            std::sort(elems_[i].begin(), elems_[i].end());
            std::uint64_t h = vars_[i].size() * 1000003u + elems_[i].size();
            for (int j : vars_[i]) h += static_cast<std::uint64_t>(j + 1) * 0x9E3779B97F4A7C15ull;
            for (int e : elems_[i]) h += static_cast<std::uint64_t>(e + 1) * 0xC2B2AE3D27D4EB4Full;
            keys.emplace_back(h, i);
        }
        std::sort(keys.begin(), keys.end());
        for (std::size_t a = 0; a < keys.size(); ++a) {
            const int i = keys[a].second;
            if (state_[i] != kVariable) continue;
            for (std::size_t b = a + 1; b < keys.size() && keys[b].first == keys[a].first; ++b) {
                const int j = keys[b].second;
                if (state_[j] != kVariable || vars_[i] != vars_[j] || elems_[i] != elems_[j]) continue;
                weight_[i] += weight_[j];
                degree_[i] = std::max(0, degree_[i] - weight_[j]);
                merged_[i].push_back(j);
                state_[j] = kDead;
                vars_[j].clear();
                elems_[j].clear();
            }
        }
    }

    bool whole_;
    int n_;
    std::vector<std::vector<int>> vars_, elems_, members_;  // quotient graph
    std::vector<int> weight_, degree_;
    std::vector<char> state_;
    std::vector<int> mark_, overlap_, overlap_mark_;
    std::vector<int> bucket_, heads_, next_, prev_;  // degree buckets, doubly linked
    std::vector<std::vector<int>> merged_;
    int stamp_ = 0, overlap_stamp_ = 0, lowest_ = 0;
};

}  // namespace conelayers
