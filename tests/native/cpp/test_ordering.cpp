#include "conelayers/ordering.hpp"

#include <vector>

#include "approximately.hpp"
#include "conelayers/symbolic.hpp"

using namespace conelayers;

static void is_permutation(const std::vector<int>& order, int n) {
    std::vector<int> seen(n, 0);
    for (int i : order) ++seen.at(i);
    CHECK(static_cast<int>(order.size()) == n);
    for (int count : seen) CHECK(count == 1);
}

// Rows that touch nearly everything are set aside: an order that looks for small degrees would search them at each step,
// and would take them wherever they happen to tie with what is left.
static void dense_rows_come_last(Random& random) {
    const int sparse = 600, dense = 3;
    std::vector<std::int64_t> indptr{0}, indices;
    for (int j = 0; j < sparse + dense; ++j) {
        for (int i = 0; i < j; ++i) {
            const bool near = j < sparse && j - i <= 3 && random() < 0, far = j < sparse && random() < 2.0 / sparse - 1;
            if (near || far || (j >= sparse && i < sparse && random() < 0.8)) indices.push_back(i);
        }
        indices.push_back(j);
        indptr.push_back(static_cast<std::int64_t>(indices.size()));
    }
    const Symbolic symbolic(sparse + dense, indptr.data(), indices.data());
    const LdltView view = symbolic.view();
    for (int k = sparse; k < sparse + dense; ++k) CHECK(view.permutation[k] >= sparse);
}

int main() {
    Random random;
    dense_rows_come_last(random);
    for (bool whole : {false, true}) {
        CHECK(MinimumDegree({}, whole).order().empty());
        const int n = 30;  // a star: the centre must not come before the last leaf but one
        std::vector<std::vector<int>> star(n);
        for (int i = 1; i < n; ++i) star[0].push_back(i), star[i].push_back(0);
        const std::vector<int> order = MinimumDegree(star, whole).order();
        is_permutation(order, n);
        CHECK(order[n - 1] == 0 || order[n - 2] == 0);
        for (int trial = 0; trial < 200; ++trial) {
            const int size = 1 + static_cast<int>(20 * (1 + random()));
            const double density = random();
            std::vector<std::vector<int>> graph(size);
            for (int i = 0; i < size; ++i)
                for (int j = 0; j < i; ++j)
                    if (random() < density) graph[i].push_back(j), graph[j].push_back(i);
            is_permutation(MinimumDegree(graph, whole).order(), size);
        }
    }
    return report();
}
