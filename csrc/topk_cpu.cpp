#include "topk.h"

#include <algorithm>
#include <array>
#include <exception>
#include <limits>
#include <thread>
#include <vector>

namespace xmr {
namespace {

constexpr std::int64_t LANES = 8;  // sums kept apart in a dot product, so that the compiler can use vector registers
constexpr std::int64_t ROW_BLOCK = 64;  // gallery rows that stay in cache while every query passes over them

struct Candidate {
    double score;
    std::int64_t row;
};

bool is_better(const Candidate& a, const Candidate& b) {
    return a.score > b.score || (a.score == b.score && a.row < b.row);
}

double dot(const double* query, const float* row, std::int64_t dim) {
    std::array<double, LANES> sums{};
    std::int64_t d = 0;
    for (; d + LANES <= dim; d += LANES)
        for (std::int64_t lane = 0; lane < LANES; ++lane) sums[lane] += query[d + lane] * static_cast<double>(row[d + lane]);
    for (; d < dim; ++d) sums[d % LANES] += query[d] * static_cast<double>(row[d]);
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

// The k best candidates seen so far, as a heap whose front is the worst of them.
class Best {
public:
    explicit Best(std::int64_t k) : k_(static_cast<std::size_t>(k)) {}

    void offer(const Candidate& candidate) {
        if (heap_.size() < k_) {
            heap_.push_back(candidate);
            std::push_heap(heap_.begin(), heap_.end(), is_better);
            return;
        }
        if (!is_better(candidate, heap_.front())) return;
        std::pop_heap(heap_.begin(), heap_.end(), is_better);
        heap_.back() = candidate;
        std::push_heap(heap_.begin(), heap_.end(), is_better);
    }

    const std::vector<Candidate>& candidates() const { return heap_; }

private:
    std::size_t k_;
    std::vector<Candidate> heap_;
};

void scan(const TopkArguments& a, const std::vector<double>& queries, std::int64_t first, std::int64_t last,
          std::vector<Best>& best) {
    for (std::int64_t block = first; block < last; block += ROW_BLOCK) {
        const std::int64_t block_end = std::min(block + ROW_BLOCK, last);
        for (std::int64_t q = 0; q < a.n_queries; ++q)
            for (std::int64_t row = block; row < block_end; ++row) {
                if (a.allowed && !a.allowed[row]) continue;
                best[q].offer({dot(&queries[q * a.dim], a.gallery + row * a.dim, a.dim), row});
            }
    }
}

void write_merged(const TopkArguments& a, const std::vector<std::vector<Best>>& best_of_threads, std::int64_t q) {
    std::vector<Candidate> all;
    for (const auto& best : best_of_threads)
        all.insert(all.end(), best[q].candidates().begin(), best[q].candidates().end());
    std::sort(all.begin(), all.end(), is_better);
    for (std::int64_t place = 0; place < a.k; ++place) {
        const bool is_found = place < static_cast<std::int64_t>(all.size());
        a.scores[q * a.k + place] =
            is_found ? static_cast<float>(all[place].score) : -std::numeric_limits<float>::infinity();
        a.rows[q * a.k + place] = is_found ? all[place].row : -1;
    }
}

}  // namespace

void topk_plain(const TopkArguments& a) {
    const std::vector<double> queries(a.queries, a.queries + a.n_queries * a.dim);
    const std::int64_t n_blocks = (a.n_rows + ROW_BLOCK - 1) / ROW_BLOCK;
    const std::int64_t n_threads = std::clamp<std::int64_t>(n_blocks, 1, a.n_threads);
    std::vector<std::vector<Best>> best(n_threads, std::vector<Best>(a.n_queries, Best(a.k)));
    std::vector<std::exception_ptr> failures(n_threads);

    const auto work = [&](std::int64_t t) {
        const std::int64_t first = n_blocks * t / n_threads * ROW_BLOCK;
        const std::int64_t last = std::min(n_blocks * (t + 1) / n_threads * ROW_BLOCK, a.n_rows);
        try {
            scan(a, queries, first, last, best[t]);
        } catch (...) {  // out of memory: raised again by the caller's thread
            failures[t] = std::current_exception();
        }
    };
    {
        std::vector<std::jthread> threads;
        for (std::int64_t t = 1; t < n_threads; ++t) threads.emplace_back(work, t);
        work(0);
    }
    for (const auto& failure : failures)
        if (failure) std::rethrow_exception(failure);
    for (std::int64_t q = 0; q < a.n_queries; ++q) write_merged(a, best, q);
}

}  // namespace xmr
