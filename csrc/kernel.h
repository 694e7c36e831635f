// What the search needs of an instruction set. Each has a file of its own; `kernels` lists those this machine can run.
#pragma once

#include <cstdint>
#include <vector>

#include "topk.h"

namespace xmr {

constexpr std::int64_t GROUP_QUERIES = 16;  // queries whose codes are interleaved
constexpr std::int64_t TILE_DIMS = 64;      // dimensions of a packed tile of queries
constexpr std::int64_t TILE_BYTES = GROUP_QUERIES * TILE_DIMS;
constexpr std::int64_t TILE_DOTS = GROUP_QUERIES * BLOCK_ROWS;

constexpr std::int64_t n_tiles(std::int64_t dim) { return (dim + TILE_DIMS - 1) / TILE_DIMS; }

// Codes of GROUP_QUERIES queries in TILE_DIMS dimensions; zeros where there is no query or dimension.
struct alignas(64) QueryTile {
    std::int8_t codes[TILE_BYTES] = {};
};

// What the bound knows of GROUP_QUERIES queries; a place without a query needs +inf, and its hits mean nothing.
struct alignas(64) QueryBounds {
    double needed[GROUP_QUERIES];         // ts <a, c> + w must reach this
    double code_norm[GROUP_QUERIES];      // N
    double residual[GROUP_QUERIES];       // E, with its slack
    double scale[GROUP_QUERIES];          // t
    double inverse_scale[GROUP_QUERIES];  // 1 / t
    double offset[GROUP_QUERIES];         // 128 times the sum of a: what the stored codes add to <a, c>
};

// One group of queries against one, two or four blocks, or two groups against one or two.
struct Product {
    const QueryTile* queries;  // n_tiles(dim) for each group
    std::int64_t n_groups;
    std::int64_t n_queries;  // in all groups
    const std::uint8_t* blocks[4];
    std::int64_t n_blocks;
    std::int64_t dim;
    const std::uint8_t* ahead;  // memory to bring into the cache meanwhile,
    std::int64_t ahead_bytes;   // so much for every TILE_DIMS dimensions
    std::int32_t* dots;         // [group][block][query][row] written, tiles of TILE_DOTS; 64-byte aligned
};

// The part of `ahead` that belongs to a tile.
inline void fetch_ahead(const Product& p, std::int64_t tile) {
    constexpr std::int64_t LINE = 64;
    for (std::int64_t i = 0; i < p.ahead_bytes; i += LINE) __builtin_prefetch(p.ahead + tile * p.ahead_bytes + i, 0, 2);
}

// The codes of a group: its tiles follow each other.
inline const std::int8_t* group_codes(const Product& p, std::int64_t group) {
    return p.queries[group * n_tiles(p.dim)].codes;
}

struct Kernel {
    const char* name;
    bool (*is_usable)();
    void (*begin)(std::int64_t n_queries);  // once per thread and search, before `multiply`; null: nothing to do
    void (*end)();
    void (*multiply)(const Product& product);  // null, as `select`: this one only searches exhaustively
    // The rows of one tile of dots that pass; hits[query] has a bit per row. Returns whether there is any.
    bool (*select)(const std::int32_t* dots, const QueryBounds& queries, const BlockBound& block, std::uint16_t* hits);
    double (*score)(const double* query, const float* row, std::int64_t dim);
    void (*encode_blocks)(const EncodeArguments& arguments, std::int64_t first_block, std::int64_t last_block);
};

extern const Kernel PLAIN;
#if defined(__x86_64__)
extern const Kernel AVX2;
extern const Kernel AVX512_VNNI;
#if defined(__linux__)
extern const Kernel AMX;
#endif
#elif defined(__aarch64__) && defined(__linux__)
extern const Kernel NEON;
#endif

// Usable here, slowest first. Asked for once.
const std::vector<const Kernel*>& kernels();

// R of the header topk.h: dim numbers in place. Every kernel finds the same bits.
void rotate(double* values, std::int64_t dim);

}  // namespace xmr
