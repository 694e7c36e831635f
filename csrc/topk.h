// Exact top-k by inner product: the interface between the kernels and whoever calls them.
//
// For every query the k gallery rows of largest inner product, best first. Products of float32 are exact in double
// and are summed in double, so the order is that of a float64 brute force up to the rounding of those sums, which is
// the same for equal rows. Equal scores: the smaller row first.
#pragma once

#include <cstdint>

namespace xmr {

struct TopkArguments {
    const float* queries;         // (n_queries, dim), row-major
    const float* gallery;         // (n_rows, dim), row-major
    const std::uint8_t* allowed;  // (n_rows) 0 or 1, or null: every row may be returned
    std::int64_t n_queries;
    std::int64_t n_rows;
    std::int64_t dim;
    std::int64_t k;  // 1 <= k <= n_rows
    int n_threads;   // >= 1; the result does not depend on it
    float* scores;       // (n_queries, k) written; -inf where fewer than k rows are allowed
    std::int64_t* rows;  // (n_queries, k) written; -1 there
};

void topk_plain(const TopkArguments& arguments);

}  // namespace xmr
