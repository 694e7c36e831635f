// What both ways of searching share: threads, stretches of the gallery, the best rows so far.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <thread>
#include <vector>

#include "topk.h"

namespace xmr {

constexpr double INFINITE = std::numeric_limits<double>::infinity();

// A row and its score.
struct Scored {
    double score;
    std::int64_t row;
};

inline bool is_better(const Scored& a, const Scored& b) { return a.score > b.score || (a.score == b.score && a.row < b.row); }

// The k best rows offered so far, as a heap whose front is the worst of them.
class Best {
public:
    explicit Best(std::int64_t k) : k_(static_cast<std::size_t>(k)) {}

    void offer(const Scored& scored) {
        if (heap_.size() == k_) {
            if (!is_better(scored, heap_.front())) return;
            std::pop_heap(heap_.begin(), heap_.end(), is_better);
            heap_.pop_back();
        }
        heap_.push_back(scored);
        std::push_heap(heap_.begin(), heap_.end(), is_better);
    }

    // What a row must reach to be among them.
    double worst() const { return heap_.size() == k_ ? heap_.front().score : -INFINITE; }
    const std::vector<Scored>& rows() const { return heap_; }

private:
    std::size_t k_;
    std::vector<Scored> heap_;
};

inline void write_best(const TopkArguments& a, std::int64_t query, std::vector<Scored> best) {
    std::sort(best.begin(), best.end(), is_better);
    const auto n_found = std::min(a.k, static_cast<std::int64_t>(best.size()));
    for (std::int64_t place = 0; place < a.k; ++place) {
        a.scores[query * a.k + place] =
            place < n_found ? static_cast<float>(best[place].score) : -std::numeric_limits<float>::infinity();
        a.rows[query * a.k + place] = place < n_found ? best[place].row : -1;
    }
}

// Runs work(thread) on every thread, this one included, and throws again what one of them threw.
inline void on_threads(std::int64_t n_threads, const std::function<void(std::int64_t)>& work) {
    std::vector<std::exception_ptr> failures(n_threads);
    const auto guarded = [&](std::int64_t t) {
        try {
            work(t);
        } catch (...) {  // out of memory
            failures[t] = std::current_exception();
        }
    };
    {
        std::vector<std::jthread> threads;
        for (std::int64_t t = 1; t < n_threads; ++t) threads.emplace_back(guarded, t);
        guarded(0);
    }
    for (const auto& failure : failures)
        if (failure) std::rethrow_exception(failure);
}

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
