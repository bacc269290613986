// Scalings, corrections and step lengths of the curved cones, against their defining equations.
#include <cmath>
#include <vector>

#include "approximately.hpp"
#include "conelayers/nonsymmetric.hpp"
#include "conelayers/second_order.hpp"
#include "conelayers/semidefinite.hpp"

using namespace conelayers;

static std::vector<double> times(const std::vector<double>& packed, const std::vector<double>& u) {
    const int d = static_cast<int>(u.size());
    std::vector<double> out(d, 0.0);
    for (int j = 0, e = 0; j < d; ++j)
        for (int i = 0; i <= j; ++i, ++e) {
            out[i] += packed[e] * u[j];
            if (i != j) out[j] += packed[e] * u[i];
        }
    return out;
}

// The bordered block [diag, b, a; b', beta, 0; a', 0, alpha] without its border, times u.
static std::vector<double> eliminate_border(const std::vector<double>& border, const std::vector<double>& u) {
    const int d = static_cast<int>(u.size());
    const double *b = border.data() + d, *a = b + d + 1, beta = b[d], alpha = a[d];
    CHECK(beta < 0 && alpha > 0);
    double along_a = 0, along_b = 0, margin = -beta;
    std::vector<double> out(d);
    for (int i = 0; i < d; ++i) along_a += a[i] * u[i], along_b += b[i] * u[i], margin += b[i] * b[i] / border[i];
    CHECK(margin > 0);  // quasidefinite
    for (int i = 0; i < d; ++i) out[i] = border[i] * u[i] - b[i] * along_b / beta - a[i] * along_a / alpha;
    return out;
}

static void second_order_cone(Random& random) {
    const int d = 7;
    std::vector<double> s(d), z(d), du(d), data(2 * d + 1), h(d * (d + 1) / 2), a(d), b(d);
    for (int i = 0; i < d; ++i) s[i] = random(), z[i] = random(), du[i] = random();
    s[0] = 3, z[0] = 4;
    second_order::update<double>(d, false, s.data(), z.data(), data.data(), h.data());
    const std::vector<double> Hz = times(h, z);  // the scaling maps z to s
    for (int i = 0; i < d; ++i) CHECK_NEAR(Hz[i], s[i], 1e-13);
    std::vector<double> border(border_size(d));
    second_order::update<double>(d, true, s.data(), z.data(), data.data(), border.data());
    for (double& entry : border) entry = -entry;  // as it is subtracted
    const std::vector<double> minus_Hz = eliminate_border(border, z);
    for (int i = 0; i < d; ++i) CHECK_NEAR(minus_Hz[i], -s[i], 1e-13);
    second_order::scale<double, false>(d, data.data(), data[2 * d], du.data(), a.data());
    second_order::scale<double, true>(d, data.data(), data[2 * d], a.data(), b.data());
    for (int i = 0; i < d; ++i) CHECK_NEAR(b[i], du[i], 1e-13);
    du[0] = -1;
    const double alpha = second_order::max_step<double>(d, s.data(), du.data());
    for (int i = 0; i < d; ++i) a[i] = s[i] + alpha * du[i];
    CHECK_NEAR(second_order::margin<double>(d, a.data()), 0.0, 1e-13);
}

static void semidefinite_cone(Random& random) {
    const int k = 5, d = k * (k + 1) / 2;
    std::vector<double> s(d), z(d), du(d), data(2 * k * k + k), h(d * (d + 1) / 2), work(4 * k * k), out(d, 0.0);
    for (int j = 0, e = 0; j < k; ++j)
        for (int i = j; i < k; ++i, ++e) s[e] = random() + (i == j ? 6 : 0), z[e] = random() + (i == j ? 5 : 0);
    for (double& v : du) v = random();
    semidefinite::update<double>(k, s.data(), z.data(), data.data(), h.data(), work.data());
    const std::vector<double> Hz = times(h, z);
    semidefinite::apply<double>(k, data.data(), 1.0, z.data(), out.data(), work.data());
    for (int i = 0; i < d; ++i) {
        CHECK_NEAR(Hz[i], s[i], 1e-12);
        CHECK_NEAR(out[i], s[i], 1e-12);
    }
    const double alpha =
        semidefinite::max_step<double, false>(k, data.data() + k * k, data.data() + 2 * k * k, du.data(), work.data());
    for (int i = 0; i < d; ++i) out[i] = s[i] + alpha * du[i];
    const double low = semidefinite::margin<double>(k, out.data(), work.data());
    CHECK(low >= -1e-12 && low <= 1e-5);  // the eigenvalue's bound is from below, to about six digits
}

// Points that rounding may have put on either side of the border.
static void on_the_border(Random& random) {
    double u[2] = {random(), random()}, work[16];
    double rank_one[3] = {u[0] * u[0], semidefinite::kSqrt2 * u[0] * u[1], u[1] * u[1]};
    CHECK_NEAR(semidefinite::margin<double>(2, rank_one, work), 0.0, 1e-13);
    const int d = 4;
    double s[d], z[d] = {2, 0.5, -0.5, 1}, data[2 * d + 1], h[d * (d + 1) / 2], shift[d] = {0}, a[d], b[d];
    for (int i = 1; i < d; ++i) s[i] = random();
    s[0] = std::sqrt(s[1] * s[1] + s[2] * s[2] + s[3] * s[3]) * (1 - 1e-16);
    second_order::update<double>(d, false, s, z, data, h);
    second_order::correct<double>(d, data, s, z, 1e-3, shift, a, b);
    for (int i = 0; i < d; ++i) CHECK(std::abs(shift[i]) < 1e12);
    CHECK(second_order::max_step<double>(d, s, z) > 0.0);
}

static void three_rows(Random& random, int kind, double exponent) {
    using namespace nonsymmetric;
    ConeBlock cone{};
    cone.kind = kind, cone.dim = 3, cone.alpha = exponent;
    double s[3], z[3], h[6], data[9];
    initialise<double>(cone, s, z);
    for (int i = 0; i < 3; ++i) s[i] += 0.1 * random(), z[i] += 0.1 * random();
    const Vec3<double> sp = to_primal(cone, load<double>(s)), zp = to_dual(cone, load<double>(z));
    CHECK(primal_interior(cone, sp) && dual_interior(cone, zp));
    const Vec3<double> shadow = is_exponential(cone) ? shadow_exponential(sp) : shadow_power(exponent, sp);
    const Barrier<double> f = barrier(cone, zp), at_shadow = barrier(cone, shadow);
    const Vec3<double> gs = gradient(at_shadow, shadow), g = gradient(f, zp);
    for (int i = 0; i < 3; ++i) CHECK_NEAR(-gs[i], sp[i], 1e-12);
    CHECK_NEAR(dot(g, zp), -3.0, 1e-12);  // logarithmically homogeneous of degree 3
    const Sym3<double> H = hessian(f, zp);
    const Vec3<double> u = {{random(), random(), random()}}, v = {{random(), random(), random()}};
    const Vec3<double> Hv = multiply(H, v), T = third(cone, f, zp, u, v);
    const double t = 1e-5;
    Vec3<double> plus = zp, minus = zp, plus_u = zp, minus_u = zp;
    for (int i = 0; i < 3; ++i)
        plus[i] += t * v[i], minus[i] -= t * v[i], plus_u[i] += t * u[i], minus_u[i] -= t * u[i];
    const Vec3<double> gp = gradient(barrier(cone, plus), plus), gm = gradient(barrier(cone, minus), minus);
    const Vec3<double> Hp = multiply(hessian(barrier(cone, plus_u), plus_u), v);
    const Vec3<double> Hm = multiply(hessian(barrier(cone, minus_u), minus_u), v);
    for (int i = 0; i < 3; ++i) {
        CHECK_NEAR((gp[i] - gm[i]) / (2 * t), Hv[i], 1e-7);
        CHECK_NEAR((Hp[i] - Hm[i]) / (2 * t), T[i], 1e-6);
    }
    update<double>(cone, s, z, dot(sp, zp) / 3, false, data, h);
    const std::vector<double> Hz = times(std::vector<double>(h, h + 6), std::vector<double>(z, z + 3));
    for (int i = 0; i < 3; ++i) CHECK_NEAR(Hz[i], s[i], 1e-9);
}

int main() {
    Random random;
    for (int trial = 0; trial < 50; ++trial) {
        second_order_cone(random);
        semidefinite_cone(random);
        on_the_border(random);
        three_rows(random, kExponential, 0), three_rows(random, kDualExponential, 0);
        for (double exponent : {0.1, 0.5, 0.85})
            three_rows(random, kPower, exponent), three_rows(random, kDualPower, exponent);
    }
    return report();
}
