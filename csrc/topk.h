// Exact top-k by inner product: the interface between the kernels and whoever calls them.
//
// For every query the k gallery rows of largest score, best first; equal scores: the smaller row first. The score of a
// row is its inner product with the query, summed in double in a fixed order (`Kernel::score`): LANES sums over the
// dimensions d ≡ lane (mod LANES), then halved, lane + lane/2, down to one. Products of two float32 are exact in
// double, so every kernel, on every device and with any number of threads, finds the same bits.
//
// THE CODES
// A row x of a segment is shifted by the segment's mean m and perhaps rotated, y = R (x - m); m may be 0 and R the
// identity. BLOCK_ROWS rows share a float scale s and have int8 codes c in [-127, 127], so that y = s c + r_y. Kept
// beside the codes are norms, rounded up: e >= ||r_y|| and n >= ||x - m||. A query is coded alike when it is asked:
// z = R q = t a + r_z with int8 codes a, and the norms N = ||t a||, E = ||r_z||.
//
// THE BOUND
//     <q, x> = <q, m> + <z, y>,   <z, y> = ts <a, c> + <t a, r_y> + <r_z, y>,   so by Cauchy-Schwarz
//     |<q, x> - <q, m> - ts <a, c>|  <=  N e + E n  =: w
// A row whose upper bound <q, m> + ts <a, c> + w lies under the k-th largest lower bound seen is not among the k best.
// All others are candidates, and candidates are scored from their float32 rows. So the answer is that of the
// exhaustive search, whatever the data; the data decide only how many candidates there are.
//
// ROUNDING, u = 2^-53, dim <= MAX_DIM = 2^16. What is computed differs from the lines above by:
//  1. the score, a sum of dim exact products: at most dim u ||q|| ||x||; the same for the computed <q, m>;
//  2. x - m: u ||x - m||. The rotation is at most two Hadamard transforms of up to 16 butterfly stages, each with an
//     error of u relative to the norm it leaves, and their scaling: at most 40 u ||x - m||, and 40 u ||q|| for z;
//  3. e, n, N, E, sums of dim squares in double: relative (dim + 4) u, and of the rotated y as it was computed. e and n
//     are multiplied by 1 + 2^-20 and rounded up to float;
//  4. <a, c>: none, it is an integer below 127^2 dim < 2^31, and with the codes stored as c + 128 below 2^31 still.
//     ts <a, c>, two products: 2 u N (n + e);
//  5. the sums and products of the bound itself: fewer than 8, each u relative to terms that are at most
//     ||q|| ||m||, N (n + e), E n.
// Since dim u <= 2^-37 and N <= 2 ||q||, all of them together are less than SLACK ||q|| (n + ||m||), SLACK = 2^-33,
// beside what the factor 1 + 2^-20 of e and n gives. `encode_query` adds SLACK ||q|| to E, which w multiplies by n, and
// `prepare_query` widens every bound by SLACK ||q|| ||m||. Denormals: every product of two float32 is a normal double,
// and a mean is refused whose squares are not. Scales under 2^-100 or over 2^100 are set to 0 with codes 0: then e = n,
// and the bound holds as it stands. Norms beyond float32 become infinite. A bound that is not a number, from those or
// from a query of zeros, keeps its row.
//  6. A kernel compares integers: a row passes if <a, c> >= X - 1, e and n being the largest of the block, with
//     X = (threshold - <q, m> - slack - N e - E n) / ts. Rounding moves X by at most 4 u of the largest of its terms
//     over ts, which is less than 1 while those are under 2^50. N e and E n over ts are under 2^40. Where threshold or
//     <q, m> over ts are not, and yet X is near an integer that <a, c> can be, both are about ||q|| ||m||, and 4 u of
//     them is under the slack. Elsewhere the sign settles it. So a row whose upper bound reaches the threshold passes.
#pragma once

#include <cstdint>

namespace xmr {

constexpr std::int64_t LANES = 32;       // of a score; a warp of a GPU
constexpr std::int64_t BLOCK_ROWS = 16;  // rows that share a scale, and whose codes are interleaved
constexpr std::int64_t GROUP_DIMS = 4;   // dimensions of a row that stand together: what one lane of a dot product eats
constexpr std::int64_t CODES_TAIL = 1024;  // readable bytes after the last block, so that kernels may load whole tiles
constexpr std::int64_t MAX_DIM = 1 << 16;
constexpr double SLACK = 0x1p-33;

struct BlockBound {
    float scale;     // s
    float residual;  // the largest e of the block
    float norm;      // the largest n of the block
    float unused;    // 16 bytes: four of these in a cache line
};

struct RowBound {
    float residual;  // e
    float norm;      // n
};

// Codes of block b: codes + b * block_bytes(dim), row i of the block and dimension d at (d / 4 * 16 + i) * 4 + d % 4,
// stored as code + 128. Rows and dimensions that do not exist have the code 0.
struct Segment {
    const float* rows;  // (n_rows, dim), row-major; only candidates are read where there are codes
    const std::uint8_t* codes;
    const BlockBound* blocks;  // (n_blocks(n_rows))
    const RowBound* bounds;    // (n_blocks(n_rows) * BLOCK_ROWS)
    const double* mean;        // m (dim), or null: 0
    bool is_rotated;           // whether R is `rotate` or the identity
    std::int64_t n_rows;
};

constexpr std::int64_t n_blocks(std::int64_t n_rows) { return (n_rows + BLOCK_ROWS - 1) / BLOCK_ROWS; }
constexpr std::int64_t block_bytes(std::int64_t dim) {
    return (dim + GROUP_DIMS - 1) / GROUP_DIMS * GROUP_DIMS * BLOCK_ROWS;
}

struct TopkArguments {
    const float* queries;         // (n_queries, dim), row-major
    const Segment* segments;      // (n_segments); row numbers run through all of them
    const std::uint8_t* allowed;  // (sum of n_rows) 0 or 1, or null: every row may be returned
    std::int64_t n_queries;
    std::int64_t n_segments;
    std::int64_t dim;
    std::int64_t k;      // 1 <= k <= sum of n_rows
    int n_threads;       // >= 1; the result does not depend on it
    float* scores;       // (n_queries, k) written; -inf where fewer than k rows are allowed
    std::int64_t* rows;  // (n_queries, k) written; -1 there
};

struct Kernel;  // the functions of one instruction set: kernel.h

// Every row scored: the definition. Codes are not read.
void topk_exhaustive(const TopkArguments& arguments, const Kernel& kernel);

// The same answer by way of the codes. Returns how many candidates were scored; 0 where k is so large a part of the
// rows that all of them were.
std::int64_t topk_coded(const TopkArguments& arguments, const Kernel& kernel);

struct EncodeArguments {
    const float* rows;   // (n_rows, dim), finite
    const double* mean;  // (dim), or null: 0
    bool is_rotated;
    std::int64_t n_rows;
    std::int64_t dim;
    int n_threads;
    std::uint8_t* codes;  // n_blocks * block_bytes + CODES_TAIL written
    BlockBound* blocks;   // n_blocks written
    RowBound* bounds;     // n_blocks * BLOCK_ROWS written
};

void encode(const EncodeArguments& arguments, const Kernel& kernel);

}  // namespace xmr
