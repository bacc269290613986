// Jacobi eigendecomposition: orthogonality, reconstruction, repeated eigenvalues, extreme scales, lanes of unlike sizes.
#include <cmath>
#include <random>
#include <vector>

#include "check.hpp"
#include "conelayers/eigen.hpp"

using namespace conelayers;

namespace {

using Real = pack<4>;

void decompose(int n, const std::vector<std::vector<double>>& matrices) {
    std::vector<Real> a(n * n), u(n * n), l(n);
    for (int k = 0; k < n * n; ++k)
        for (int lane = 0; lane < 4; ++lane) set_lane(a[k], lane, matrices[lane][k]);
    symmetric_eigen<Real>(n, a.data(), u.data(), l.data());
    for (int lane = 0; lane < 4; ++lane) {
        double scale = 0.0;
        for (double entry : matrices[lane]) scale = std::fmax(scale, std::fabs(entry));
        for (int i = 0; i < n; ++i)
            for (int j = 0; j < n; ++j) {
                double gram = 0.0, rebuilt = 0.0;
                for (int k = 0; k < n; ++k) {
                    gram += get_lane(u[k * n + i], lane) * get_lane(u[k * n + j], lane);
                    rebuilt += get_lane(u[i * n + k], lane) * get_lane(l[k], lane) * get_lane(u[j * n + k], lane);
                }
                CHECK(std::fabs(gram - (i == j ? 1.0 : 0.0)) < 3e-15 * n);
                CHECK(std::fabs(rebuilt - matrices[lane][i * n + j]) <= 1e-14 * n * scale);
            }
    }
}

std::vector<double> symmetric(int n, std::mt19937_64& random, double scale) {
    std::normal_distribution<> normal;
    std::vector<double> a(n * n);
    for (int i = 0; i < n; ++i)
        for (int j = i; j < n; ++j) a[i * n + j] = a[j * n + i] = scale * normal(random);
    return a;
}

std::vector<double> repeated(int n, double shift) {
    std::vector<double> a(n * n, 1.0);  // ones: eigenvalues n, 0, ..., 0
    for (int i = 0; i < n; ++i) a[i * n + i] += shift;
    return a;
}

}  // namespace

int main() {
    std::mt19937_64 random(2);
    for (int n : {1, 2, 3, 8, 17}) {
        decompose(n, {symmetric(n, random, 1.0), symmetric(n, random, 1e150), symmetric(n, random, 1e-150),
                      std::vector<double>(n * n, 0.0)});
        decompose(n, {repeated(n, 0.0), repeated(n, -2.0), symmetric(n, random, 1.0), repeated(n, 1e-9)});
    }
    return report();
}
