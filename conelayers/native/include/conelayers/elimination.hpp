// What eliminating the pivots of a sparse symmetric matrix does in a given order: elimination tree, column structures,
// fill. Host code, run once per pattern.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <utility>
#include <vector>

#include "ordering.hpp"

namespace conelayers {

// The upper triangle with diagonal, compressed columns: entries indices[indptr[j]..indptr[j+1]) <= j, any order, no
// duplicates. Every pivot exists whether or not its diagonal entry is stored.
struct UpperPattern {
    int n;
    const std::int64_t* indptr;
    const std::int64_t* indices;

    void check() const {
        if (n < 0 || indptr[0] != 0) throw std::invalid_argument("indptr must start at 0");
        for (int j = 0; j < n; ++j) {
            if (indptr[j + 1] < indptr[j]) throw std::invalid_argument("indptr must not decrease");
            for (std::int64_t p = indptr[j]; p < indptr[j + 1]; ++p)
                if (indices[p] < 0 || indices[p] > j)
                    throw std::invalid_argument("indices must lie in the upper triangle");
        }
    }

    // Calls use(i, j) for each entry off the diagonal.
    template <class Use>
    void each_off_diagonal(const Use& use) const {
        for (int j = 0; j < n; ++j)
            for (std::int64_t p = indptr[j]; p < indptr[j + 1]; ++p)
                if (indices[p] != j) use(static_cast<int>(indices[p]), j);
    }

    std::vector<std::vector<int>> adjacency() const {
        std::vector<std::vector<int>> neighbours(n);
        each_off_diagonal([&](int i, int j) {
            neighbours[i].push_back(j);
            neighbours[j].push_back(i);
        });
        return neighbours;
    }
};

// Pivots are numbered in elimination order.
struct Elimination {
    std::vector<int> order;                  // pivot to row of the matrix
    std::vector<std::vector<int>> below;     // rows of each column of L below the diagonal, sorted
    std::vector<std::vector<int>> children;  // in the elimination tree, where the parent is the first row below
    long long fill = 0;                      // entries of L below the diagonal

    Elimination(const UpperPattern& pattern, std::vector<int> order_)
        : order(std::move(order_)), below(pattern.n), children(pattern.n) {
        const int n = pattern.n;
        const std::vector<int> rank = ranks(n);
        pattern.each_off_diagonal([&](int i, int j) {
            below[std::min(rank[i], rank[j])].push_back(std::max(rank[i], rank[j]));
        });
        std::vector<int> mark(n, -1);
        for (int k = 0; k < n; ++k) {
            std::vector<int> rows;
            mark[k] = k;
            auto take = [&](int i) {
                if (mark[i] != k) {
                    mark[i] = k;
                    rows.push_back(i);
                }
            };
            for (int i : below[k]) take(i);
            for (int c : children[k])
                for (int i : below[c]) take(i);
            std::sort(rows.begin(), rows.end());
            below[k] = std::move(rows);
            fill += static_cast<long long>(below[k].size());
            if (!below[k].empty()) children[below[k].front()].push_back(k);
        }
    }

    // By the cheaper of two minimum-degree orders. Dense rows, which would make neighbours of everything, are set aside and
    // come last (Amestoy, Davis & Duff 1996).
    static Elimination cheapest(const UpperPattern& pattern) {
        auto graph = pattern.adjacency();
        const std::vector<char> dense = set_aside_dense(graph);
        const auto dense_last = [&](std::vector<int> order) {
            std::stable_partition(order.begin(), order.end(), [&](int k) { return !dense[k]; });
            return order;
        };
        Elimination external(pattern, dense_last(MinimumDegree(graph, false).order()));
        Elimination whole(pattern, dense_last(MinimumDegree(graph, true).order()));
        return whole.cost() <= external.cost() ? whole : external;
    }

  private:
    std::vector<int> ranks(int n) const {
        std::vector<int> rank(n, -1);
        if (order.size() != rank.size()) throw std::invalid_argument("order must have n entries");
        for (int k = 0; k < n; ++k) {
            if (order[k] < 0 || order[k] >= n || rank[order[k]] >= 0)
                throw std::invalid_argument("order must be a permutation");
            rank[order[k]] = k;
        }
        return rank;
    }

    // Multiply-adds of the factorization, roughly.
    double cost() const {
        double sum = 0.0;
        for (const auto& rows : below) sum += double(rows.size()) * double(rows.size());
        return sum;
    }

    // Take nodes of more than 10 sqrt(n) neighbours out of the graph; returns which.
    static std::vector<char> set_aside_dense(std::vector<std::vector<int>>& graph) {
        const double limit = std::max(16.0, 10.0 * std::sqrt(double(graph.size())));
        std::vector<char> dense(graph.size(), 0);
        for (std::size_t k = 0; k < graph.size(); ++k) dense[k] = double(graph[k].size()) > limit;
        for (std::size_t k = 0; k < graph.size(); ++k) {
            auto& neighbours = graph[k];
            if (dense[k]) neighbours.clear();
            else neighbours.erase(std::remove_if(neighbours.begin(), neighbours.end(), [&](int j) { return dense[j]; }),
                                  neighbours.end());
        }
        return dense;
    }
};

}  // namespace conelayers
