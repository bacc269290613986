// Exponential and logarithm for lane packs: branch-free, no tables, no library calls.
//
// Real is a lane pack or a plain double (see pack.hpp). Errors are below one unit in the last place
// over the whole range with fused multiply-add, below 1.5 without. Special values, as in IEEE 754:
//   exp(NaN) = NaN, exp(x > 709.78) = inf, exp(x < -745.13) = 0, results in between may be subnormal;
//   log(0) = -inf, log(x < 0) = NaN, log(inf) = inf, log(NaN) = NaN, subnormal arguments are exact.
// Must be compiled without -ffast-math: the roundings by an added constant are on purpose.
#pragma once

#include "pack.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

// ln 2 = ln2_high + ln2_low; the high part has 32 significant bits, so k * ln2_high is exact for |k| < 2^21.
inline constexpr double ln2_high = 0x1.62e42feep-1;
inline constexpr double ln2_low = 0x1.a39ef35793c76p-33;
inline constexpr double round_to_integer = 0x1.8p52;  // adding it leaves the nearest integer in the low bits

// a b + c, fused where the machine can.
template <class Real>
CL_INLINE Real muladd(const Real& a, const Real& b, const Real& c) {
    return a * b + c;
}

// c[0] + c[1] x + ... + c[N-1] x^(N-1) by halves, which keeps the chain of dependent operations short.
template <int N, class Real>
CL_INLINE Real polynomial(const double* c, Real x) {
    if constexpr (N == 1) {
        return Real(c[0]);
    } else if constexpr (N == 2) {
        return muladd(Real(c[1]), x, Real(c[0]));
    } else if constexpr (N <= 4) {
        return muladd(polynomial<N - 2>(c + 2, x), x * x, polynomial<2>(c, x));
    } else if constexpr (N <= 8) {
        const Real x2 = x * x;
        return muladd(polynomial<N - 4>(c + 4, x), x2 * x2, polynomial<4>(c, x));
    } else {
        const Real x2 = x * x, x4 = x2 * x2;
        return muladd(polynomial<N - 8>(c + 8, x), x4 * x4, polynomial<8>(c, x));
    }
}

// 2^k for an integer k in [-1022, 1023] held as (k + round_to_integer).
template <class Real>
CL_INLINE Real power_of_two(Real biased) {
    return from_bits(biased, ((to_bits(biased) + 1023) & 0x7ff) << 52);
}

// e^x.
template <class Real>
CL_HD inline Real exp(Real x) {
    // (e^r - 1 - r) / r^2 on |r| <= ln(2) / 2: interpolation at Chebyshev points, error 1.4e-18.
    constexpr double c[] = {0.5,
                            0.1666666666666667,
                            0.04166666666666667,
                            0.008333333333326136,
                            0.0013888888888883748,
                            0.00019841269874820627,
                            2.4801587325547743e-05,
                            2.7557255400206422e-06,
                            2.75572736431103e-07,
                            2.5105217004720745e-08,
                            2.0914686968086876e-09};
    const Real bounded = min(max(x, Real(-746.0)), Real(710.0));
    const Real k = muladd(bounded, Real(1.4426950408889634), Real(round_to_integer)) - Real(round_to_integer);
    const Real high = muladd(-k, Real(ln2_high), bounded);
    const Real low = k * Real(ln2_low);
    const Real r = high - low;
    const Real correction = (high - r) - low;  // what rounding r lost
    const Real value = Real(1.0) + (r + muladd(polynomial<11>(c, r), r * r, correction));
    // Two factors, so that subnormal results and those just below overflow come out right.
    const Real half = muladd(k, Real(0.5), Real(round_to_integer));
    const Real rest = (k - (half - Real(round_to_integer))) + Real(round_to_integer);
    const Real result = (value * power_of_two(half)) * power_of_two(rest);
    return select(x != x, x, result);
}

// ln x.
template <class Real>
CL_HD inline Real log(Real x) {
    // (2 atanh(s) / s - 2) / z with z = s^2 <= 0.0295: interpolation at Chebyshev points, error 1e-20.
    constexpr double c[] = {0.6666666666666666,  0.4000000000000088,  0.2857142857080323,  0.2222222239180047,
                            0.18181795630884753, 0.15386240205813478, 0.13268759668560612, 0.13086767009948175};
    const auto ordinary = mask_and(x > Real(0.0), x < Real(infinity()));
    const auto tiny = mask_and(ordinary, x < Real(0x1p-1022));
    const Real scaled = select(tiny, x * Real(0x1p54), select(ordinary, x, Real(1.0)));
    // x = 2^k m with m in [sqrt(1/2), sqrt(2)): subtract the bits of sqrt(1/2), read the exponent, put it back.
    const auto offset = to_bits(scaled) - to_bits(Real(0x1.6a09e667f3bcdp-1));
    const auto exponent = offset & -(1LL << 52);
    const Real m = from_bits(scaled, to_bits(scaled) - exponent);
    // The exponent as a double: non-negative integers are the low bits of 2^52 + integer.
    const auto raised = (offset >> 52) + 2048;
    Real k = from_bits(scaled, raised | to_bits(Real(0x1p52))) - Real(0x1p52 + 2048.0);
    k = select(tiny, k - Real(54.0), k);
    const Real f = m - Real(1.0);
    const Real s = f / (Real(2.0) + f);
    const Real z = s * s;
    const Real half_square = Real(0.5) * f * f;
    const Real tail = muladd(s, muladd(polynomial<8>(c, z), z, half_square), k * Real(ln2_low));
    Real result = muladd(k, Real(ln2_high), f - (half_square - tail));
    result = select(x == Real(infinity()), x, result);
    result = select(x == Real(0.0), Real(-infinity()), result);
    return select(mask_or(x < Real(0.0), x != x), Real(not_a_number()), result);
}

// ln(1 + x), accurate near x = 0 (the rounding of 1 + x is put back to first order); x > -1.
template <class Real>
CL_HD inline Real log1p(Real x) {
    const Real u = Real(1.0) + x;
    const Real lost = select(x < Real(1.0), x - (u - Real(1.0)), Real(1.0) - (u - x));
    const Real correction = select(u > Real(0.0), lost / u, Real(0.0));
    return select(u < Real(infinity()), log(u) + correction, u);
}

// x^a for x >= 0: e^(a ln x). The relative error grows with |a ln x|: about (1 + |a ln x|) units.
template <class Real>
CL_HD inline Real pow(Real x, Real a) {
    return exp(a * log(x));
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers
