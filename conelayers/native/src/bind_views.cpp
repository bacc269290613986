// The symbolic analysis of a family of programmes as bytes, for kernels in another memory than the host's.
//
// A view is a struct of counts and pointers to arrays. Its image is the struct, the arrays packed one after the other,
// and where in the struct the pointer to which array belongs: whoever copies the arrays writes the new addresses there.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "conelayers/interior_point.hpp"
#include "conelayers/polish.hpp"
#include "conelayers/structure.hpp"

namespace nb = nanobind;

namespace conelayers {
namespace {

class Image {
  public:
    template <class View>
    explicit Image(const View& view) : base_(reinterpret_cast<const char*>(&view)), size_(sizeof(View)) {}

    // The array of `count` entries that the struct's member `pointer` leads to.
    template <class T>
    void add(const T* const& pointer, long long count) {
        const auto member = reinterpret_cast<const char*>(&pointer) - base_;
        arrays_.resize((arrays_.size() + 15) / 16 * 16);
        pointers_.emplace_back(member, static_cast<std::int64_t>(arrays_.size()));
        const auto first = reinterpret_cast<const char*>(pointer);
        if (count > 0) arrays_.insert(arrays_.end(), first, first + count * sizeof(T));
    }

    void add(const LdltView& v) {
        add(v.permutation, v.n);
        add(v.nodes, v.supernodes);
        long long rows = 0, relative = 0;
        for (int j = 0; j < v.supernodes; ++j) {
            rows = std::max<long long>(rows, v.nodes[j].rows + v.nodes[j].below);
            for (int u = v.update_start[j]; u < v.update_start[j + 1]; ++u) {
                const Update& update = v.updates[u];
                const long long end = update.relative + v.nodes[update.source].below - update.begin;
                relative = std::max(relative, end);
            }
        }
        add(v.rows, rows);
        add(v.update_start, v.supernodes + 1);
        add(v.updates, v.update_start[v.supernodes]);
        add(v.relative, relative);
        add(v.identity, v.n);
        add(v.position, v.entries);
    }

    // (struct, arrays, [(place in the struct, place in the arrays)], `entries`, (entries of L, operations)).
    nb::tuple result(nb::object entries, const LdltView& ldlt) const {
        nb::list pointers;
        for (const auto& [member, array] : pointers_) pointers.append(nb::make_tuple(member, array));
        return nb::make_tuple(nb::bytes(base_, size_), nb::bytes(arrays_.data(), arrays_.size()), pointers, entries,
                              nb::make_tuple(ldlt.fill, ldlt.flops));
    }

  private:
    const char* base_;
    std::size_t size_;
    std::vector<char> arrays_;
    std::vector<std::pair<std::int64_t, std::int64_t>> pointers_;
};

nb::tuple engine_image(int n, int m, const Ints& P_indptr, const Ints& P_indices, const Ints& A_indptr,
                       const Ints& A_indices, const Ints& kinds, const Ints& dims, const Reals& params) {
    check_pattern(P_indptr, P_indices, n, "P");
    check_pattern(A_indptr, A_indices, n, "A");
    const Structure structure(n, m, P_indptr.data(), P_indices.data(), A_indptr.data(), A_indices.data(),
                              static_cast<int>(kinds.shape(0)), kinds.data(), dims.data(), params.data());
    const EngineView v = structure.view();
    Image image(v);
    image.add(v.P_column, n + 1), image.add(v.P_row, v.P_nnz);
    image.add(v.A_column, n + 1), image.add(v.A_row, v.A_nnz);
    image.add(v.cone, v.cones);
    image.add(v.kkt);
    image.add(v.signs, v.kkt.n);
    image.add(v.P_position, v.P_nnz), image.add(v.A_position, v.A_nnz);
    image.add(v.diagonal_position, n + m), image.add(v.h_position, v.h_size);
    image.add(v.definition, n), image.add(v.bound, 2LL * n);
    const EngineSettings settings;
    Arena<double> kept{nullptr, true}, scratch{nullptr, true};
    const InteriorPoint<double> count(v, settings, kept, scratch);
    return image.result(nb::make_tuple(kept.used, scratch.used), v.kkt);
}

nb::tuple derivative_image(int n, int m, const Ints& P_indptr, const Ints& P_indices, const Ints& A_indptr,
                           const Ints& A_indices, const Ints& kinds, const Ints& dims, const Reals& params) {
    check_pattern(P_indptr, P_indices, n, "P");
    check_pattern(A_indptr, A_indices, n, "A");
    const DerivativeLayout layout(n, m, P_indptr.data(), P_indices.data(), A_indptr.data(), A_indices.data(),
                                  ProjectionLayout(static_cast<int>(kinds.shape(0)), kinds.data(), dims.data(),
                                                   params.data()));
    const DerivativeView v = layout.view();
    Image image(v);
    image.add(v.p_start, n + 1), image.add(v.p_row, v.p_entries);
    image.add(v.a_start, n + 1), image.add(v.a_row, v.a_entries);
    image.add(v.p_position, v.p_entries), image.add(v.a_position, v.a_entries);
    image.add(v.w_position, v.cone.weight_size), image.add(v.x_diagonal, n);
    image.add(v.signs, v.ldlt.n);
    image.add(v.cone.block, v.cone.blocks);
    image.add(v.ldlt);
    const DerivativeWork<double> work(v, nullptr, true);
    const PolishWork<double> polish_work(v, nullptr, true);
    return image.result(nb::int_(work.size + polish_work.size), v.ldlt);
}

}  // namespace

void bind_views(nb::module_& m) {
    const auto define = [&m](const char* name, auto function) {
        m.def(name, function, nb::arg("n"), nb::arg("m"), nb::arg("P_indptr"), nb::arg("P_indices"),
              nb::arg("A_indptr"), nb::arg("A_indices"), nb::arg("cone_kinds"), nb::arg("cone_dims"),
              nb::arg("cone_params"));
    };
    define("engine_image", &engine_image);
    define("derivative_image", &derivative_image);
}

}  // namespace conelayers
