// Python bindings of the batched LDL^T.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <vector>

#include "conelayers/dispatch.hpp"
#include "conelayers/symbolic.hpp"
#include "conelayers/threads.hpp"
#include "interruptible.hpp"
#include "ldlt_kernels.hpp"

namespace nb = nanobind;

namespace conelayers {

const LdltKernels& ldlt_kernels(int arch, bool single) {
#if defined(CONELAYERS_X86)
    if (arch == kAvx512) return single ? kernels_avx512::ldlt_single : kernels_avx512::ldlt_pack;
    if (arch == kAvx2) return single ? kernels_avx2::ldlt_single : kernels_avx2::ldlt_pack;
#endif
    (void)arch;
    return single ? kernels_portable::ldlt_single : kernels_portable::ldlt_pack;
}

namespace {

using Ints = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Signs = nb::ndarray<const std::int8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Cube = nb::ndarray<const double, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using CubeOut = nb::ndarray<nb::numpy, double, nb::ndim<3>>;

struct Pattern {
    Symbolic symbolic;
    std::vector<signed char> signs;
};

class LdltFactor {
  public:
    LdltFactor(std::shared_ptr<const Pattern> pattern, const Matrix& values, int batch, const PivotRule& rule,
               int threads)
        : pattern_(std::move(pattern)), view_(pattern_->symbolic.view()), batch_(batch),
          kernels_(&ldlt_kernels(best_arch(), batch == 1)) {
        const int width = kernels_->width;
        packs_ = (batch + width - 1) / width;
        per_pack_ = (view_.factor_size + view_.n) * width;
        data_ = AlignedBuffer(static_cast<std::size_t>(packs_ * per_pack_));
        const double* source = values.data();
        const long long stride = values.shape(0) == 1 ? 0 : view_.entries;
        AlignedBuffer work(static_cast<std::size_t>(std::max(threads, 1)) * view_.work * width);
        run(threads, [&](int pack, int worker) {
            kernels_->factor(view_, source, stride, pack * width, items(pack), factor(pack), inverse(pack),
                             work.get() + static_cast<std::size_t>(worker) * view_.work * width,
                             pattern_->signs.data(), rule);
        });
    }

    CubeOut solve(const Cube& rhs, int threads) const {
        if (static_cast<int>(rhs.shape(0)) != batch_ || static_cast<int>(rhs.shape(2)) != view_.n)
            throw std::invalid_argument("rhs must have shape (batch, k, n)");
        const int count = static_cast<int>(rhs.shape(1)), width = kernels_->width;
        const std::size_t size = rhs.shape(0) * rhs.shape(1) * rhs.shape(2);
        double* out = new double[size > 0 ? size : 1];
        nb::capsule owner(out, [](void* p) noexcept { delete[] static_cast<double*>(p); });
        const double* source = rhs.data();
        const std::size_t each = 4 * static_cast<std::size_t>(view_.n) * width;
        AlignedBuffer work(each * std::max(threads, 1));
        run(threads, [&](int pack, int worker) {
            kernels_->solve(view_, factor(pack), inverse(pack), source, count, pack * width, items(pack), out,
                            work.get() + each * worker);
        });
        return CubeOut(out, {rhs.shape(0), rhs.shape(1), rhs.shape(2)}, owner);
    }

  private:
    // task(pack, worker) for every pack, without the GIL.
    template <class Task>
    void run(int threads, const Task& task) const {
        Interruptible caller;
        {
            nb::gil_scoped_release release;
            ThreadPool::run(packs_, threads, task, &Interruptible::ends, &caller);
        }
        caller.raise();
    }

    int items(int pack) const { return std::min(kernels_->width, batch_ - pack * kernels_->width); }
    double* factor(int pack) const { return data_.get() + pack * per_pack_; }
    double* inverse(int pack) const { return factor(pack) + view_.factor_size * kernels_->width; }

    std::shared_ptr<const Pattern> pattern_;
    LdltView view_;
    int batch_, packs_ = 0;
    long long per_pack_ = 0;
    const LdltKernels* kernels_;
    AlignedBuffer data_;
};

class Ldlt {
  public:
    Ldlt(int n, const Ints& indptr, const Ints& indices, std::optional<Signs> signs) {
        if (n < 0 || static_cast<int>(indptr.shape(0)) != n + 1)
            throw std::invalid_argument("indptr must have n + 1 entries");
        if (static_cast<std::int64_t>(indices.shape(0)) != indptr.data()[n])
            throw std::invalid_argument("indices must have indptr[n] entries");
        std::vector<signed char> known(n, 0);
        if (signs) {
            if (static_cast<int>(signs->shape(0)) != n) throw std::invalid_argument("signs must have n entries");
            for (int i = 0; i < n; ++i) known[i] = signs->data()[i] > 0 ? 1 : (signs->data()[i] < 0 ? -1 : 0);
        }
        pattern_ = std::make_shared<const Pattern>(Pattern{Symbolic(n, indptr.data(), indices.data()), known});
        view_ = pattern_->symbolic.view();
    }

    LdltFactor* factor(const Matrix& values, int threads, double threshold, double replacement,
                                       int batch) const {
        if (static_cast<int>(values.shape(1)) != view_.entries)
            throw std::invalid_argument("values must have shape (batch, entries of the pattern)");
        const int rows = static_cast<int>(values.shape(0));
        if (batch <= 0) batch = rows;
        if (rows != batch && rows != 1) throw std::invalid_argument("values must have 1 or `batch` rows");
        return new LdltFactor(pattern_, values, batch, PivotRule{threshold, replacement}, threads);
    }

    int dimension() const { return view_.n; }
    long long fill() const { return view_.fill; }
    double flops() const { return view_.flops; }
    int supernodes() const { return view_.supernodes; }

  private:
    std::shared_ptr<const Pattern> pattern_;
    LdltView view_;
};

}  // namespace

void bind_ldlt(nb::module_& m) {
    nb::class_<LdltFactor>(m, "LDLTFactor")
        .def("solve", &LdltFactor::solve, nb::arg("rhs"), nb::arg("threads") = 1);
    nb::class_<Ldlt>(m, "LDLT")
        .def(nb::init<int, const Ints&, const Ints&, std::optional<Signs>>(), nb::arg("n"), nb::arg("indptr"),
             nb::arg("indices"), nb::arg("signs") = nb::none())
        .def("factor", &Ldlt::factor, nb::arg("values"), nb::arg("threads") = 1, nb::arg("threshold") = 1e-13,
             nb::arg("replacement") = 2e-7, nb::arg("batch") = 0)
        .def_prop_ro("n", &Ldlt::dimension)
        .def_prop_ro("fill", &Ldlt::fill)
        .def_prop_ro("flops", &Ldlt::flops)
        .def_prop_ro("supernodes", &Ldlt::supernodes);
}

}  // namespace conelayers
