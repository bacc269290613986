#include "conelayers/pack.hpp"

#include "approximately.hpp"

using namespace conelayers;

template <int W>
void arithmetic() {
    using P = pack<W>;
    P a(0.0), b(3.0);
    for (int i = 0; i < W; ++i) set_lane(a, i, i - 1.5);
    const P c = a * b + P(1.0) / b - a;
    for (int i = 0; i < W; ++i) {
        const double x = i - 1.5;
        CHECK_NEAR(get_lane(c, i), x * 3 + 1.0 / 3 - x, 1e-15);
        CHECK(get_lane(abs(a), i) == std::fabs(x));
        CHECK(get_lane(max(a, 0.0), i) == (x > 0 ? x : 0.0));
        CHECK(get_lane(sqrt(abs(a)), i) == std::sqrt(std::fabs(x)));
        CHECK(get_lane(select(a > P(0.0), b, a), i) == (x > 0 ? 3.0 : x));
    }
    CHECK(std::signbit(get_lane(P(-0.0), 0)));
}

template <int W>
void masks() {
    using P = pack<W>;
    P a(1.0);
    CHECK(all_lanes(a == P(1.0)) && !any_lane(a != P(1.0)));
    set_lane(a, W - 1, 0.0 / 0.0);
    CHECK(any_lane(a != a) && !all_lanes(is_finite(a)) && any_lane(is_finite(a)));
    auto m = a == P(1.0);
    CHECK(!get_mask(m, W - 1) && get_mask(m, 0));
    set_mask(m, W - 1, true);
    CHECK(all_lanes(m) && !any_lane(mask_not(m)));
    CHECK(get_lane(from_bits(a, to_bits(a)), 0) == 1.0);
}

int main() {
    arithmetic<2>(), arithmetic<4>(), arithmetic<8>();
    masks<2>(), masks<4>(), masks<8>();
    CHECK(!is_finite(1e308 * 10) && is_finite(0.0) && lanes<double> == 1 && lanes<pack<8>> == 8);
    return report();
}
