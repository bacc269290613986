// exp, log, log1p: units in the last place against long double, special values, packs against scalars.
#include <cmath>
#include <limits>
#include <random>

#include "check.hpp"
#include "conelayers/vecmath.hpp"

using namespace conelayers;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();

// |got - exact| in units of the last place of the exact value.
double ulps(double got, long double exact) {
    const double rounded = static_cast<double>(exact);
    if (std::isinf(rounded)) return got == rounded ? 0.0 : 1e9;
    const double unit = std::nextafter(std::fabs(rounded), infinity) - std::fabs(rounded);
    return static_cast<double>(std::fabs(got - exact) / unit);
}

void accuracy() {
    std::mt19937_64 random(1);
    std::uniform_real_distribution<> wide(-746.0, 711.0), unit(-1.0, 1.0), octave(0.5, 2.0);
    double worst_exp = 0.0, worst_log = 0.0, worst_log1p = 0.0;
    for (int k = 0; k < 600000; ++k) {
        double x = wide(random);
        if (k % 3 == 0) x = unit(random);
        if (k % 3 == 1) x = std::ldexp(unit(random), -static_cast<int>(random() % 60));
        worst_exp = std::fmax(worst_exp, ulps(conelayers::exp(x), std::exp(static_cast<long double>(x))));
        if (x > -1.0)
            worst_log1p = std::fmax(worst_log1p, ulps(conelayers::log1p(x), std::log1p(static_cast<long double>(x))));
        double y = from_bits(0.0, static_cast<long long>(random() % 0x7ff0000000000000ull));  // every exponent
        if (k % 3 == 0) y = octave(random);
        if (k % 3 == 1) y = 1.0 + std::ldexp(unit(random), -static_cast<int>(random() % 50));
        worst_log = std::fmax(worst_log, ulps(conelayers::log(y), std::log(static_cast<long double>(y))));
    }
    std::printf("ulps: exp %.3f log %.3f log1p %.3f\n", worst_exp, worst_log, worst_log1p);
    CHECK(worst_exp < 1.0);
    CHECK(worst_log < 1.0);
    CHECK(worst_log1p < 2.0);
}

void special_values() {
    CHECK(conelayers::exp(0.0) == 1.0);
    CHECK(conelayers::exp(infinity) == infinity);
    CHECK(conelayers::exp(-infinity) == 0.0);
    CHECK(conelayers::exp(709.79) == infinity);
    CHECK(conelayers::exp(709.78) < infinity);
    CHECK(conelayers::exp(-745.2) == 0.0);
    CHECK(conelayers::exp(-745.0) == 0x1p-1074);
    CHECK(std::isnan(conelayers::exp(nan_value)));
    CHECK(conelayers::log(1.0) == 0.0);
    CHECK(conelayers::log(0.0) == -infinity);
    CHECK(conelayers::log(-0.0) == -infinity);
    CHECK(conelayers::log(infinity) == infinity);
    CHECK(std::isnan(conelayers::log(-1.0)));
    CHECK(std::isnan(conelayers::log(-infinity)));
    CHECK(std::isnan(conelayers::log(nan_value)));
    CHECK(ulps(conelayers::log(0x1p-1074), std::log(0x1p-1074L)) < 1.0);
}

template <int W>
void packs() {
    const double values[8] = {0.0, -1.5, 700.0, nan_value, infinity, -infinity, 1e-310, 3.25};
    pack<W> x(0.0);
    for (int i = 0; i < W; ++i) set_lane(x, i, values[i % 8]);
    const pack<W> e = conelayers::exp(x), l = conelayers::log(x);
    for (int i = 0; i < W; ++i) {
        const double se = conelayers::exp(values[i % 8]), sl = conelayers::log(values[i % 8]);
        CHECK(get_lane(e, i) == se || (std::isnan(se) && std::isnan(get_lane(e, i))));
        CHECK(get_lane(l, i) == sl || (std::isnan(sl) && std::isnan(get_lane(l, i))));
    }
}

}  // namespace

int main() {
    accuracy();
    special_values();
    packs<4>();
    packs<8>();
    return report();
}
