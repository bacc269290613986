// Python bindings of the derivative kernels.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "arguments.hpp"
#include "conelayers/dispatch.hpp"
#include "conelayers/threads.hpp"
#include "derivative_kernels.hpp"
#include "derivative_view.hpp"
#include "interruptible.hpp"
#include "results.hpp"

namespace nb = nanobind;

namespace conelayers {

const DerivativeKernels& derivative_kernels(long long items) {
    const int arch = arch_for(items);
    const bool single = items == 1;
#if defined(CONELAYERS_X86)
    if (arch == kAvx512) return single ? kernels_avx512::derivative_single : kernels_avx512::derivative_pack;
    if (arch == kAvx2) return single ? kernels_avx2::derivative_single : kernels_avx2::derivative_pack;
#endif
    (void)arch;
    return single ? kernels_portable::derivative_single : kernels_portable::derivative_pack;
}

namespace {

using Cube = nb::ndarray<const double, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<nb::numpy, double>;

// A result, and where its values are.
struct Result {
    Result(std::initializer_list<std::size_t> shape) : data(nullptr), values(new_array<double>(shape, &data)) {}
    const Output& array() const { return values; }

    double* data;
    Output values;
};

std::size_t check(const Cube& cube, const char* name, std::size_t batch, int count) {
    if (cube.shape(0) != batch || cube.shape(2) != static_cast<std::size_t>(count))
        throw std::invalid_argument(std::string(name) + " must have shape (" + std::to_string(batch) + ", k, " +
                                    std::to_string(count) + ")");
    return cube.shape(1);
}

class Differentiator {
  public:
    Differentiator(int n, int m, const Ints& p_indptr, const Ints& p_indices, const Ints& a_indptr,
                   const Ints& a_indices, const Ints& kinds, const Ints& dims, const Reals& parameters,
                   const std::optional<Ints>& order) {
        if (n < 0 || m < 0) throw std::invalid_argument("n and m must not be negative");
        check_pattern(p_indptr, p_indices, n, "P");
        check_pattern(a_indptr, a_indices, n, "A");
        if (kinds.shape(0) != dims.shape(0) || kinds.shape(0) != parameters.shape(0))
            throw std::invalid_argument("cone_kinds, cone_dims and cone_params must have equal lengths");
        ProjectionLayout cone(static_cast<int>(kinds.shape(0)), kinds.data(), dims.data(), parameters.data());
        layout_ = std::make_unique<DerivativeLayout>(n, m, p_indptr.data(), p_indices.data(), a_indptr.data(),
                                                     a_indices.data(), std::move(cone),
                                                     order ? std::vector<int>(order->data(), order->data() + order->size())
                                                           : std::vector<int>{});
        view_ = layout_->view();
    }

    nb::tuple derivative(const Matrix& p, const Matrix& a, const Matrix& v, const Cube& r1, const Cube& r2, double mu,
                         int threads) const {
        const std::size_t batch = v.shape(0), count = check(r1, "r1", batch, view_.n);
        if (check(r2, "r2", batch, view_.m) != count) throw std::invalid_argument("r1 and r2 must have equal k");
        const DerivativeProblem problem = given(p, a, v, mu, batch);
        Result dx{batch, count, n()}, dv{batch, count, m()}, residual{batch, count};
        run(batch, threads, [&](const DerivativeKernels& kernels, PackRange range, double* work) {
            kernels.solve(view_, problem, range, static_cast<int>(count), r1.data(), r2.data(), dx.data, dv.data,
                          residual.data, work);
        });
        return nb::make_tuple(dx.array(), dv.array(), residual.array());
    }

    Output apply(const Matrix& v, const Cube& u, double mu, int threads) const {
        const std::size_t batch = v.shape(0), count = check(u, "u", batch, view_.m);
        const DerivativeProblem problem{{}, {}, rows(v, "v", batch, view_.m), smoothing(mu)};
        Result out{batch, count, m()};
        run(batch, threads, [&](const DerivativeKernels& kernels, PackRange range, double* work) {
            kernels.apply(view_, problem, range, static_cast<int>(count), u.data(), out.data, work);
        });
        return out.array();
    }

    Output project(const Matrix& v, double mu, int threads) const {
        const std::size_t batch = v.shape(0);
        const DerivativeProblem problem{{}, {}, rows(v, "v", batch, view_.m), smoothing(mu)};
        Result out{batch, m()};
        run(batch, threads, [&](const DerivativeKernels& kernels, PackRange range, double* work) {
            kernels.project(view_, problem, range, out.data, work);
        });
        return out.array();
    }

    nb::dict pullback(const Matrix& p, const Matrix& a, const Matrix& x, const Matrix& y, const Matrix& s,
                      const Matrix& gx, const Matrix& gy, const Matrix& gs, double mu,
                      const std::optional<Matrix>& direction, int threads) const {
        const std::size_t batch = x.shape(0);
        const DerivativeProblem problem = given(p, a, y, mu, batch);
        Result dp{batch, p_entries()}, dq{batch, n()}, da{batch, a_entries()}, db{batch, m()};
        Result lambda{batch, n()}, u{batch, m()}, residual{batch}, outside{batch, 2};
        const int moving = static_cast<int>(p_entries() + n() + a_entries() + m());
        if (!direction) std::fill(outside.data, outside.data + 2 * batch, 0.0);
        const PullbackData data{rows(x, "x", batch, view_.n),   rows(y, "y", batch, view_.m),
                                rows(s, "s", batch, view_.m),   rows(gx, "gx", batch, view_.n),
                                rows(gy, "gy", batch, view_.m), rows(gs, "gs", batch, view_.m),
                                direction ? rows(*direction, "direction", batch, moving) : Rows{nullptr, 0},
                                dp.data, dq.data, da.data, db.data, lambda.data, u.data, residual.data, outside.data};
        run(batch, threads, [&](const DerivativeKernels& kernels, PackRange range, double* work) {
            kernels.pullback(view_, problem, range, data, work);
        });
        nb::dict result;
        result["dP"] = dp.array(), result["dq"] = dq.array(), result["dA"] = da.array(), result["db"] = db.array();
        result["lam"] = lambda.array(), result["u"] = u.array(), result["residual"] = residual.array();
        result["outside"] = outside.array();
        double worst = 0.0, moved = 0.0;
        for (std::size_t k = 0; k < 2 * batch; ++k) moved = outside.data[k] <= moved ? moved : outside.data[k];
        result["moved"] = moved;
        for (std::size_t item = 0; item < batch; ++item)
            worst = residual.data[item] <= worst ? worst : residual.data[item] < HUGE_VAL ? residual.data[item] : HUGE_VAL;
        result["worst"] = worst;
        return result;
    }

    nb::tuple probe(const Matrix& p, const Matrix& a, const Matrix& y, const Matrix& s, const Reals& rhs,
                    double accuracy, int threads) const {
        const std::size_t batch = y.shape(0);
        if (rhs.shape(0) != n() + m()) throw std::invalid_argument("rhs must have n + m entries");
        const DerivativeProblem problem = given(p, a, y, 0.0, batch);
        Result length{batch}, residual{batch};
        const ProbeData data{rows(y, "y", batch, view_.m), rows(s, "s", batch, view_.m), rhs.data(), accuracy,
                             length.data, residual.data};
        run(batch, threads, [&](const DerivativeKernels& kernels, PackRange range, double* work) {
            kernels.probe(view_, problem, range, data, work);
        });
        return nb::make_tuple(length.array(), residual.array());
    }

    nb::tuple polish(const Matrix& p, const Matrix& q, const Matrix& a, const Matrix& b, const Matrix& x,
                     const Matrix& y, const Matrix& s, int steps, double target, int threads) const {
        const std::size_t batch = x.shape(0);
        Result x_out{batch, n()}, y_out{batch, m()}, s_out{batch, m()}, residual{batch}, relative{batch, 3};
        const PolishData data{rows(p, "P", batch, view_.p_entries), rows(q, "q", batch, view_.n),
                              rows(a, "A", batch, view_.a_entries), rows(b, "b", batch, view_.m),
                              rows(x, "x", batch, view_.n),         rows(y, "y", batch, view_.m),
                              rows(s, "s", batch, view_.m),         steps,
                              target,                               x_out.data,
                              y_out.data,                           s_out.data,
                              residual.data,
                              relative.data};
        run(batch, threads, [&](const DerivativeKernels& kernels, PackRange range, double* work) {
            kernels.polish(view_, range, data, work);
        });
        return nb::make_tuple(x_out.array(), y_out.array(), s_out.array(), residual.array(), relative.array());
    }

    const DerivativeView& view() const { return view_; }
    double flops() const { return view_.ldlt.flops; }
    long long fill() const { return view_.ldlt.fill; }

  private:
    std::size_t n() const { return view_.n; }
    std::size_t m() const { return view_.m; }
    std::size_t p_entries() const { return view_.p_entries; }
    std::size_t a_entries() const { return view_.a_entries; }

    static double smoothing(double mu) {
        if (!(mu >= 0.0)) throw std::invalid_argument("mu must be at least 0");
        return mu;
    }

    DerivativeProblem given(const Matrix& p, const Matrix& a, const Matrix& v, double mu, std::size_t batch) const {
        return {rows(p, "P", batch, view_.p_entries), rows(a, "A", batch, view_.a_entries),
                rows(v, "v", batch, view_.m), smoothing(mu)};
    }

    // task(kernels, pack, work) for every pack of the batch, without the GIL.
    template <class Task>
    void run(std::size_t batch, int threads, const Task& task) const {
        if (batch == 0) return;
        const DerivativeKernels& kernels = derivative_kernels(static_cast<long long>(batch));
        const int width = kernels.width, items = static_cast<int>(batch), packs = (items + width - 1) / width;
        const int workers = std::max(1, std::min(threads, packs));
        const std::size_t each = (static_cast<std::size_t>(kernels.work_size(view_)) + 15) / 8 * 8;
        const auto one = [&](int pack, double* memory) {
            const int first = pack * width;
            task(kernels, PackRange{first, std::min(width, items - first)}, memory);
        };
        Interruptible caller;
        {
            nb::gil_scoped_release release;
            AlignedBuffer work(each * workers);
            const auto run_one = [&](int pack, int worker) { one(pack, work.get() + each * worker); };
            ThreadPool::run(packs, workers, run_one, &Interruptible::ends, &caller);
        }
        caller.raise();
    }

    std::unique_ptr<DerivativeLayout> layout_;
    DerivativeView view_;
};

}  // namespace

const DerivativeView& derivative_view(nb::handle differentiator) {
    return nb::cast<const Differentiator&>(differentiator).view();
}

void bind_derivative(nb::module_& m) {
    using nb::arg;
    nb::class_<Differentiator>(m, "Differentiator")
        .def(nb::init<int, int, const Ints&, const Ints&, const Ints&, const Ints&, const Ints&, const Ints&,
                      const Reals&, const std::optional<Ints>&>(),
             arg("n"), arg("m"), arg("P_indptr"), arg("P_indices"), arg("A_indptr"), arg("A_indices"),
             arg("cone_kinds"), arg("cone_dims"), arg("cone_params"), arg("order") = nb::none())
        .def("derivative", &Differentiator::derivative, arg("P"), arg("A"), arg("v"), arg("r1"), arg("r2"),
             arg("mu") = 0.0, arg("threads") = 1)
        .def("apply_D", &Differentiator::apply, arg("v"), arg("u"), arg("mu") = 0.0, arg("threads") = 1)
        .def("project_dual", &Differentiator::project, arg("v"), arg("mu") = 0.0, arg("threads") = 1)
        .def("pullback", &Differentiator::pullback, arg("P"), arg("A"), arg("x"), arg("y"), arg("s"), arg("gx"),
             arg("gy"), arg("gs"), arg("mu") = 0.0, arg("direction") = nb::none(), arg("threads") = 1)
        .def("probe", &Differentiator::probe, arg("P"), arg("A"), arg("y"), arg("s"), arg("rhs"), arg("accuracy"),
             arg("threads") = 1)
        .def("polish", &Differentiator::polish, arg("P"), arg("q"), arg("A"), arg("b"), arg("x"), arg("y"), arg("s"),
             arg("steps") = 2, arg("target") = 1e-14, arg("threads") = 1)
        .def_prop_ro("flops", &Differentiator::flops)
        .def_prop_ro("fill", &Differentiator::fill);
}

}  // namespace conelayers
