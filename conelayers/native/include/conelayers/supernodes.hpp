// Columns of the factor that are worked on together. Host code, run once per pattern.
//
// Besides the usual supernodes (chains of pivots with nested rows) there are groups of independent pivots with
// identical rows below: the constraint rows of a quadratic programme. A group updates its ancestors as one dense
// product, which is where nearly all of the work lies.
#pragma once

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "elimination.hpp"

namespace conelayers {

class Supernodes {
  public:
    struct Node {
        std::vector<int> pivots;  // in elimination order
        std::vector<int> below;   // sorted
        int parent = -1;
        bool diagonal = false;  // a group of independent pivots
        bool varying = true;
        bool alive = true;   // not part of another one
        double zeros = 0.0;  // explicit zeros that amalgamation has put in
    };

    // `varying`: which pivots change between factorizations whose others stay. These and those stay apart.
    Supernodes(const Elimination& elimination, const std::vector<char>& varying) {
        find(elimination, varying);
        group_siblings();
        link_parents();
        amalgamate();
    }

    const Node& operator[](int s) const { return nodes_[s]; }

    // Those that are there in the end, children before parents.
    std::vector<int> postorder() const {
        std::vector<int> sequence, stack;
        for (std::size_t s = 0; s < nodes_.size(); ++s)
            if (nodes_[s].alive && nodes_[s].parent < 0) stack.push_back(static_cast<int>(s));
        const std::vector<std::vector<int>> kids = children();
        while (!stack.empty()) {  // parents before children; reversed below
            const int s = stack.back();
            stack.pop_back();
            sequence.push_back(s);
            for (int c : kids[s]) stack.push_back(c);
        }
        std::reverse(sequence.begin(), sequence.end());
        return sequence;
    }

  private:
    std::vector<std::vector<int>> children() const {
        std::vector<std::vector<int>> kids(nodes_.size());
        for (std::size_t s = 0; s < nodes_.size(); ++s)
            if (nodes_[s].alive && nodes_[s].parent >= 0) kids[nodes_[s].parent].push_back(static_cast<int>(s));
        return kids;
    }

    // Chains of pivots with nested rows.
    void find(const Elimination& elimination, const std::vector<char>& varying) {
        owner_.assign(elimination.order.size(), -1);
        for (int k = 0; k < static_cast<int>(owner_.size()); ++k) {
            std::vector<int> nested;  // children whose rows are exactly {k} and the rows of k
            for (int c : elimination.children[k])
                if (elimination.below[c].size() == elimination.below[k].size() + 1) nested.push_back(c);
            int extended = -1;
            if (nested.size() == 1 && varying[nested[0]] == varying[k]) extended = owner_[nested[0]];
            if (extended >= 0) {
                nodes_[extended].pivots.push_back(k);
                nodes_[extended].below = elimination.below[k];
            } else {
                extended = static_cast<int>(nodes_.size());
                nodes_.emplace_back();
                nodes_.back().pivots = {k};
                nodes_.back().below = elimination.below[k];
                nodes_.back().varying = varying[k] != 0;
            }
            owner_[k] = extended;
        }
    }

    // Single pivots with equal rows below are siblings in the elimination tree, hence independent.
    void group_siblings() {
        std::map<std::pair<bool, std::vector<int>>, int> leaders;
        for (std::size_t s = 0; s < nodes_.size(); ++s) {
            Node& node = nodes_[s];
            if (node.pivots.size() != 1 || node.below.empty()) continue;
            const auto [found, fresh] = leaders.try_emplace({node.varying, node.below}, static_cast<int>(s));
            if (fresh) continue;
            Node& leader = nodes_[found->second];
            leader.pivots.push_back(node.pivots[0]);
            leader.diagonal = true;
            node.alive = false;
            owner_[node.pivots[0]] = found->second;
        }
    }

    void link_parents() {
        for (Node& node : nodes_)
            if (node.alive && !node.below.empty()) node.parent = owner_[node.below.front()];
    }

    struct Merge {
        int child = -1;
        double zeros = 0.0;  // that the merged panel stores
    };

    // Merge chains into their parent chains where the explicit zeros that this stores are few.
    void amalgamate() {
        std::vector<std::vector<int>> kids = children();
        for (int t = 0; t < static_cast<int>(nodes_.size()); ++t) {
            if (!nodes_[t].alive || nodes_[t].diagonal) continue;
            for (Merge next = cheapest(nodes_[t], kids[t]); next.child >= 0; next = cheapest(nodes_[t], kids[t]))
                absorb(next, t, kids);
        }
    }

    Merge cheapest(const Node& parent, const std::vector<int>& kids) const {
        Merge best;
        for (int s : kids) {
            const Node& child = nodes_[s];
            if (!child.alive || child.diagonal || child.varying != parent.varying) continue;
            const double height = double(parent.pivots.size() + parent.below.size());
            const double zeros =
                (height - double(child.below.size())) * double(child.pivots.size()) + child.zeros + parent.zeros;
            const double width = double(child.pivots.size() + parent.pivots.size());
            const double total = width * (height + double(child.pivots.size()) - width / 2);
            const bool small = width <= 4 && zeros <= 4;
            if (!small && zeros > 0.08 * total) continue;
            if (best.child < 0 || zeros < best.zeros) best = {s, zeros};
        }
        return best;
    }

    void absorb(const Merge& merge, int t, std::vector<std::vector<int>>& kids) {
        const int s = merge.child;
        Node &child = nodes_[s], &parent = nodes_[t];
        child.pivots.insert(child.pivots.end(), parent.pivots.begin(), parent.pivots.end());
        parent.pivots = std::move(child.pivots);
        child.alive = false;
        parent.zeros = merge.zeros;
        for (int g : kids[s]) {
            nodes_[g].parent = t;
            kids[t].push_back(g);
        }
        kids[s].clear();
        for (int k : parent.pivots) owner_[k] = t;
    }

    std::vector<Node> nodes_;
    std::vector<int> owner_;  // of each pivot
};

}  // namespace conelayers
