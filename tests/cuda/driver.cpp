// One search on emulated GPUs. Arguments: seed, line of a barrier to leave out and the first thread that does, GPUs,
// their free bytes, whether a first search finds them all taken, fails and is repeated, coding, places for candidates,
// k, queries, dim, whether flags follow, rows of each segment. stdin: the segments, the queries, the flags. stdout:
// scores, rows; stderr: what failed.
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "topk_cuda.h"

namespace {

template <typename Value>
std::vector<Value> read(std::int64_t n) {
    std::vector<Value> values(n);
    if (std::fread(values.data(), sizeof(Value), values.size(), stdin) != values.size()) std::exit(2);
    return values;
}

template <typename Value>
void write(const std::vector<Value>& values) {
    std::fwrite(values.data(), sizeof(Value), values.size(), stdout);
}

}  // namespace

int main(int, char** arguments) {
    const auto number = [&] { return std::atoll(*++arguments); };
    emulation::seed = static_cast<unsigned>(number());
    emulation::skipped_line = static_cast<int>(number());
    emulation::skipped_from = static_cast<unsigned>(number());
    emulation::n_devices = static_cast<int>(number());
    emulation::free_bytes = static_cast<std::size_t>(number());
    const bool is_full_at_first = number();
    const auto coding = *++arguments == std::string("int8") ? xmr::CudaCoding::int8 : xmr::CudaCoding::float16;
    const std::int64_t n_candidates = number(), k = number(), n_queries = number(), dim = number();
    const bool has_flags = number();
    std::vector<std::vector<float>> rows;
    std::vector<xmr::RowSpan> segments;
    while (arguments[1]) {
        const std::int64_t n_rows = number();
        rows.push_back(read<float>(n_rows * dim));
        segments.push_back({rows.back().data(), n_rows});
    }
    const auto queries = read<float>(n_queries * dim);
    try {
        xmr::CudaGallery gallery(segments, dim, coding, n_candidates);
        const auto flags = read<std::uint8_t>(has_flags ? gallery.n_rows() : 0);
        std::vector<float> scores(n_queries * k);
        std::vector<std::int64_t> found(n_queries * k);
        const auto search = [&] {
            gallery.top_k(queries.data(), n_queries, k, has_flags ? flags.data() : nullptr, scores.data(),
                          found.data());
        };
        if (is_full_at_first) {
            const std::size_t free_bytes = std::exchange(emulation::free_bytes, 0);
            try {
                search();
            } catch (const std::runtime_error& error) {
                std::fprintf(stderr, "%s\n", error.what());
            }
            emulation::free_bytes = free_bytes;
        }
        search();
        write(scores);
        write(found);
    } catch (const std::runtime_error& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
