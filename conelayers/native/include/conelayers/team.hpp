// The threads that work on one problem together: one, or the team of a GPU's warp.
//
// With CONELAYERS_TEAM threads per problem each of them runs the whole method. What a thread keeps to itself (numbers,
// decisions) is the same in all of them; the problem's arrays, which all of them read, are written in phases only:
//
//   for (int i : each(n)) x[i] = ...;    the rounds of a loop, shared out among the threads
//   alone([&] { ... });                  by one thread
//
// A phase begins when all threads are there and ends when all see what it wrote. In it no thread touches what another one
// writes, and phases do not nest. The blocks of a product are dealt to threads: within a `Deal`, alone(b, [&] { ... }) is run
// by thread b of the team, which the others do not wait for before the next phase, or the deal's end. `all_sum`, `all_max`,
// `all_min` and `all_any` join what the threads found each for itself; `from_one` gives all what the one of `alone` found.
// On a CPU, and with one thread per problem, all this is the loops and calls that it looks like.
#pragma once

#if defined(CONELAYERS_TEAM)
#define CL_TEAM CONELAYERS_TEAM
#else
#define CL_TEAM 1
#endif

namespace conelayers {
inline namespace CONELAYERS_ARCH {

constexpr int kTeam = CL_TEAM;

#if CL_TEAM == 1

// The indices from `first` to before `last`.
template <class Index>
struct Each {
    struct Iterator {
        Index i;
        CL_INLINE Index operator*() const { return i; }
        CL_INLINE void operator++() { ++i; }
        CL_INLINE bool operator!=(const Iterator& other) const { return i < other.i; }
    };
    Index first, last;
    CL_INLINE Iterator begin() const { return {first}; }
    CL_INLINE Iterator end() const { return {last}; }
};

struct Deal {
    CL_INLINE Deal() {}  // not trivial: no compiler calls it unused
};
template <class Body>
CL_INLINE void alone(const Body& body) {
    body();
}
template <class Body>
CL_INLINE void alone(int, const Body& body) {
    body();
}
template <class T>
CL_INLINE T from_one(const T& value) {
    return value;
}
template <class Real>
CL_INLINE Real all_sum(const Real& value) {
    return value;
}
template <class Real>
CL_INLINE Real all_max(const Real& value) {
    return value;
}
template <class Real>
CL_INLINE Real all_min(const Real& value) {
    return value;
}
template <class M>
CL_INLINE M all_any(const M& mask) {
    return mask;
}

#else

constexpr unsigned kEveryThread = 0xffffffffu;
CL_INLINE int member() { return int(threadIdx.x) % kTeam; }

template <class Index>
struct Each {
    struct Iterator {
        Index i;
        CL_INLINE Index operator*() const { return i; }
        CL_INLINE void operator++() { i += kTeam; }
        CL_INLINE bool operator!=(const Iterator& other) const { return i < other.i; }
    };
    Index first, last;
    CL_INLINE Each(Index first_, Index last_) : first(first_), last(last_) { __syncwarp(); }
    CL_INLINE ~Each() { __syncwarp(); }
    CL_INLINE Iterator begin() const { return {first + member()}; }
    CL_INLINE Iterator end() const { return {last}; }
};

template <class Body>
CL_INLINE void alone(const Body& body) {
    __syncwarp();
    if (member() == 0) body();
    __syncwarp();
}
struct Deal {
    CL_INLINE Deal() { __syncwarp(); }
    CL_INLINE ~Deal() { __syncwarp(); }
};
template <class Body>
CL_INLINE void alone(int b, const Body& body) {
    if (member() == b % kTeam) body();
}
CL_INLINE double from_one(double value) { return __shfl_sync(kEveryThread, value, 0); }
CL_INLINE double all_sum(double value) {
    for (int distance = kTeam / 2; distance > 0; distance /= 2)
        value += __shfl_xor_sync(kEveryThread, value, distance);
    return value;
}
// Not a number if one is, and to the bit the same for all: threads that decided differently would wait for ever.
CL_INLINE double all_max(double value) {
    for (int distance = kTeam / 2; distance > 0; distance /= 2) {
        const double other = __shfl_xor_sync(kEveryThread, value, distance);
        value = other > value || other != other ? other : value;
    }
    return from_one(value);
}
CL_INLINE double all_min(double value) { return -all_max(-value); }
CL_INLINE bool all_any(bool mask) { return __any_sync(kEveryThread, mask) != 0; }

#endif

// Several at a time, in place.
template <class... Reals>
CL_INLINE void join_max(Reals&... values) {
    ((values = all_max(values)), ...);
}
template <class... Reals>
CL_INLINE void join_sum(Reals&... values) {
    ((values = all_sum(values)), ...);
}

template <class Index>
CL_INLINE Each<Index> each(Index count) {
    return {Index(0), count};
}
template <class Index>
CL_INLINE Each<Index> each(Index first, Index last) {
    return {first, last};
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers
