// How a gallery is cut for the threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "topk.h"

namespace xmr {

// A stretch of one segment; `first_row` counts through all segments.
struct Stretch {
    const Segment* segment;
    std::int64_t segment_number;
    std::int64_t first_row;  // of the segment
    std::int64_t first_block;
    std::int64_t last_block;
};

inline std::vector<Stretch> stretches(const TopkArguments& a, std::int64_t blocks_each) {
    std::vector<Stretch> found;
    std::int64_t first_row = 0;
    for (std::int64_t s = 0; s < a.n_segments; ++s) {
        const std::int64_t all = n_blocks(a.segments[s].n_rows);
        for (std::int64_t block = 0; block < all; block += blocks_each)
            found.push_back({&a.segments[s], s, first_row, block, std::min(block + blocks_each, all)});
        first_row += a.segments[s].n_rows;
    }
    return found;
}

inline std::int64_t total_blocks(const TopkArguments& a) {
    std::int64_t total = 0;
    for (std::int64_t s = 0; s < a.n_segments; ++s) total += n_blocks(a.segments[s].n_rows);
    return total;
}

// Bit i: row i of the block exists and may be returned.
inline std::uint32_t allowed_rows(const TopkArguments& a, const Stretch& stretch, std::int64_t block) {
    const std::int64_t first = block * BLOCK_ROWS;
    const std::int64_t n = std::min(BLOCK_ROWS, stretch.segment->n_rows - first);
    if (!a.allowed) return (1U << n) - 1;
    std::uint32_t bits = 0;
    for (std::int64_t i = 0; i < n; ++i)
        bits |= static_cast<std::uint32_t>(a.allowed[stretch.first_row + first + i] != 0) << i;
    return bits;
}

}  // namespace xmr
