// The definition: every row is scored. And the coding of rows, for topk_coded.cpp.
#include <atomic>
#include <bit>
#include <cstring>

#include "best.h"
#include "kernel.h"
#include "stretch.h"
#include "threads.h"

namespace xmr {

void topk_exhaustive(const TopkArguments& a, const Kernel& kernel) {
    const std::vector<double> queries(a.queries, a.queries + a.n_queries * a.dim);
    const std::vector<Stretch> all = stretches(a, 64);
    const auto n_threads = std::clamp<std::int64_t>(static_cast<std::int64_t>(all.size()), 1, a.n_threads);
    std::vector<std::vector<Best>> best(n_threads, std::vector<Best>(a.n_queries, Best(a.k)));
    std::atomic<std::size_t> next = 0;

    on_threads(n_threads, [&](std::int64_t t) {
        for (std::size_t i = next++; i < all.size(); i = next++)
            for (std::int64_t block = all[i].first_block; block < all[i].last_block; ++block)
                for (std::int64_t q = 0; q < a.n_queries; ++q)
                    for (std::uint32_t rest = allowed_rows(a, all[i], block); rest; rest &= rest - 1) {
                        const std::int64_t row = block * BLOCK_ROWS + std::countr_zero(rest);
                        const float* values = all[i].segment->rows + row * a.dim;
                        best[t][q].offer({kernel.score(&queries[q * a.dim], values, a.dim), all[i].first_row + row});
                    }
    });
    for (std::int64_t q = 0; q < a.n_queries; ++q) {
        std::vector<Scored> found;
        for (const auto& of_thread : best)
            found.insert(found.end(), of_thread[q].rows().begin(), of_thread[q].rows().end());
        write_best(a, q, std::move(found));
    }
}

void encode(const EncodeArguments& a, const Kernel& kernel) {
    constexpr std::int64_t BLOCKS_AT_ONCE = 64;
    const std::int64_t all = n_blocks(a.n_rows);
    std::atomic<std::int64_t> next = 0;
    on_threads(std::clamp<std::int64_t>(all / BLOCKS_AT_ONCE, 1, a.n_threads), [&](std::int64_t) {
        for (std::int64_t first = next.fetch_add(BLOCKS_AT_ONCE); first < all; first = next.fetch_add(BLOCKS_AT_ONCE))
            kernel.encode_blocks(a, first, std::min(first + BLOCKS_AT_ONCE, all));
    });
    std::memset(a.codes + all * block_bytes(a.dim), 128, CODES_TAIL);
}

}  // namespace xmr
