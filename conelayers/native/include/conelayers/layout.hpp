// Plain-data descriptions shared by host code and kernels: pointers and counts, no containers.
#pragma once

namespace conelayers {

// One supernode of the factor: `width` consecutive pivots that share the rows below them.
//   dense:    a column-major panel with ld = width + rows below; its strictly lower part holds L.
//   diagonal: independent pivots with identical rows below (their diagonal block is diagonal); ld = rows below.
struct Supernode {
    int first;       // first pivot (index in elimination order)
    int width;       // number of pivots
    int below;       // number of rows below the diagonal block
    int diagonal;    // 1 for a group of independent pivots
    int varying;     // 0 if its numbers are the same in factorizations that differ in varying rows only
    int ld;          // column stride of the panel, in entries
    int rows;        // offset into LdltView::rows of the rows below (elimination order, increasing)
    long long panel; // offset of the panel in the factor
};

// The update that supernode `source` makes to its ancestor: rows [begin, end) of the source are columns of the
// target; `relative` holds, for rows begin, begin + 1, ..., their position in the target's panel (column offset
// inside the target for rows in [begin, end)).
struct Update {
    int source;
    int begin;
    int end;
    int relative;
};

struct LdltView {
    int n;
    int given;                // unknowns with right-hand sides of their own; those of the others, behind them, are zero
    int supernodes;
    int work;                 // entries of scratch that `ldlt_factor` needs
    int entries;              // entries of the input pattern
    long long panel_size;     // entries of all panels; the diagonal D follows them: factor_size = panel_size + n
    long long factor_size;
    long long fill;           // entries of L counted without padding
    double flops;             // multiplications and additions of one factorization
    const int* permutation;   // elimination position -> original index
    const Supernode* nodes;
    const int* rows;
    const int* update_start;  // supernodes + 1 offsets into `updates`
    const Update* updates;
    const int* relative;
    const int* identity;         // 0, 1, 2, ..., n - 1
    const long long* position;  // input entry -> place in the factor (diagonal entries: panel_size + pivot)
};

// How pivots are kept away from zero. The sign of each pivot is known beforehand (the matrix is quasidefinite).
struct PivotRule {
    double threshold;    // a pivot with sign * d < threshold is replaced ...
    double replacement;  // ... by sign * replacement
};

// Second-order cones of more rows are bordered in KKT matrices, see bordering.hpp: from there on it is measured to pay.
constexpr int kLargestDenseCone = 12;

}  // namespace conelayers
