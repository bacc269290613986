// Comparison up to rounding, and reproducible numbers.
#pragma once

#include <cmath>

#include "check.hpp"

#define CHECK_NEAR(a, b, tolerance) CHECK(std::fabs((a) - (b)) <= (tolerance) * (1 + std::fabs(b)))

// Uniform in (-1, 1); Marsaglia's xorshift.
struct Random {
    unsigned long long state = 88172645463325252ull;
    double operator()() {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        return static_cast<double>(state >> 11) / 4503599627370496.0 - 1.0;
    }
};
