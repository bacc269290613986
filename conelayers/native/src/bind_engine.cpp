// Python bindings of the batched interior-point method.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "arguments.hpp"
#include "conelayers/dispatch.hpp"
#include "conelayers/structure.hpp"
#include "conelayers/threads.hpp"
#include "definiteness.hpp"
#include "derivative_view.hpp"
#include "engine_kernels.hpp"
#include "interruptible.hpp"
#include "results.hpp"

namespace nb = nanobind;

namespace conelayers {
namespace {

const EngineKernels& engine_kernels(int items) {
    const int arch = arch_for(items);
    const bool single = items == 1;
#if defined(CONELAYERS_X86)
    if (arch == kAvx512) return single ? kernels_avx512::engine_single : kernels_avx512::engine_pack;
    if (arch == kAvx2) return single ? kernels_avx2::engine_single : kernels_avx2::engine_pack;
#endif
    (void)arch;
    return single ? kernels_portable::engine_single : kernels_portable::engine_pack;
}

using Start = std::optional<Matrix>;

class Engine {
  public:
    Engine(int n, int m, const Ints& P_indptr, const Ints& P_indices, const Ints& A_indptr, const Ints& A_indices,
           const Ints& kinds, const Ints& dims, const Reals& params) {
        if (n < 0 || m < 0) throw std::invalid_argument("n and m must not be negative");
        check_pattern(P_indptr, P_indices, n, "P");
        check_pattern(A_indptr, A_indices, n, "A");
        if (kinds.shape(0) != dims.shape(0) || kinds.shape(0) != params.shape(0))
            throw std::invalid_argument("cone_kinds, cone_dims and cone_params must have equal lengths");
        structure_ = std::make_unique<Structure>(n, m, P_indptr.data(), P_indices.data(), A_indptr.data(),
                                                 A_indices.data(), static_cast<int>(kinds.shape(0)), kinds.data(),
                                                 dims.data(), params.data());
        view_ = structure_->view();
        convexity_ = std::make_unique<const Definiteness>(n, P_indptr.data(), P_indices.data());
    }

    nb::dict solve(const Matrix& P, const Matrix& q, const Matrix& A, const Matrix& b, int batch, int threads,
                   const EngineSettings& settings, nb::handle differentiator, const Start (&start)[3]) const {
        if (batch < 0) throw std::invalid_argument("batch must not be negative");
        const std::size_t B = static_cast<std::size_t>(batch);
        const std::size_t n = view_.n, m = view_.m;
        EngineProblem problem{};
        problem.view = &view_, problem.settings = settings, problem.items = batch;
        problem.P = rows(P, "P", B, view_.P_nnz), problem.q = rows(q, "q", B, view_.n);
        problem.A = rows(A, "A", B, view_.A_nnz), problem.b = rows(b, "b", B, view_.m);
        if (!differentiator.is_none()) problem.derivative = &checked(derivative_view(differentiator));
        if (start[0] || start[1] || start[2]) {
            if (!start[0] || !start[1] || !start[2])
                throw std::invalid_argument("x, y and s, the point to start from, must be given together");
            problem.start_x = rows(*start[0], "x", B, view_.n), problem.start_y = rows(*start[1], "y", B, view_.m);
            problem.start_s = rows(*start[2], "s", B, view_.m);
        }
        EngineResult& out = problem.result;
        nb::dict result;
        result["x"] = new_array<double>({B, n}, &out.x);
        result["y"] = new_array<double>({B, m}, &out.y);
        result["s"] = new_array<double>({B, m}, &out.s);
        result["primal_residual"] = new_array<double>({B}, &out.primal_residual);
        result["dual_residual"] = new_array<double>({B}, &out.dual_residual);
        result["gap"] = new_array<double>({B}, &out.gap);
        result["status"] = new_array<signed char>({B}, &out.status);
        result["iterations"] = new_array<long long>({B}, &out.iterations);
        Interruptible caller;
        problem.settings.ends = &Interruptible::ends, problem.settings.caller = &caller;
        run(problem, threads, caller);
        caller.raise();
        result["worst"] = worst_residual(problem);
        return result;
    }

    const LdltView& kkt() const { return view_.kkt; }

    nb::object order() const {
        std::int64_t* data = nullptr;
        nb::object result = nb::cast(new_array<std::int64_t>({static_cast<std::size_t>(view_.kkt.n)}, &data));
        std::copy(view_.kkt.permutation, view_.kkt.permutation + view_.kkt.n, data);
        return result;
    }

  private:
    const DerivativeView& checked(const DerivativeView& derivative) const {
        if (derivative.n != view_.n || derivative.m != view_.m || derivative.p_entries != view_.P_nnz ||
            derivative.a_entries != view_.A_nnz)
            throw std::invalid_argument("differentiator must be that of the same patterns");
        return derivative;
    }

    void run(const EngineProblem& problem, int threads, Interruptible& caller) const {
        if (problem.items == 0) return;
        const EngineKernels& kernels = engine_kernels(problem.items);
        const int packs = (problem.items + kernels.width - 1) / kernels.width;
        const int workers = std::max(1, std::min(threads, packs));
        const long long each = (kernels.scratch(problem) + 15) / 8 * 8;
        nb::gil_scoped_release release;
        Scratch scratch = take(static_cast<std::size_t>(each) * workers);
        const auto on_all = [&](const EngineProblem& part, auto kernel) {
            std::atomic<int> next{0};
            const auto task = [&](int worker, int) {
                (engine_kernels(part.items).*kernel)(part, next, scratch.buffer.get() + each * worker);
            };
            ThreadPool::run(workers, workers, task, &Interruptible::ends, &caller);
        };
        if (problem.derivative != nullptr && problem.start_x.data != nullptr) {
            on_all(problem, &EngineKernels::solve_from_start);
            const std::vector<int> open = open_items(problem);
            EngineProblem rest = problem;
            rest.chosen = open.data(), rest.items = static_cast<int>(open.size());
            on_all(rest, &EngineKernels::solve);
        } else {
            on_all(problem, &EngineKernels::solve);
        }
        give_back(std::move(scratch));
        refuse_nonconvex(problem, threads);
    }

    // What solves the optimality conditions of a programme that is not convex may be any stationary point.
    void refuse_nonconvex(const EngineProblem& problem, int threads) const {
        const int rows = problem.P.stride == 0 ? 1 : problem.items;
        const std::vector<char> found = convexity_->indefinite(problem.P, rows, threads);
        if (std::find(found.begin(), found.end(), 1) == found.end()) return;
        for (int item = 0; item < problem.items; ++item)
            if (found[rows == 1 ? 0 : item]) problem.result.status[item] = kFailed;
    }

    // The largest residual of all items, infinite if one is not solved: one number for a caller to look at.
    static double worst_residual(const EngineProblem& problem) {
        const EngineResult& out = problem.result;
        double worst = 0.0;
        for (int item = 0; item < problem.items; ++item) {
            if (out.status[item] != kSolved) return HUGE_VAL;
            for (const double* residual : {out.primal_residual, out.dual_residual, out.gap}) {
                if (!(residual[item] < HUGE_VAL)) return HUGE_VAL;
                worst = std::max(worst, residual[item]);
            }
        }
        return worst;
    }

    static std::vector<int> open_items(const EngineProblem& problem) {
        std::vector<int> open;
        for (int item = 0; item < problem.items; ++item)
            if (problem.result.status[item] == kRunning) open.push_back(item);
        return open;
    }

    // Scratch memory is kept between calls (fresh pages cost as much as a small solve); simultaneous calls each
    // have their own.
    struct Scratch {
        std::size_t size;
        AlignedBuffer buffer;
    };

    Scratch take(std::size_t size) const {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            for (std::size_t i = 0; i < idle_.size(); ++i) {
                if (idle_[i].size < size) continue;
                Scratch found = std::move(idle_[i]);
                idle_.erase(idle_.begin() + static_cast<std::ptrdiff_t>(i));
                return found;
            }
        }
        return {size, AlignedBuffer(size)};
    }

    void give_back(Scratch scratch) const {
        std::lock_guard<std::mutex> lock(mutex_);
        if (idle_.size() >= 4) idle_.erase(idle_.begin());
        idle_.push_back(std::move(scratch));
    }

    std::unique_ptr<Structure> structure_;
    std::unique_ptr<const Definiteness> convexity_;
    EngineView view_{};
    mutable std::mutex mutex_;
    mutable std::vector<Scratch> idle_;
};

}  // namespace

void bind_engine(nb::module_& m) {
    m.def(
        "clearly_indefinite",
        [](int n, const Ints& indptr, const Ints& indices, const Matrix& P, int threads) {
            check_pattern(indptr, indices, n, "P");
            const Definiteness convexity(n, indptr.data(), indices.data());
            const std::size_t count = P.shape(0);
            const Rows values = rows(P, "P", count, convexity.entries());
            std::vector<char> found;
            {
                nb::gil_scoped_release release;
                found = convexity.indefinite(values, static_cast<int>(count), threads);
            }
            bool* data = nullptr;
            nb::object result = nb::cast(new_array<bool>({count}, &data));
            std::copy(found.begin(), found.end(), data);
            return result;
        },
        nb::arg("n"), nb::arg("indptr"), nb::arg("indices"), nb::arg("P"), nb::arg("threads") = 1);
    nb::class_<Engine>(m, "Engine")
        .def(nb::init<int, int, const Ints&, const Ints&, const Ints&, const Ints&, const Ints&, const Ints&,
                      const Reals&>(),
             nb::arg("n"), nb::arg("m"), nb::arg("P_indptr"), nb::arg("P_indices"), nb::arg("A_indptr"),
             nb::arg("A_indices"), nb::arg("cone_kinds"), nb::arg("cone_dims"), nb::arg("cone_params"))
        .def(
            "solve",
            [](const Engine& engine, const Matrix& P, const Matrix& q, const Matrix& A, const Matrix& b, int batch,
               nb::handle differentiator, int threads, double tol, int max_iter, double tol_early, int equilibrate,
               double regularisation, int refinements, const Start& x, const Start& y, const Start& s,
               const std::optional<double>& tol_infeasible) {
                EngineSettings settings;
                settings.tol = tol;
                settings.tol_infeasible = tol_infeasible.value_or(tol);
                settings.max_iter = max_iter;
                settings.tol_early = tol_early;
                settings.equilibrate = equilibrate;
                settings.regularisation = regularisation;
                settings.refinements = refinements;
                return engine.solve(P, q, A, b, batch, threads, settings, differentiator, {x, y, s});
            },
            nb::arg("P"), nb::arg("q"), nb::arg("A"), nb::arg("b"), nb::arg("batch"), nb::kw_only(),
            nb::arg("differentiator").none() = nb::none(), nb::arg("threads") = 1, nb::arg("tol") = 1e-8,
            nb::arg("max_iter") = 100, nb::arg("tol_early") = 1e-4, nb::arg("equilibrate") = 8,
            nb::arg("regularisation") = 1e-8, nb::arg("refinements") = 3, nb::arg("x") = nb::none(),
            nb::arg("y") = nb::none(), nb::arg("s") = nb::none(), nb::arg("tol_infeasible") = nb::none())
        .def_prop_ro("order", &Engine::order)
        .def_prop_ro("fill", [](const Engine& e) { return e.kkt().fill; })
        .def_prop_ro("flops", [](const Engine& e) { return e.kkt().flops; });
}

}  // namespace conelayers
