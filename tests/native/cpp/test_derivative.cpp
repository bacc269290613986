// Projections, the solve with J and the polish on one programme with every cone, in packs and as scalars.
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "check.hpp"
#include "conelayers/polish.hpp"

using namespace conelayers;

namespace {

struct Programme {
    int n = 32;
    std::vector<std::int64_t> kinds{0, 1, 2, 3, 4, 5, 6, 7, 8, 2}, sizes{2, 4, 4, 3, 3, 3, 3, 3, 1, 14};
    std::vector<double> exponents{0, 0, 0, 0, 0, 0, 0.3, 0.7, 0, 0};
    std::vector<std::int64_t> p_indptr{0}, p_indices, a_indptr{0}, a_indices;
    int m = 43;

    Programme() {
        for (int j = 0; j < n; ++j) {
            for (int i = 0; i <= j; ++i)
                if (i == j || (i + j) % 3 == 0) p_indices.push_back(i);
            p_indptr.push_back(static_cast<std::int64_t>(p_indices.size()));
            for (int i = 0; i < m; ++i)
                if ((i * 7 + j * 3) % 4 != 0) a_indices.push_back(i);
            a_indptr.push_back(static_cast<std::int64_t>(a_indices.size()));
        }
    }

    DerivativeLayout layout() const {
        return DerivativeLayout(n, m, p_indptr.data(), p_indices.data(), a_indptr.data(), a_indices.data(),
                                ProjectionLayout(static_cast<int>(kinds.size()), kinds.data(), sizes.data(),
                                                 exponents.data()));
    }
};

template <class Real>
struct Run {
    Programme programme;
    DerivativeLayout layout = programme.layout();
    DerivativeView view = layout.view();
    std::vector<Real> memory, more;
    std::mt19937_64 random{3};
    std::normal_distribution<> normal;

    Run() {
        memory.resize(DerivativeWork<Real>(view, nullptr, true).size);
        more.resize(PolishWork<Real>(view, nullptr, true).size);
    }

    Real gauss() {
        Real r(0.0);
        for (int l = 0; l < lanes<Real>; ++l) set_lane(r, l, normal(random));
        return r;
    }

    DerivativeWork<Real> prepare() {
        DerivativeWork<Real> w(view, memory.data());
        for (int j = 0; j < view.n; ++j)
            for (int k = view.p_start[j]; k < view.p_start[j + 1]; ++k)
                w.p[k] = view.p_row[k] == j ? Real(20.0) : gauss();
        for (int k = 0; k < view.a_entries; ++k) w.a[k] = gauss();
        for (int i = 0; i < view.m; ++i) {
            w.v[i] = gauss();
            w.image[i] = Real(0.0);
        }
        projection::project_dual<Real>(view.cone, w.v, w.image, 0.0, w.y, w.element, w.scratch);
        derivative_scale(view, w);
        derivative_factor(view, w);
        return w;
    }

    void solve() {
        const DerivativeWork<Real> w = prepare();
        const int size = view.n + view.m;
        for (int k = 0; k < size; ++k) w.rhs[k] = gauss();
        const Real residual = derivative_solve(view, w);
        jacobian_residual<Real>(view, w, w.rhs, w.solution, w.trial_residual);
        const Real again = residual_norm<Real>(view, w, w.trial_residual);
        for (int l = 0; l < lanes<Real>; ++l) {
            CHECK(get_lane(residual, l) < 1e-11);
            CHECK(get_lane(again, l) < 1e-10);
        }
        // The Krylov fallback alone, from zero, reduces the residual too.
        for (int k = 0; k < size; ++k) {
            w.solution[k] = Real(0.0);
            w.residual[k] = w.rhs[k];
        }
        krylov_correction<Real>(view, w);
        jacobian_residual<Real>(view, w, w.rhs, w.trial, w.trial_residual);
        const Real before = residual_norm<Real>(view, w, w.rhs);
        const Real after = residual_norm<Real>(view, w, w.trial_residual);
        for (int l = 0; l < lanes<Real>; ++l) CHECK(get_lane(after, l) < 1e-9 * get_lane(before, l));
    }

    void polish_from(double noise, double bound) {
        const DerivativeWork<Real> w = prepare();
        PolishWork<Real> t(view, more.data());
        const int n = view.n, m = view.m;
        for (int j = 0; j < n; ++j) t.x[j] = gauss(), t.q[j] = Real(0.0);
        for (int i = 0; i < m; ++i) t.v[i] = w.v[i], t.s[i] = Real(0.0), t.b[i] = Real(0.0);
        polish_detail::conditions<Real>(view, w, t);  // with q = b = 0: choose them so that the point is optimal
        for (int j = 0; j < n; ++j) t.q[j] = -t.f[j];
        for (int i = 0; i < m; ++i) t.b[i] = t.f[n + i];
        for (int j = 0; j < n; ++j) t.x[j] = t.x[j] + Real(noise) * gauss();
        for (int i = 0; i < m; ++i) t.v[i] = t.v[i] + Real(noise) * gauss();
        const Real residual = polish<Real>(view, w, t, Real(0.0) == Real(0.0), PolishRule{3, 1e-15, 1e-8, 3});
        for (int l = 0; l < lanes<Real>; ++l) CHECK(get_lane(residual, l) < bound);
    }

    void not_a_number_stays_in_its_lane() {
        const DerivativeWork<Real> w = prepare();
        for (int k = 0; k < view.n + view.m; ++k) w.rhs[k] = gauss();
        set_lane(w.rhs[0], 0, std::nan(""));
        const Real residual = derivative_solve(view, w);
        CHECK(std::isnan(get_lane(residual, 0)));
        CHECK(std::isnan(get_lane(w.solution[0], 0)));
        for (int l = 1; l < lanes<Real>; ++l) CHECK(get_lane(residual, l) < 1e-11);
    }
};

template <class Real>
void run() {
    Run<Real> test;
    test.solve();
    test.polish_from(1e-8, 1e-13);
    test.polish_from(1e-5, 1e-12);
    test.not_a_number_stays_in_its_lane();
}

// Wrong arguments throw; empty programmes do not.
void layouts() {
    const std::int64_t zero[1] = {0}, kind[1] = {6}, size[1] = {3}, none[1] = {0};
    const double exponent[1] = {1.0};
    bool thrown = false;
    try {
        ProjectionLayout layout(1, kind, size, exponent);
    } catch (const std::invalid_argument&) {
        thrown = true;
    }
    CHECK(thrown);
    const DerivativeLayout empty(0, 0, zero, none, zero, none, ProjectionLayout(0, kind, size, exponent));
    CHECK(empty.view().m == 0);
}

}  // namespace

int main() {
    layouts();
    run<double>();
    run<pack<4>>();
    run<pack<8>>();
    return report();
}
