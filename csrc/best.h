// The k best rows, kept and written.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "topk.h"

namespace xmr {

constexpr double INFINITE = std::numeric_limits<double>::infinity();

// A row and its score.
struct Scored {
    double score;
    std::int64_t row;
};

inline bool is_better(const Scored& a, const Scored& b) {
    return a.score > b.score || (a.score == b.score && a.row < b.row);
}

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

}  // namespace xmr
