// A whole batch as the bindings run it: solved by several threads, solved again from near points, differentiated. Whoever
// does which pack, the numbers are those of one thread. (ThreadSanitizer: see CMakeLists.txt.)
#include <cmath>
#include <cstdint>
#include <vector>

#include "../../../conelayers/native/src/from_start.hpp"
#include "../../../conelayers/native/src/worker.hpp"
#include "approximately.hpp"
#include "conelayers/structure.hpp"
#include "conelayers/threads.hpp"

using namespace conelayers;

namespace {

using Real = pack<2>;
constexpr int kItems = 23, n = 16, m = 23;

// min 1/2 |x|^2 + q'x over rows of a nonnegative, a small and a large second-order cone, around a feasible point.
struct Family {
    std::vector<std::int64_t> p_start{0}, p_row, a_start{0}, a_row, kinds{1, 2, 2}, dims{5, 4, 14};
    std::vector<double> parameters{0, 0, 0}, P, q, A, b;

    Family() {
        Random random;
        for (int j = 0; j < n; ++j) {
            p_row.push_back(j), p_start.push_back(j + 1);
            for (int i = j % 3; i < m; i += 1 + j % 3) a_row.push_back(i);
            a_start.push_back(static_cast<std::int64_t>(a_row.size()));
        }
        P.assign(n, 1.0), A.resize(a_row.size()), q.resize(kItems * n), b.resize(kItems * m);
        for (double& a : A) a = random();
        for (double& value : q) value = 5 * random();
        for (int item = 0; item < kItems; ++item)  // x = 0 is inside
            for (int i = 0; i < m; ++i) b[item * m + i] = i < 5 || i == 5 || i == 9 ? 2.0 + random() : 0.1 * random();
    }
};

struct Solution {
    std::vector<double> x, y, s, primal, dual, gap;
    std::vector<signed char> status;
    std::vector<long long> iterations;

    Solution()
        : x(kItems * n), y(kItems * m), s(kItems * m), primal(kItems), dual(kItems), gap(kItems), status(kItems),
          iterations(kItems) {}
    EngineResult view() {
        return {x.data(), y.data(), s.data(), primal.data(), dual.data(), gap.data(), status.data(), iterations.data()};
    }
};

struct Batch {
    Family family;
    Structure structure{n, m, family.p_start.data(), family.p_row.data(), family.a_start.data(), family.a_row.data(),
                        3, family.kinds.data(), family.dims.data(), family.parameters.data()};
    DerivativeLayout layout{n, m, family.p_start.data(), family.p_row.data(), family.a_start.data(), family.a_row.data(),
                            ProjectionLayout(3, family.kinds.data(), family.dims.data(), family.parameters.data())};
    EngineView view = structure.view();
    DerivativeView derivative = layout.view();

    EngineProblem problem(Solution& to) {
        EngineProblem p{};
        p.view = &view, p.derivative = &derivative, p.items = kItems, p.result = to.view();
        p.P = {family.P.data(), 0}, p.q = {family.q.data(), n}, p.A = {family.A.data(), 0}, p.b = {family.b.data(), m};
        return p;
    }

    template <class Task>
    void on_threads(const EngineProblem& p, int threads, const Task& task) {
        const WorkerSizes<Real> sizes(p);
        std::vector<std::vector<Real>> memory(threads);
        for (auto& each : memory) each.resize(sizes.total());
        std::atomic<int> next{0};
        ThreadPool::run(threads, threads, [&](int worker, int) { task(sizes, next, memory[worker].data()); });
    }

    Solution solve(int threads) {
        Solution found;
        const EngineProblem p = problem(found);
        on_threads(p, threads, [&](const WorkerSizes<Real>& sizes, std::atomic<int>& next, Real* memory) {
            Worker<Real>(p, sizes, memory).run(next);
        });
        return found;
    }

    Solution solve_from(const Solution& start, int threads) {
        Solution found;
        EngineProblem p = problem(found);
        p.start_x = {start.x.data(), n}, p.start_y = {start.y.data(), m}, p.start_s = {start.s.data(), m};
        on_threads(p, threads, [&](const WorkerSizes<Real>&, std::atomic<int>& next, Real* memory) {
            solve_from_start<Real>(p, next, memory);
        });
        return found;
    }

    // The derivative of the sum of x with respect to q, item by item on several threads.
    std::vector<double> gradient(const Solution& at, int threads) {
        std::vector<double> out(kItems * n);
        const long long size = DerivativeWork<Real>(derivative, nullptr, true).size;
        std::vector<std::vector<Real>> memory(threads, std::vector<Real>(size));
        ThreadPool::run(kItems, threads, [&](int item, int worker) {
            const DerivativeWork<Real> w(derivative, memory[worker].data());  // the same in all lanes
            for (int k = 0; k < n; ++k) w.p[k] = Real(family.P[k]), w.rhs[k] = Real(-1.0);
            for (std::size_t k = 0; k < family.A.size(); ++k) w.a[k] = Real(family.A[k]);
            for (int i = 0; i < m; ++i) {
                w.v[i] = Real(at.y[item * m + i] - at.s[item * m + i]);
                w.image[i] = w.rhs[n + i] = Real(0.0);
            }
            projection::project_dual<Real>(derivative.cone, w.v, w.image, 0.0, w.y, w.element, w.scratch);
            derivative_scale(derivative, w);
            derivative_factor(derivative, w);
            CHECK(get_lane(derivative_solve(derivative, w), 0) < 1e-10);
            for (int j = 0; j < n; ++j) out[item * n + j] = get_lane(w.solution[j], 0);
        });
        return out;
    }
};

}  // namespace

int main() {
    Batch batch;
    const Solution alone = batch.solve(1), together = batch.solve(4), again = batch.solve_from(alone, 4);
    const std::vector<double> gradient = batch.gradient(alone, 1), shared = batch.gradient(together, 4);
    for (int item = 0; item < kItems; ++item) {
        CHECK(alone.status[item] == kSolved && together.status[item] == kSolved && again.status[item] == kSolved);
        CHECK(together.iterations[item] == alone.iterations[item] && again.iterations[item] == 0);
        CHECK(alone.primal[item] < 1e-10 && alone.dual[item] < 1e-10 && alone.gap[item] < 1e-10);
        for (int j = item * n; j < (item + 1) * n; ++j) {
            CHECK_NEAR(together.x[j], alone.x[j], 1e-12);
            CHECK_NEAR(again.x[j], alone.x[j], 1e-9);
            CHECK_NEAR(shared[j], gradient[j], 1e-9);
        }
    }
    return report();
}
