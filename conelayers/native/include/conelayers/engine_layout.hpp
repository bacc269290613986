// Plain-data description of a family of cone programmes for the interior-point kernels.
#pragma once

#include "layout.hpp"

namespace conelayers {

enum ConeKind : int {
    kZero = 0,
    kNonnegative = 1,
    kSecondOrder = 2,
    kSemidefinite = 3,  // svec, lower triangle by columns, off-diagonal entries times sqrt(2)
    kExponential = 4,   // closure of {y exp(x / y) <= z, y > 0}
    kDualExponential = 5,
    kPower = 6,         // x^a y^(1 - a) >= |z|
    kDualPower = 7,
};

struct ConeBlock {
    int kind;
    int row;              // first row of the block
    int dim;              // number of rows
    int order;            // matrix order of a semidefinite block
    double alpha;         // exponent of a power cone
    int sparse;           // 1: a second-order cone whose block of H is bordered, see bordering.hpp
    long long h;          // offset of the block of H: its diagonal, its upper triangle packed by columns, or its border
    long long scaling;    // offset of the block's scaling data
};

struct EngineView {
    int n, m;
    int P_nnz, A_nnz;
    const int* P_column;  // n + 1 starts; upper triangle by columns
    const int* P_row;
    const int* A_column;  // n + 1 starts; by columns
    const int* A_row;
    int cones;
    const ConeBlock* cone;
    int degree;           // barrier parameter of the product cone
    int symmetric;        // no exponential or power cone
    int max_order;        // of the semidefinite blocks
    long long h_size, scaling_size;
    LdltView kkt;         // [P, A'; A, -H], dimension n + m, then the rows of the borders
    const signed char* signs;
    const long long* P_position;  // places in the factor
    const long long* A_position;
    const long long* diagonal_position;  // of the first n + m rows
    const long long* h_position;
    int definitions, bounds;  // how many columns have one of these, see origin.hpp:
    const int* definition;    // the column's only entry, if that is in a zero cone, else -1
    const int* bound;         // two each: entries that are alone in a row of a nonnegative cone, or -1
};

struct EngineSettings {
    double tol = 1e-8;           // of residuals, relative, and of the gap, relative or absolute
    double tol_infeasible = 1e-8;  // of certificates
    double tol_reduced = 1e-5;   // accepted as INACCURATE when progress ends
    int max_iter = 100;
    int equilibrate = 8;         // rounds of Ruiz scaling; 0: none
    double regularisation = 1e-8;  // of the KKT matrix, at the start,
    double least_shift = 1e-12;     // and down to which it is lowered where it keeps solves from being accurate
    double largest_shift = 1e-6;    // up to which it is raised where rounding spoils them
    double relative_regularisation = 1e-15;  // times the diagonal, in dense blocks of H
    double refine_below = 1e-2;  // residuals below this times mu are not refined
    int refinements = 3;         // at most, per solve
    double step_fraction = 0.99;
    double tol_early = 1e-4;        // where Newton steps are tried first, see newton_finish.hpp; 0: at the end only
    int early_steps = 4;            // of the first try
    int newton_steps = 6;           // at the end
    double tol_late = 1e-11;        // where they are tried once more in lanes that they did not solve,
    int late_rounds = 12;           // after so many more iterations at most
    double newton_accuracy = 1e-10;  // of each step's linear system
    double newton_target = 1e-15;   // relative residual at which they stop
    double newton_accepted = 1e-10; // and up to which their point is taken as it is
    double start_residual = 0.5;    // relative, up to which they are tried from a given point,
    int start_steps = 8;            // so many,
    double start_progress = 0.5;    // while every two leave at most this part of the residual
    bool (*ends)(void*) = nullptr;  // ends(caller): whether nobody waits for the result any more, see ending.hpp; null: never
    void* caller = nullptr;
};

enum SolveStatus : int {
    kSolved = 0,
    kInaccurate = 1,
    kPrimalInfeasible = 2,
    kDualInfeasible = 3,
    kIterationLimit = 4,
    kFailed = 5,
    kRunning = 6,
};

}  // namespace conelayers
