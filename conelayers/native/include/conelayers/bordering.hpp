// Blocks that are diagonal up to rank two, as sparse parts of a KKT matrix.
//
// A second-order cone of dimension d brings the block -B = -(D + a a' - b b') with D diagonal. Written out it has d^2 entries;
// bordered by two unknowns it has 3 d:
//   [ -D   b    a  ]
//   [  b' -beta    ]   with the pivots -beta and alpha, the columns b and a being scaled by their roots.
//   [  a'      alpha]
// If D - b b' is positive definite, so that B is the sum of it and a a', the bordered matrix is quasidefinite as well, with
// the signs (-, ..., -, -, +), and any order of elimination will do (Domahidi, Chu & Boyd, "ECOS: An SOCP solver for embedded
// systems", ECC 2013, section III).
//
// Layout of a border: the diagonal (d entries), b (d), beta, a (d), alpha.
#pragma once

#include "pack.hpp"
#if !defined(CONELAYERS_DEVICE)
#include <cstdint>
#include <vector>
#endif

namespace conelayers {

CL_HD constexpr long long border_size(int dim) { return 3LL * dim + 2; }

#if !defined(CONELAYERS_DEVICE)

// Append the two columns of a border to the upper triangle of a matrix, by compressed columns. first: the matrix' row of the
// block's first row; entry: where to note the places of b, beta, a and alpha among the indices.
template <class Entry>
void append_border(int first, int dim, Entry* entry, std::vector<std::int64_t>& indptr,
                   std::vector<std::int64_t>& indices, std::vector<signed char>& signs) {
    for (const signed char sign : {-1, 1}) {
        const auto pivot = static_cast<std::int64_t>(signs.size());
        for (int i = 0; i <= dim; ++i) {
            *entry++ = static_cast<Entry>(indices.size());
            indices.push_back(i < dim ? first + i : pivot);
        }
        indptr.push_back(static_cast<std::int64_t>(indices.size()));
        signs.push_back(sign);
    }
}

#endif

}  // namespace conelayers
