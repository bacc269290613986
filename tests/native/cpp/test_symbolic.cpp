#include "conelayers/symbolic.hpp"

#include <set>
#include <vector>

#include "approximately.hpp"

using namespace conelayers;

struct Pattern {
    int n;
    std::vector<std::int64_t> indptr{0}, indices;

    Pattern(int n_, double density, Random& random) : n(n_) {
        for (int j = 0; j < n; ++j) {
            for (int i = 0; i < j; ++i)
                if (random() < 2 * density - 1) indices.push_back(i);
            indices.push_back(j);
            indptr.push_back(static_cast<std::int64_t>(indices.size()));
        }
    }
    UpperPattern upper() const { return {n, indptr.data(), indices.data()}; }
};

// Elimination as it is defined: a pivot makes neighbours of all its later neighbours.
static std::vector<std::set<int>> eliminated(const Pattern& pattern, const std::vector<int>& order) {
    std::vector<int> rank(pattern.n);
    for (int k = 0; k < pattern.n; ++k) rank[order[k]] = k;
    std::vector<std::set<int>> below(pattern.n);
    pattern.upper().each_off_diagonal(
        [&](int i, int j) { below[std::min(rank[i], rank[j])].insert(std::max(rank[i], rank[j])); });
    for (int k = 0; k < pattern.n; ++k)
        for (int i : below[k])
            for (int j : below[k])
                if (i < j) below[i].insert(j);
    return below;
}

static void columns_are_those_of_elimination(const Pattern& pattern, const Elimination& found) {
    const auto expected = eliminated(pattern, found.order);
    long long fill = 0;
    for (int k = 0; k < pattern.n; ++k) {
        CHECK(std::vector<int>(expected[k].begin(), expected[k].end()) == found.below[k]);
        fill += static_cast<long long>(expected[k].size());
        for (int c : found.children[k]) CHECK(*expected[c].begin() == k);
    }
    CHECK(fill == found.fill);
}

// Every pivot in one supernode; chains consecutive in the tree, with panels that hold each pivot's rows; groups of
// independent pivots with equal rows; what varies apart from what does not; children before parents.
static void supernodes_hold_the_factor(const Elimination& elimination, const std::vector<char>& varying) {
    const Supernodes built(elimination, varying);
    const int n = static_cast<int>(elimination.order.size());
    std::vector<int> place(n, -1);
    int count = 0;
    for (int s : built.postorder()) {
        const auto& node = built[s];
        for (int k : node.pivots) {
            CHECK(place[k] < 0);
            place[k] = count++;
            CHECK((varying[k] != 0) == node.varying);
            std::set<int> held(node.below.begin(), node.below.end());
            if (node.diagonal) {
                CHECK(elimination.below[k] == node.below);
                continue;
            }
            held.insert(node.pivots.begin(), node.pivots.end());
            for (int i : elimination.below[k]) CHECK(held.count(i) == 1);
        }
    }
    CHECK(count == n);
    for (int k = 0; k < n; ++k)
        for (int i : elimination.below[k]) CHECK(place[k] < place[i]);
}

int main() {
    Random random;
    for (int trial = 0; trial < 400; ++trial) {
        const Pattern pattern(1 + static_cast<int>(20 * (1 + random())), 0.3 * (1 + random()) / 2, random);
        std::vector<int> natural(pattern.n);
        std::iota(natural.begin(), natural.end(), 0);
        std::vector<char> varying(pattern.n);
        for (char& v : varying) v = random() < 0;
        for (const Elimination& elimination :
             {Elimination(pattern.upper(), natural), Elimination::cheapest(pattern.upper())}) {
            columns_are_those_of_elimination(pattern, elimination);
            supernodes_hold_the_factor(elimination, varying);
        }
    }
    return report();
}
