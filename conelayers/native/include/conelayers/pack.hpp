// Lane packs: the number type `Real` of every kernel in this library.
//
// A kernel is a template over `Real`. On a CPU it is `pack<W>`: W doubles, one problem per lane, so that one
// instruction advances W problems. For a single problem, and for one thread of a GPU, it is plain `double`.
// Kernels are branch-free in the data: comparisons give masks, `select` chooses lane by lane, and only
// `any_lane` / `all_lanes` may steer a loop.
//
// Everything lives in an inline namespace named after the instruction set, so that one module can hold the same
// templates compiled with several sets of machine flags.
#pragma once

#ifndef CONELAYERS_ARCH
#define CONELAYERS_ARCH portable
#endif

// The namespace of one instruction set's entry points: kernels_portable, kernels_avx2, kernels_avx512.
#define CL_JOIN2(a, b) a##b
#define CL_JOIN(a, b) CL_JOIN2(a, b)
#define CONELAYERS_KERNELS CL_JOIN(kernels_, CONELAYERS_ARCH)

// A GPU's compiler, or a host compiler that plays one (tests/gpu/emulation.hpp).
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define CONELAYERS_DEVICE
#endif

// CL_HD functions stay calls on a GPU, where inlining them all costs minutes of compilation; CL_INLINE ones do not.
#if defined(CONELAYERS_DEVICE)
#define CL_HD __device__ __noinline__
#define CL_INLINE __device__ __forceinline__
#else
#define CL_HD
#define CL_INLINE inline __attribute__((always_inline))
#endif

// The kinds of cones to compile, one bit each: a GPU kernel is made for the cones of one family of programmes.
#ifndef CONELAYERS_CONES
#define CONELAYERS_CONES 0x1ff
#endif

#define CL_PRAGMA(text) _Pragma(#text)
#if defined(CONELAYERS_DEVICE)
#define CL_UNROLL CL_PRAGMA(unroll)
#elif defined(__clang__)
#define CL_UNROLL CL_PRAGMA(clang loop unroll(full))
#else
#define CL_UNROLL CL_PRAGMA(GCC unroll 16)
#endif

namespace conelayers {
inline namespace CONELAYERS_ARCH {

// ---- the scalar case: Real = double, Mask = bool ------------------------------------------------------------

template <class Real>
struct lane_traits {
    static constexpr int width = 1;
    using Mask = bool;
    using Bits = long long;  // the 64 bits of each lane, as a signed integer
};

template <class Real>
using Mask = typename lane_traits<Real>::Mask;
template <class Real>
using Bits = typename lane_traits<Real>::Bits;
template <class Real>
inline constexpr int lanes = lane_traits<Real>::width;

CL_INLINE double select(bool m, double a, double b) { return m ? a : b; }
CL_INLINE bool any_lane(bool m) { return m; }
CL_INLINE bool all_lanes(bool m) { return m; }
CL_INLINE bool mask_not(bool m) { return !m; }
CL_INLINE bool mask_and(bool a, bool b) { return a && b; }
CL_INLINE bool mask_or(bool a, bool b) { return a || b; }
CL_INLINE double get_lane(double a, int) { return a; }
CL_INLINE void set_lane(double& a, int, double value) { a = value; }
CL_INLINE bool get_mask(bool m, int) { return m; }
CL_INLINE void set_mask(bool& m, int, bool value) { m = value; }
#if defined(CONELAYERS_DEVICE)
CL_INLINE double sqrt(double a) { return ::sqrt(a); }
CL_INLINE double abs(double a) { return ::fabs(a); }
CL_INLINE long long to_bits(double a) { return __double_as_longlong(a); }
CL_INLINE double from_bits(double, long long b) { return __longlong_as_double(b); }
CL_INLINE double infinity() { return __longlong_as_double(0x7ff0000000000000LL); }
CL_INLINE double not_a_number() { return __longlong_as_double(0x7ff8000000000000LL); }
#else
CL_INLINE double sqrt(double a) { return __builtin_sqrt(a); }
CL_INLINE double abs(double a) { return __builtin_fabs(a); }
CL_INLINE long long to_bits(double a) {
    long long b;
    __builtin_memcpy(&b, &a, sizeof b);
    return b;
}
CL_INLINE double from_bits(double, long long b) {  // the first argument only names the type
    double a;
    __builtin_memcpy(&a, &b, sizeof a);
    return a;
}
CL_INLINE constexpr double infinity() { return __builtin_inf(); }
CL_INLINE constexpr double not_a_number() { return __builtin_nan(""); }
#endif
CL_INLINE double max(double a, double b) { return a > b ? a : b; }
CL_INLINE double min(double a, double b) { return a < b ? a : b; }
CL_INLINE bool is_finite(double a) { return a - a == 0.0; }
CL_INLINE double to_real(double, long long b) { return static_cast<double>(b); }  // value conversion
CL_INLINE long long to_int(double a) { return static_cast<long long>(a); }        // value conversion, truncating

// ---- packs of W lanes ---------------------------------------------------------------------------------------

#if !defined(CONELAYERS_DEVICE)

// GCC drops a vector_size that depends on a template parameter, so the widths are spelled out.
template <int W>
struct vector_types;
#define CL_VECTOR_TYPES(W)                                              \
    template <>                                                         \
    struct vector_types<W> {                                            \
        typedef double real __attribute__((vector_size(8 * W)));        \
        typedef long long integer __attribute__((vector_size(8 * W)));  \
    };
CL_VECTOR_TYPES(2)
CL_VECTOR_TYPES(4)
CL_VECTOR_TYPES(8)
#undef CL_VECTOR_TYPES

template <int W>
struct pack_mask {
    using vec = typename vector_types<W>::integer;
    vec v;  // each lane 0 or -1
};

template <int W>
struct pack {
    using vec = typename vector_types<W>::real;
    vec v;

    pack() = default;
    CL_INLINE pack(double a) : v(a - vec{}) {}  // broadcast; vec{} is zero, and a - 0 keeps the sign of -0
    CL_INLINE pack(int a) : pack(static_cast<double>(a)) {}
    CL_INLINE explicit pack(vec a) : v(a) {}

    CL_INLINE pack& operator+=(const pack& b) { v += b.v; return *this; }
    CL_INLINE pack& operator-=(const pack& b) { v -= b.v; return *this; }
    CL_INLINE pack& operator*=(const pack& b) { v *= b.v; return *this; }
    CL_INLINE pack& operator/=(const pack& b) { v /= b.v; return *this; }
    CL_INLINE friend pack operator+(const pack& a, const pack& b) { return pack(a.v + b.v); }
    CL_INLINE friend pack operator-(const pack& a, const pack& b) { return pack(a.v - b.v); }
    CL_INLINE friend pack operator*(const pack& a, const pack& b) { return pack(a.v * b.v); }
    CL_INLINE friend pack operator/(const pack& a, const pack& b) { return pack(a.v / b.v); }
    CL_INLINE friend pack operator-(const pack& a) { return pack(-a.v); }
    CL_INLINE friend pack_mask<W> operator<(const pack& a, const pack& b) { return {a.v < b.v}; }
    CL_INLINE friend pack_mask<W> operator>(const pack& a, const pack& b) { return {a.v > b.v}; }
    CL_INLINE friend pack_mask<W> operator<=(const pack& a, const pack& b) { return {a.v <= b.v}; }
    CL_INLINE friend pack_mask<W> operator>=(const pack& a, const pack& b) { return {a.v >= b.v}; }
    CL_INLINE friend pack_mask<W> operator==(const pack& a, const pack& b) { return {a.v == b.v}; }
    CL_INLINE friend pack_mask<W> operator!=(const pack& a, const pack& b) { return {a.v != b.v}; }
};

template <int W>
struct lane_traits<pack<W>> {
    static constexpr int width = W;
    using Mask = pack_mask<W>;
    using Bits = typename pack_mask<W>::vec;
};

template <int W>
CL_INLINE pack<W> select(const pack_mask<W>& m, const pack<W>& a, const pack<W>& b) {
    return pack<W>(m.v ? a.v : b.v);
}
template <int W>
CL_INLINE pack<W> select(const pack_mask<W>& m, const pack<W>& a, double b) {
    return select(m, a, pack<W>(b));
}
template <int W>
CL_INLINE pack<W> select(const pack_mask<W>& m, double a, const pack<W>& b) {
    return select(m, pack<W>(a), b);
}
template <int W>
CL_INLINE pack_mask<W> mask_not(const pack_mask<W>& m) { return {~m.v}; }
template <int W>
CL_INLINE pack_mask<W> mask_and(const pack_mask<W>& a, const pack_mask<W>& b) { return {a.v & b.v}; }
template <int W>
CL_INLINE pack_mask<W> mask_or(const pack_mask<W>& a, const pack_mask<W>& b) { return {a.v | b.v}; }
template <int W>
CL_INLINE bool any_lane(const pack_mask<W>& m) {
    long long r = 0;
    for (int i = 0; i < W; ++i) r |= m.v[i];
    return r != 0;
}
template <int W>
CL_INLINE bool all_lanes(const pack_mask<W>& m) {
    long long r = -1;
    for (int i = 0; i < W; ++i) r &= m.v[i];
    return r != 0;
}
template <int W>
CL_INLINE double get_lane(const pack<W>& a, int i) { return a.v[i]; }
template <int W>
CL_INLINE void set_lane(pack<W>& a, int i, double value) { a.v[i] = value; }
template <int W>
CL_INLINE bool get_mask(const pack_mask<W>& m, int i) { return m.v[i] != 0; }
template <int W>
CL_INLINE void set_mask(pack_mask<W>& m, int i, bool value) { m.v[i] = value ? -1 : 0; }
template <int W>
CL_INLINE pack<W> sqrt(const pack<W>& a) {
    pack<W> r;
    for (int i = 0; i < W; ++i) r.v[i] = __builtin_sqrt(a.v[i]);
    return r;
}
template <int W>
CL_INLINE pack<W> abs(const pack<W>& a) {
    typedef typename pack_mask<W>::vec bits;
    return pack<W>((typename pack<W>::vec)((bits)a.v & 0x7fffffffffffffffLL));
}
template <int W>
CL_INLINE pack<W> max(const pack<W>& a, const pack<W>& b) { return pack<W>(a.v > b.v ? a.v : b.v); }
template <int W>
CL_INLINE pack<W> min(const pack<W>& a, const pack<W>& b) { return pack<W>(a.v < b.v ? a.v : b.v); }
template <int W>
CL_INLINE pack<W> max(const pack<W>& a, double b) { return max(a, pack<W>(b)); }
template <int W>
CL_INLINE pack<W> min(const pack<W>& a, double b) { return min(a, pack<W>(b)); }
template <int W>
CL_INLINE pack<W> max(double a, const pack<W>& b) { return max(pack<W>(a), b); }
template <int W>
CL_INLINE pack<W> min(double a, const pack<W>& b) { return min(pack<W>(a), b); }
template <int W>
CL_INLINE pack_mask<W> is_finite(const pack<W>& a) {
    typename pack<W>::vec zero = {};
    return {(a.v - a.v) == zero};
}
template <int W>
CL_INLINE typename pack_mask<W>::vec to_bits(const pack<W>& a) { return (typename pack_mask<W>::vec)a.v; }
template <int W>
CL_INLINE pack<W> from_bits(const pack<W>&, const typename lane_traits<pack<W>>::Bits& b) {
    return pack<W>((typename pack<W>::vec)b);
}
template <int W>
CL_INLINE pack<W> to_real(const pack<W>&, const typename lane_traits<pack<W>>::Bits& b) {
    return pack<W>(__builtin_convertvector(b, typename pack<W>::vec));
}
template <int W>
CL_INLINE typename pack_mask<W>::vec to_int(const pack<W>& a) {
    return __builtin_convertvector(a.v, typename pack_mask<W>::vec);
}

#endif

// ---- arrays -------------------------------------------------------------------------------------------------

// Arr<Real> is an array of one pack's numbers. On a CPU it is a pointer to packs (entry after entry). On a GPU it
// is this thread's column of an [entry][lane] table, one lane per thread of a warp, so that the threads of a warp read
// neighbouring addresses; the number of lanes is a constant, so that an index costs one multiply-add.
#if defined(CONELAYERS_DEVICE)
#ifndef CONELAYERS_LANES
#define CONELAYERS_LANES 32
#endif
template <class T>
struct Arr {
    T* p;
    Arr() = default;
    CL_INLINE explicit Arr(T* first) : p(first) {}
    CL_INLINE T& operator[](long long i) const { return p[i * CONELAYERS_LANES]; }
    CL_INLINE Arr operator+(long long k) const { return Arr(p + k * CONELAYERS_LANES); }
};
#else
template <class T>
using Arr = T*;
#endif

// How many lanes hold.
template <class Real>
CL_INLINE int count_lanes(const Mask<Real>& m) {
    int count = 0;
    for (int l = 0; l < lanes<Real>; ++l) count += get_mask(m, l) ? 1 : 0;
    return count;
}

CL_INLINE constexpr bool compiled_cone(int kind) { return (CONELAYERS_CONES >> kind) & 1; }

template <class Real>
CL_INLINE Real square(const Real& a) { return a * a; }

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

#include "team.hpp"
