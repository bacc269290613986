#include "conelayers/ldlt.hpp"
#include "conelayers/ldlt_solve.hpp"

#include <cstdint>
#include <vector>

#include "approximately.hpp"
#include "conelayers/symbolic.hpp"

using namespace conelayers;

// A random quasidefinite matrix, factored and solved with Real, against the product with the dense matrix.
// in_parts: some rows vary; the rest is factored once with wrong diagonals there, and twice completed.
template <class Real>
void round_trip(Random& random, int n, int m, double density, bool in_parts) {
    const int N = n + m;
    std::vector<char> varying;
    for (int j = 0; in_parts && j < N; ++j) varying.push_back(random() < -0.4 ? 1 : 0);
    std::vector<std::int64_t> indptr{0}, indices;
    std::vector<Real> values;
    std::vector<Real> dense(N * N, Real(0.0));
    std::vector<signed char> signs(N);
    for (int j = 0; j < N; ++j) {
        signs[j] = j < n ? 1 : -1;
        for (int i = 0; i <= j; ++i) {
            if (i != j && random() > density) continue;
            Real v(0.0);
            for (int l = 0; l < lanes<Real>; ++l) set_lane(v, l, i == j ? signs[j] * (2.0 * N + random()) : random());
            indices.push_back(i);
            values.push_back(v);
            dense[i * N + j] = dense[j * N + i] = v;
        }
        indptr.push_back(static_cast<std::int64_t>(indices.size()));
    }
    const Symbolic symbolic(N, indptr.data(), indices.data(), {}, varying);
    const LdltView view = symbolic.view();
    const PivotRule rule{1e-13, 1e-7};
    std::vector<Real> factor(view.factor_size), inverse(N), work(view.work), x(2 * N), b(2 * N), scratch(2 * N);
    ldlt_scatter<Real>(view, values.data(), factor.data());
    if (in_parts) {
        std::vector<Real> base(view.factor_size);
        const auto change = [&](double sign) {  // the diagonals of the rows that vary
            for (int j = 0; j < N; ++j)
                if (varying[j]) factor[view.position[indptr[j + 1] - 1]] += Real(sign * signs[j]);
        };
        change(1.0);
        ldlt_factor<Real>(view, factor.data(), inverse.data(), work.data(), signs.data(), rule, Part::fixed);
        ldlt_copy_varying<Real>(view, factor.data(), base.data());
        ldlt_factor<Real>(view, factor.data(), inverse.data(), work.data(), signs.data(), rule, Part::varying);
        ldlt_copy_varying<Real>(view, base.data(), factor.data());
        change(-1.0);
        ldlt_factor<Real>(view, factor.data(), inverse.data(), work.data(), signs.data(), rule, Part::varying);
    } else {
        ldlt_factor<Real>(view, factor.data(), inverse.data(), work.data(), signs.data(), rule);
    }
    for (Real& v : b)
        for (int l = 0; l < lanes<Real>; ++l) set_lane(v, l, random());
    ldlt_solve<Real, 2>(view, factor.data(), inverse.data(), b.data(), x.data(), scratch.data());
    for (int q = 0; q < 2; ++q)
        for (int i = 0; i < N; ++i) {
            Real sum(0.0);
            for (int j = 0; j < N; ++j) sum += dense[i * N + j] * x[q * N + j];
            for (int l = 0; l < lanes<Real>; ++l) CHECK_NEAR(get_lane(sum, l), get_lane(b[q * N + i], l), 1e-13);
        }
    ldlt_solve<Real, 1>(view, factor.data(), inverse.data(), b.data(), b.data(), scratch.data());  // in place
    for (int i = 0; i < N; ++i)
        for (int l = 0; l < lanes<Real>; ++l) CHECK_NEAR(get_lane(b[i], l), get_lane(x[i], l), 1e-13);
}

int main() {
    Random random;
    for (int trial = 0; trial < 60; ++trial) {
        const int n = 1 + static_cast<int>(15 * (1 + random())), m = static_cast<int>(15 * (1 + random()));
        for (const bool in_parts : {false, true}) {
            round_trip<double>(random, n, m, random(), in_parts);
            round_trip<pack<2>>(random, n, m, random(), in_parts);
        }
    }
    bool refused = false;
    const std::int64_t indptr[] = {0, 1}, indices[] = {3};
    try {
        Symbolic(1, indptr, indices);
    } catch (const std::invalid_argument&) {
        refused = true;
    }
    CHECK(refused);
    return report();
}
