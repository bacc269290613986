// What the bindings take from Python, and its checks.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "rows.hpp"

namespace conelayers {

using Ints = nanobind::ndarray<const std::int64_t, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;
using Reals = nanobind::ndarray<const double, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;
using Matrix = nanobind::ndarray<const double, nanobind::ndim<2>, nanobind::c_contig, nanobind::device::cpu>;

// A pattern by compressed columns; raises ValueError naming the argument.
inline void check_pattern(const Ints& indptr, const Ints& indices, int columns, const char* name) {
    if (columns < 0) throw std::invalid_argument("n must not be negative");
    if (indptr.shape(0) != static_cast<std::size_t>(columns) + 1)
        throw std::invalid_argument(std::string(name) + "_indptr must have n + 1 entries");
    if (static_cast<std::int64_t>(indices.shape(0)) != indptr.data()[columns])
        throw std::invalid_argument(std::string(name) + "_indices must have indptr[n] entries");
}

// Rows of a (1 or batch, count) matrix; raises ValueError naming the argument.
inline Rows rows(const Matrix& matrix, const char* name, std::size_t batch, int count) {
    if (matrix.shape(1) != static_cast<std::size_t>(count) || (matrix.shape(0) != batch && matrix.shape(0) != 1))
        throw std::invalid_argument(std::string(name) + " must have shape (1 or " + std::to_string(batch) + ", " +
                                    std::to_string(count) + "), 1 or batch rows and so many columns");
    return {matrix.data(), matrix.shape(0) == 1 ? 0 : count};
}

}  // namespace conelayers
