// A product of cones as plain data: which rows belong to which cone, and where each block keeps its numbers.
#pragma once

#include "../bordering.hpp"
#include "../layout.hpp"
#include "../pack.hpp"
#if !defined(CONELAYERS_DEVICE)
#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <vector>
#endif

namespace conelayers {

enum BlockKind : int {
    kZeroBlock = 0,
    kNonnegativeBlock = 1,
    kSecondOrderBlock = 2,
    kSemidefiniteBlock = 3,
    kExponentialBlock = 4,
    kDualExponentialBlock = 5,
    kPowerBlock = 6,
    kDualPowerBlock = 7,
    kFreeBlock = 8,
};

struct ProjectionBlock {
    int kind;
    int first;         // first row
    int dim;           // rows
    int order;         // matrix order of a semidefinite block
    int element;       // offset of its Clarke element
    int weight;        // offset of its entries of W, see `ProjectionView`
    int sparse;        // 1: a second-order block whose W is bordered
    double parameter;  // exponent of a power cone
};

// W = D^-1 - I is block diagonal; a zero, nonnegative or free block stores its diagonal, a large second-order block its
// border (bordering.hpp), any other block the upper triangle row by row.
struct ProjectionView {
    int rows;
    int blocks;
    const ProjectionBlock* block;
    int element_size;
    int weight_size;
    int scratch;  // packs that the functions on a product of cones need
};

// Blocks of W are dense, so that larger ones belong to a sparse or iterative method.
constexpr int kLargestBlock = 4096;

CL_HD inline bool is_polyhedral(int kind) {
    return kind == kZeroBlock || kind == kNonnegativeBlock || kind == kFreeBlock;
}

#if !defined(CONELAYERS_DEVICE)

// The layout of K, from kinds, dimensions (the order for a semidefinite cone) and parameters. Host code.
class ProjectionLayout {
  public:
    ProjectionLayout(int count, const std::int64_t* kinds, const std::int64_t* dims, const double* parameters) {
        for (int k = 0; k < count; ++k) add(static_cast<int>(kinds[k]), dims[k], parameters[k]);
    }

    ProjectionView view() const {
        return {rows_, static_cast<int>(blocks_.size()), blocks_.data(), element_size_, weight_size_, scratch_};
    }
    const std::vector<ProjectionBlock>& blocks() const { return blocks_; }

  private:
    void add(int kind, std::int64_t size, double parameter) {
        if (kind < kZeroBlock || kind > kFreeBlock) throw std::invalid_argument("cone_kinds must lie between 0 and 8");
        if (size < 0 || size > 1000000) throw std::invalid_argument("cone_dims must lie between 0 and 10^6");
        ProjectionBlock block{kind, rows_, static_cast<int>(size), 0, element_size_, weight_size_, 0, parameter};
        if (kind == kSemidefiniteBlock && size > kLargestBlock) block.dim = kLargestBlock + 1;  // refused below
        else if (kind == kSemidefiniteBlock) {
            block.order = block.dim;
            block.dim = block.order * (block.order + 1) / 2;
        }
        const bool three = kind >= kExponentialBlock && kind <= kDualPowerBlock;
        if (three && block.dim != 3) throw std::invalid_argument("exponential and power cones have dimension 3");
        if ((kind == kPowerBlock || kind == kDualPowerBlock) && !(parameter > 0.0 && parameter < 1.0))
            throw std::invalid_argument("cone_params must lie between 0 and 1 for power cones");
        if (block.dim == 0) return;
        if (kind == kSemidefiniteBlock && block.dim > kLargestBlock)
            throw std::invalid_argument("semidefinite blocks may have at most 4096 rows here");
        if (kind == kSecondOrderBlock && block.dim == 1) block.kind = kNonnegativeBlock;
        rows_ += block.dim;
        if (block.kind == kNonnegativeBlock) element_size_ += block.dim;
        if (block.kind == kSecondOrderBlock) element_size_ += block.dim + 2;
        if (kind == kSemidefiniteBlock) element_size_ += block.order * (block.order + 2);
        if (three) element_size_ += 12;
        block.sparse = block.kind == kSecondOrderBlock && block.dim > kLargestDenseCone ? 1 : 0;
        weight_size_ += is_polyhedral(block.kind) ? block.dim
                        : block.sparse            ? static_cast<int>(border_size(block.dim))
                                                  : block.dim * (block.dim + 1) / 2;
        scratch_ = std::max(scratch_, 2 * block.order * block.order);
        blocks_.push_back(block);
    }

    std::vector<ProjectionBlock> blocks_;
    int rows_ = 0, element_size_ = 0, weight_size_ = 0, scratch_ = 16;
};

#endif

}  // namespace conelayers
