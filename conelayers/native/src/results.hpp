// Arrays that the bindings make and Python owns.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <initializer_list>

#include "conelayers/kept_memory.hpp"

namespace conelayers {

// A new numpy array of undefined values; *data: where they are.
template <class T>
nanobind::ndarray<nanobind::numpy, T> new_array(std::initializer_list<std::size_t> shape, T** data) {
    using Block = KeptMemory::Block;
    std::size_t bytes = sizeof(T);
    for (std::size_t extent : shape) bytes *= extent;
    auto* block = new Block(KeptMemory::instance().take(bytes));
    nanobind::capsule owner(block, [](void* p) noexcept {
        const auto* given = static_cast<Block*>(p);
        KeptMemory::instance().give_back(*given);
        delete given;
    });
    *data = static_cast<T*>(block->data);
    return nanobind::ndarray<nanobind::numpy, T>(*data, shape, owner);
}

}  // namespace conelayers
