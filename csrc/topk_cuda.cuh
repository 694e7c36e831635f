// Exact top-k by inner product on a GPU: the kernels. nvcc compiles them, and so does g++ under tests/cuda/emulation.h.
//
// A search scans the codes of the gallery slab by slab. A row whose upper bound reaches the query's threshold is
// appended to the query's buffer. `tighten` turns what was appended into intervals, raises the threshold to the k-th
// largest lower bound and drops what lies under it. In the end `rescore` replaces the intervals by the scores, and
// `tighten` and `sort` leave the k best. The loop around them is in topk_cuda.cu.
//
// THE BOUND is that of topk.h with m = 0 and R = identity; every row has a scale and norms of its own, and queries are
// coded by the same kernel. Where the arithmetic differs:
//  1. N, the norm of the coded query, is taken as n + e of the query, by the triangle inequality.
//  2. float16: a row is scaled by the power of two under its largest value, so that the codes lie in [-2, 2] and their
//     products are normal floats. <a, c> is summed in float, in any order. Each term loses at most 2^-22 of the sum of
//     the magnitudes (tensor cores align and truncate), together at most (dim + 64) 2^-22 N (n + e)
//     <= (dim + 64) 2^-21 N n, as e <= n. E is larger by (dim + 64) 2^-21 N.
//  3. Intervals are computed in double from n, e, N, E: items 4 and 5 of topk.h, covered by its SLACK. Norms over
//     MAX_NORM count as infinite, and e and n under MIN_SCALE as MIN_SCALE: both round up.
//  4. In front stands a test in float, in units of the query's scale t: s <a, c> + N/t e + E/t n < threshold/t drops
//     the row. The conversion of <a, c> and the product with s lose 2^-23 N/t (n + e) <= 2^-22 N/t n, the products and
//     their sum 2^-22 of themselves. E is larger by 2^-19 N, both factors by 1 + 2^-20; threshold/t is rounded down.
//     The last addition is monotone and loses nothing. By the limits of item 3 nothing overflows, what is denormal errs
//     by 2^-149 beside a slack of 2^-119, and a sum that is not a number keeps its row.
#pragma once

#include <cmath>
#include <cstdint>

#include "topk.h"

#ifndef XMR_EMULATED
#include <cuda_fp16.h>
#endif

namespace xmr {

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffU;
constexpr int THREADS = 256;  // of a block, in every kernel
constexpr int WARPS = THREADS / WARP;
constexpr int MAX_K = 2048;             // what `sort` holds in shared memory
constexpr int SCAN_QUERIES = 8;         // more are multiplied tile by tile
constexpr int SHARED_BYTES = 48 << 10;  // what a block may have on every GPU without asking
constexpr int RESCORE_BLOCKS = 16;      // of a query
constexpr float MIN_SCALE = 0x1p-100F;
constexpr float MAX_NORM = 0x1p110F;

struct alignas(16) CodeBound {
    float scale;     // s
    float residual;  // e
    float norm;      // n
    float unused;
};

// Rows or queries: row i has its codes at codes + i * stride, zeros after the last dimension.
struct DeviceCodes {
    uint4* codes;
    CodeBound* bounds;
    std::int64_t stride;  // in uint4
};

// Between `append` and `tighten` lower holds <a, c>; after `rescore` both bounds are the score.
struct Candidate {
    double lower;
    double upper;
    std::int64_t row;
};

struct Hit {
    double score;
    std::int64_t row;
};

struct Progress {
    int has_overflowed;  // 1 where a buffer was too small for the candidates of the slab
    int found;           // the largest number that `tighten` saw for a query, perhaps beyond the capacity
    int kept;            // the largest number that it left
};

struct Search {
    const float* gallery_rows;  // (n_rows, dim)
    const float* query_rows;    // (n_queries, dim)
    DeviceCodes gallery;
    DeviceCodes queries;
    const std::uint32_t* allowed;  // a bit a row, or null: every row may be returned
    Candidate* candidates;         // (n_queries, capacity)
    int* counts;                   // (n_queries) appended, perhaps beyond the capacity
    int* kept;                     // (n_queries) of them known before this slab
    Hit* thresholds;               // (n_queries) the k-th best lower bound: what is worse is not among the k best
    Progress* progress;
    std::int64_t dim;
    int n_queries;
    int capacity;
    int k;
};

struct Slab {
    std::int64_t first;  // a multiple of TILE
    std::int64_t last;   // one past
};

__device__ inline int lane_index() { return threadIdx.x % WARP; }
__device__ inline int warp_index() { return threadIdx.x / WARP; }

template <typename Shared>
__device__ Shared& shared_memory() {
    extern __shared__ uint4 dynamic_shared[];
    return *reinterpret_cast<Shared*>(dynamic_shared);
}

// The two codings: how a value becomes a code, and how codes are multiplied.

struct Int8 {
    using Sum = int;
    using Code = std::int8_t;
    __device__ static float scale(float largest) { return largest / 127; }
    __device__ static float round(float value) { return rintf(value); }
    __device__ static Code code(float rounded) { return static_cast<Code>(rounded); }
    __device__ static double sum_error(std::int64_t) { return 0; }

    __device__ static int dot(unsigned a, unsigned b, int sum) {
#ifdef XMR_EMULATED
        for (int shift = 0; shift < 32; shift += 8)
            sum += static_cast<Code>(a >> shift) * static_cast<Code>(b >> shift);
        return sum;
#else
        return __dp4a(static_cast<int>(a), static_cast<int>(b), sum);
#endif
    }
};

struct Float16 {
    using Sum = float;
    using Code = unsigned short;
    __device__ static float scale(float largest) { return __uint_as_float(__float_as_uint(largest) & 0x7f800000U); }
    __device__ static float round(float value) { return __half2float(__float2half_rn(value)); }
    __device__ static Code code(float rounded) { return __half_as_ushort(__float2half_rn(rounded)); }
    __device__ static double sum_error(std::int64_t dim) { return static_cast<double>(dim + 64) * 0x1p-21; }

    __device__ static float value(unsigned bits) { return __half2float(__ushort_as_half(static_cast<Code>(bits))); }
    __device__ static float dot(unsigned a, unsigned b, float sum) {
        sum = fmaf(value(a & 0xffffU), value(b & 0xffffU), sum);
        return fmaf(value(a >> 16), value(b >> 16), sum);
    }
};

template <typename Coding>
__device__ typename Coding::Sum dot(const uint4& a, const uint4& b, typename Coding::Sum sum) {
    sum = Coding::dot(a.x, b.x, sum);
    sum = Coding::dot(a.y, b.y, sum);
    sum = Coding::dot(a.z, b.z, sum);
    return Coding::dot(a.w, b.w, sum);
}

// sums += a b', 16 queries by 8 rows, 32 bytes deep. Lane 4 g + t holds of a the words t and t + 4 of the queries g and
// g + 8 (a[0]: g, t; a[1]: g + 8, t; a[2]: g, t + 4; a[3]: g + 8, t + 4), of b the words t and t + 4 of row g, and
// of the sums queries g and g + 8 against the rows 2 t and 2 t + 1.
#ifdef XMR_EMULATED
template <typename Coding>
void multiply(typename Coding::Sum (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    struct Fragment {
        unsigned a[4], b[2];
    };
    const auto fragments = emulation::exchange(Fragment{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}});
    const int g = lane_index() / 4, t = lane_index() % 4;
    for (int i = 0; i < 4; ++i)
        for (int word = 0; word < 8; ++word) {
            const Fragment& query = fragments[4 * g + word % 4];
            const Fragment& row = fragments[4 * (2 * t + i % 2) + word % 4];
            sums[i] = Coding::dot(query.a[i / 2 + word / 4 * 2], row.b[word / 4], sums[i]);
        }
}
#else
template <typename Coding>
__device__ void multiply(typename Coding::Sum (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]);

template <>
__device__ inline void multiply<Int8>(int (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
#pragma unroll
    for (int i = 0; i < 4; ++i)
        asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
                     : "+r"(sums[i % 2 * 2]), "+r"(sums[i % 2 * 2 + 1])
                     : "r"(a[i]), "r"(b[i / 2]));
#endif
}

template <>
__device__ inline void multiply<Float16>(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
#pragma unroll
    for (int i = 0; i < 2; ++i)
        asm volatile(
            "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
            : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
            : "r"(a[2 * i]), "r"(a[2 * i + 1]), "r"(b[i]));
#endif
}
#endif

__device__ inline double warp_sum(double value) {
    for (int offset = WARP / 2; offset; offset /= 2) value += __shfl_xor_sync(ALL_LANES, value, offset);
    return value;
}

__device__ inline float norm_above(double squares) {
    const float norm = fmaxf(__double2float_ru(sqrt(squares) * (1 + 0x1p-20)), MIN_SCALE);
    return norm > MAX_NORM ? INFINITY : norm;
}

// A warp a row.
template <typename Coding>
__global__ void __launch_bounds__(THREADS)
    encode(const float* rows, std::int64_t n_rows, std::int64_t dim, DeviceCodes out) {
    const std::int64_t row = std::int64_t{blockIdx.x} * WARPS + warp_index();
    if (row >= n_rows) return;
    const float* values = rows + row * dim;
    float largest = 0;
    for (std::int64_t d = lane_index(); d < dim; d += WARP) largest = fmaxf(largest, fabsf(values[d]));
    for (int offset = WARP / 2; offset; offset /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, offset));
    float scale = Coding::scale(largest);
    if (scale < MIN_SCALE) scale = 0;

    auto* codes = reinterpret_cast<typename Coding::Code*>(out.codes + row * out.stride);
    const std::int64_t n_codes = out.stride * static_cast<int>(sizeof(uint4) / sizeof(*codes));
    double squares = 0, residual_squares = 0;
    for (std::int64_t d = lane_index(); d < n_codes; d += WARP) {
        const float value = d < dim ? values[d] : 0;
        const float rounded = scale > 0 ? Coding::round(value / scale) : 0;
        const double residual = value - static_cast<double>(scale) * rounded;
        codes[d] = Coding::code(rounded);
        squares += static_cast<double>(value) * value;
        residual_squares += residual * residual;
    }
    squares = warp_sum(squares);
    residual_squares = warp_sum(residual_squares);
    if (lane_index() == 0) out.bounds[row] = {scale, norm_above(residual_squares), norm_above(squares), 0};
}

// In the order of the answer: score down, row up.
__host__ __device__ inline bool is_worse(double score, std::int64_t row, const Hit& threshold) {
    return score < threshold.score || (score == threshold.score && row > threshold.row);
}

struct QueryNorms {
    double codes;     // N
    double residual;  // E
};

template <typename Coding>
__device__ QueryNorms query_norms(const CodeBound& query, std::int64_t dim) {
    const double codes = static_cast<double>(query.norm) + query.residual;
    return {codes, query.residual + SLACK * query.norm + Coding::sum_error(dim) * codes};
}

template <typename Coding>
__device__ Candidate interval(const Search& search, int query, std::int64_t row, double sum) {
    const CodeBound q = search.queries.bounds[query];
    const CodeBound x = search.gallery.bounds[row];
    const QueryNorms norms = query_norms<Coding>(q, search.dim);
    const double middle = static_cast<double>(q.scale) * x.scale * sum;
    const double width = norms.codes * x.residual + norms.residual * x.norm;
    if (!(width < INFINITY)) return {-INFINITY, INFINITY, row};
    return {middle - width, middle + width, row};
}

// The test in float, in units of the query's scale.
struct alignas(16) Filter {
    float threshold;
    float codes;
    float residual;
    float unused;

    __device__ bool keeps(const CodeBound& row, float sum) const {
        return !(row.scale * sum + (codes * row.residual + residual * row.norm) < threshold);
    }
};

template <typename Coding>
__device__ Filter make_filter(const Search& search, int query) {
    const CodeBound bound = search.queries.bounds[query];
    const QueryNorms norms = query_norms<Coding>(bound, search.dim);
    if (bound.scale == 0) return {-INFINITY, 0, 0, 0};  // without codes there is nothing to tell rows apart
    const double widened = (1 + 0x1p-20) / bound.scale;
    return {__double2float_rd(search.thresholds[query].score / bound.scale), __double2float_ru(norms.codes * widened),
            __double2float_ru((norms.residual + 0x1p-19 * norms.codes) * widened), 0};
}

__device__ inline bool is_allowed(const Search& search, std::int64_t row) {
    return !search.allowed || (search.allowed[row / 32] >> (row % 32) & 1U);
}

// All lanes of a warp call this together; those of the same query share one addition to its count.
__device__ inline void append(const Search& search, bool is_candidate, int query, std::int64_t row, double sum) {
    if (!__any_sync(ALL_LANES, is_candidate)) return;
    const unsigned same = __match_any_sync(ALL_LANES, is_candidate ? query : -1);
    const int leader = __ffs(same) - 1;
    int place = 0;
    if (is_candidate && lane_index() == leader) {
        place = atomicAdd(&search.counts[query], __popc(same));
        if (place + __popc(same) > search.capacity) atomicMax(&search.progress->has_overflowed, 1);
    }
    place = __shfl_sync(ALL_LANES, place, leader) + __popc(same & ((1U << lane_index()) - 1));
    if (is_candidate && place < search.capacity)
        search.candidates[std::int64_t{query} * search.capacity + place] = {sum, sum, row};
}

// A thread a row: 32 flags become the bits of a word.
__global__ void __launch_bounds__(THREADS) pack(const std::uint8_t* flags, std::int64_t n_rows, std::uint32_t* bits) {
    const std::int64_t row = std::int64_t{blockIdx.x} * THREADS + threadIdx.x;
    const unsigned word = __ballot_sync(ALL_LANES, row < n_rows && flags[row]);
    if (lane_index() == 0 && row < n_rows) bits[row / 32] = word;
}

__global__ void __launch_bounds__(THREADS) begin(Search search) {
    const int query = static_cast<int>(blockIdx.x * THREADS + threadIdx.x);
    if (query >= search.n_queries) return;
    search.counts[query] = search.kept[query] = 0;
    search.thresholds[query] = {-INFINITY, INT64_MAX};
}

// Adds up N sums over the lanes of a warp; lane l receives the one of index l / (WARP / N). Each exchange leaves half
// as many sums, so that all together cost little more than one.
template <int N, int OFFSET = WARP / 2, int SIZE, typename Sum>
__device__ Sum reduce(Sum (&sums)[SIZE]) {
    if constexpr (OFFSET == 0) {
        return sums[0];
    } else if constexpr (N == 1) {
        sums[0] += __shfl_xor_sync(ALL_LANES, sums[0], OFFSET);
        return reduce<1, OFFSET / 2>(sums);
    } else {
        const bool is_upper = lane_index() & OFFSET;
#pragma unroll
        for (int i = 0; i < N / 2; ++i) {
            const Sum given = is_upper ? sums[i] : sums[i + N / 2];
            const Sum kept = is_upper ? sums[i + N / 2] : sums[i];
            sums[i] = kept + __shfl_xor_sync(ALL_LANES, given, OFFSET);
        }
        return reduce<N / 2, OFFSET / 2>(sums);
    }
}

template <int ROWS>
__device__ unsigned allowed_bits(const Search& search, std::int64_t first) {
    constexpr unsigned ALL_ROWS = (1U << ROWS) - 1;
    return search.allowed ? search.allowed[first / 32] >> (first % 32) & ALL_ROWS : ALL_ROWS;
}

// As many as there are registers for: 8 loads on their way, or 32 sums.
__host__ __device__ constexpr int rows_of_warp(int queries) { return queries == 1 ? 8 : 4; }

// Up to QUERIES queries, whose codes stay in shared memory; a warp takes a few rows at a time.
template <typename Coding, int QUERIES>
__global__ void __launch_bounds__(THREADS) scan(Search search, Slab slab) {
    constexpr int ROWS = rows_of_warp(QUERIES);
    constexpr int LANES_OF_SUM = WARP / (ROWS * QUERIES);
    const int stride = static_cast<int>(search.queries.stride);
    uint4* queries = &shared_memory<uint4>();
    for (int i = threadIdx.x; i < QUERIES * stride; i += THREADS)
        queries[i] = i < search.n_queries * stride ? search.queries.codes[i] : uint4{0, 0, 0, 0};
    __syncthreads();

    const int my_sum = lane_index() / LANES_OF_SUM;
    const int my_query = my_sum % QUERIES, my_row = my_sum / QUERIES;
    const bool is_asked = lane_index() % LANES_OF_SUM == 0 && my_query < search.n_queries;
    const Filter filter = make_filter<Coding>(search, min(my_query, search.n_queries - 1));
    const std::int64_t step = std::int64_t{gridDim.x} * WARPS * ROWS;
    for (std::int64_t first = slab.first + (std::int64_t{blockIdx.x} * WARPS + warp_index()) * ROWS; first < slab.last;
         first += step) {
        const unsigned allowed = allowed_bits<ROWS>(search, first);
        if (!allowed) continue;
        const std::int64_t row = first + my_row;
        const CodeBound bound = search.gallery.bounds[row < slab.last ? row : slab.last - 1];
        typename Coding::Sum sums[ROWS * QUERIES] = {};
        for (int chunk = lane_index(); chunk < stride; chunk += WARP) {
            uint4 codes[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; ++r)
                codes[r] = search.gallery.codes[(first + r < slab.last ? first + r : slab.last - 1) * stride + chunk];
#pragma unroll
            for (int q = 0; q < QUERIES; ++q) {
                const uint4 query = queries[q * stride + chunk];
#pragma unroll
                for (int r = 0; r < ROWS; ++r)
                    sums[r * QUERIES + q] = dot<Coding>(codes[r], query, sums[r * QUERIES + q]);
            }
        }
        const auto sum = reduce<ROWS * QUERIES>(sums);
        const bool is_found = is_asked && row < slab.last && (allowed >> my_row & 1U);
        append(search, is_found && filter.keeps(bound, static_cast<float>(sum)), my_query, row, sum);
    }
}

constexpr int TILE = 128;                    // queries and rows of a block; each of its 2 x 4 warps has 64 by 32
constexpr int TILE_DEPTH = 4;                // uint4 of every row and query in shared memory at a time
constexpr int TILE_STRIDE = TILE_DEPTH + 1;  // the eight rows that a load touches lie in different banks
constexpr int TILE_LOADS = TILE * TILE_DEPTH / THREADS;
constexpr int FRAGMENTS = 4;  // of 16 queries, and of 8 rows, in a warp

struct TileStage {
    uint4 queries[TILE][TILE_STRIDE];
    uint4 rows[TILE][TILE_STRIDE];
};

struct TileShared {
    TileStage stages[2];  // one is read while the next is written
    Filter filters[TILE];
    CodeBound bounds[TILE];
};
static_assert(sizeof(TileShared) <= SHARED_BYTES);

// What one thread carries from global to shared memory.
struct TileLoad {
    uint4 queries[TILE_LOADS];
    uint4 rows[TILE_LOADS];
};

struct Tile {
    int first_query;
    std::int64_t first_row;
    std::int64_t last_row;
};

__device__ inline bool is_empty(const Search& search, const Tile& tile) {
    if (!search.allowed) return false;
    for (std::int64_t row = tile.first_row; row < tile.last_row; row += 32)
        if (search.allowed[row / 32]) return false;
    return true;
}

__device__ inline TileLoad load(const Search& search, const Tile& tile, int depth) {
    TileLoad loaded;
#pragma unroll
    for (int i = 0; i < TILE_LOADS; ++i) {
        const int place = i * THREADS + static_cast<int>(threadIdx.x);
        const std::int64_t chunk = depth + place % TILE_DEPTH;
        const std::int64_t row = tile.first_row + place / TILE_DEPTH;
        const std::int64_t query = min(tile.first_query + place / TILE_DEPTH, search.n_queries - 1);
        const bool is_inside = chunk < search.gallery.stride;
        const std::int64_t present = row < tile.last_row ? row : tile.last_row - 1;
        loaded.rows[i] = is_inside ? search.gallery.codes[present * search.gallery.stride + chunk] : uint4{0, 0, 0, 0};
        loaded.queries[i] = is_inside ? search.queries.codes[query * search.gallery.stride + chunk] : uint4{0, 0, 0, 0};
    }
    return loaded;
}

__device__ inline void store(const TileLoad& loaded, TileStage& stage) {
#pragma unroll
    for (int i = 0; i < TILE_LOADS; ++i) {
        const int place = i * THREADS + static_cast<int>(threadIdx.x);
        stage.rows[place / TILE_DEPTH][place % TILE_DEPTH] = loaded.rows[i];
        stage.queries[place / TILE_DEPTH][place % TILE_DEPTH] = loaded.queries[i];
    }
}

// Where in its tile a fragment of this warp begins.
__device__ inline int fragment_query(int fragment) { return warp_index() / 4 * (TILE / 2) + fragment * 16; }
__device__ inline int fragment_row(int fragment) { return warp_index() % 4 * (TILE / 4) + fragment * 8; }
__device__ inline unsigned word(const uint4 (&codes)[TILE_STRIDE], int i) {
    return reinterpret_cast<const unsigned*>(codes)[i];
}

template <typename Coding>
__device__ void multiply_stage(const TileStage& stage, typename Coding::Sum (&sums)[FRAGMENTS][FRAGMENTS][4]) {
    const int g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
    for (int depth = 0; depth < 4 * TILE_DEPTH; depth += 8) {
        unsigned b[FRAGMENTS][2];
#pragma unroll
        for (int j = 0; j < FRAGMENTS; ++j)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                b[j][half] = word(stage.rows[fragment_row(j) + g], depth + 4 * half + t);
#pragma unroll
        for (int i = 0; i < FRAGMENTS; ++i) {
            const auto& upper = stage.queries[fragment_query(i) + g];
            const auto& lower = stage.queries[fragment_query(i) + g + 8];
            const unsigned a[4] = {word(upper, depth + t), word(lower, depth + t), word(upper, depth + t + 4),
                                   word(lower, depth + t + 4)};
#pragma unroll
            for (int j = 0; j < FRAGMENTS; ++j) multiply<Coding>(sums[i][j], a, b[j]);
        }
    }
}

template <typename Sum>
__device__ void append_tile(const Search& search, const Tile& tile, const TileShared& shared,
                            const Sum (&sums)[FRAGMENTS][FRAGMENTS][4]) {
#pragma unroll
    for (int j = 0; j < 2 * FRAGMENTS; ++j) {
        const int row = fragment_row(j / 2) + lane_index() % 4 * 2 + j % 2;
        const CodeBound bound = shared.bounds[row];
        const bool is_found = tile.first_row + row < tile.last_row && is_allowed(search, tile.first_row + row);
#pragma unroll
        for (int i = 0; i < 2 * FRAGMENTS; ++i) {
            const int query = fragment_query(i / 2) + lane_index() / 4 + i % 2 * 8;
            const Sum sum = sums[i / 2][j / 2][i % 2 * 2 + j % 2];
            const bool is_candidate = is_found && tile.first_query + query < search.n_queries &&
                                      shared.filters[query].keeps(bound, static_cast<float>(sum));
            append(search, is_candidate, tile.first_query + query, tile.first_row + row, sum);
        }
    }
}

// Block b: the tiles of queries first, so that a tile of rows is read from memory once.
template <typename Coding>
__global__ void __launch_bounds__(THREADS, 2) multiply_tile(Search search, Slab slab) {
    const int n_query_tiles = (search.n_queries + TILE - 1) / TILE;
    const std::int64_t first_row = slab.first + std::int64_t{blockIdx.x / n_query_tiles} * TILE;
    const Tile tile{static_cast<int>(blockIdx.x % n_query_tiles) * TILE, first_row,
                    first_row + TILE < slab.last ? first_row + TILE : slab.last};
    if (is_empty(search, tile)) return;

    auto& shared = shared_memory<TileShared>();
    const int place = threadIdx.x % TILE;
    if (threadIdx.x < TILE)
        shared.filters[place] = make_filter<Coding>(search, min(tile.first_query + place, search.n_queries - 1));
    else if (first_row + place < tile.last_row)
        shared.bounds[place] = search.gallery.bounds[first_row + place];

    typename Coding::Sum sums[FRAGMENTS][FRAGMENTS][4] = {};
    const int stride = static_cast<int>(search.gallery.stride);
    store(load(search, tile, 0), shared.stages[0]);
    __syncthreads();
    for (int depth = 0, stage = 0; depth < stride; depth += TILE_DEPTH, stage ^= 1) {
        const TileLoad next = load(search, tile, depth + TILE_DEPTH);
        multiply_stage<Coding>(shared.stages[stage], sums);
        store(next, shared.stages[stage ^ 1]);
        __syncthreads();
    }
    append_tile(search, tile, shared, sums);
}

using Key = unsigned __int128;  // larger is better: the score, then the smaller row
constexpr int DIGIT_BITS = 8;
constexpr int DIGITS = 1 << DIGIT_BITS;  // one a thread
static_assert(DIGITS == THREADS);

struct TightenShared {
    int histogram[DIGITS];
    int digit;  // of the k-th best among those that share its digits so far
    int rank;   // its place among those that share this digit too, from 1
    int n_sharing;
    int n_kept;
    Hit kth;
};

__device__ inline Key key(double score, std::int64_t row) {
    const auto bits = static_cast<std::uint64_t>(__double_as_longlong(score));
    const std::uint64_t ordered = bits >> 63 ? ~bits : bits | std::uint64_t{1} << 63;
    return Key{ordered} << 64 | ~static_cast<std::uint64_t>(row);
}

// One warp: the digit of the rank-th candidate, counted from the largest digit.
__device__ inline void find_digit(TightenShared& shared, int rank) {
    constexpr int BINS = DIGITS / WARP;
    const int first = DIGITS - BINS * (lane_index() + 1);
    int n_mine = 0;
    for (int i = 0; i < BINS; ++i) n_mine += shared.histogram[first + i];
    int n_to_here = n_mine;
    for (int offset = 1; offset < WARP; offset *= 2) {
        const int n_before = __shfl_up_sync(ALL_LANES, n_to_here, offset);
        if (lane_index() >= offset) n_to_here += n_before;
    }
    int n_above = n_to_here - n_mine;
    if (rank <= n_above || rank > n_to_here) return;
    int digit = first + BINS - 1;
    while (rank > n_above + shared.histogram[digit]) n_above += shared.histogram[digit--];
    shared.digit = digit;
    shared.rank = rank - n_above;
    shared.n_sharing = shared.histogram[digit];
}

// The k-th best of n >= k candidates by lower bound: digit by digit, until one candidate is left.
__device__ inline Hit kth_best(const Candidate* candidates, int n, int k, TightenShared& shared) {
    Key prefix = 0;
    int shift = 8 * static_cast<int>(sizeof(Key));
    int rank = k;
    do {
        shift -= DIGIT_BITS;
        shared.histogram[threadIdx.x] = 0;
        __syncthreads();
        for (int i = threadIdx.x; i < n; i += THREADS) {
            const Key digits = key(candidates[i].lower, candidates[i].row) >> shift;
            if (digits >> DIGIT_BITS == prefix) atomicAdd(&shared.histogram[static_cast<int>(digits % DIGITS)], 1);
        }
        __syncthreads();
        if (warp_index() == 0) find_digit(shared, rank);
        __syncthreads();
        prefix = prefix << DIGIT_BITS | static_cast<unsigned>(shared.digit);
        rank = shared.rank;
    } while (shared.n_sharing > 1);
    for (int i = threadIdx.x; i < n; i += THREADS)
        if (key(candidates[i].lower, candidates[i].row) >> shift == prefix)
            shared.kth = {candidates[i].lower, candidates[i].row};
    __syncthreads();
    return shared.kth;
}

// Moves the candidates that are not worse than the threshold to the front; their number.
__device__ inline int compact(Candidate* candidates, int n, const Hit& threshold, TightenShared& shared) {
    if (threadIdx.x == 0) shared.n_kept = 0;
    for (int first = 0; first < n; first += THREADS) {
        const int i = first + static_cast<int>(threadIdx.x);
        const Candidate candidate = candidates[min(i, n - 1)];
        __syncthreads();  // a place may be written once everyone has read theirs
        if (i < n && !is_worse(candidate.upper, candidate.row, threshold))
            candidates[atomicAdd(&shared.n_kept, 1)] = candidate;
    }
    __syncthreads();
    return n ? shared.n_kept : 0;
}

// A block a query.
template <typename Coding>
__global__ void __launch_bounds__(THREADS) tighten(Search search) {
    auto& shared = shared_memory<TightenShared>();
    const int query = blockIdx.x;
    Candidate* candidates = search.candidates + std::int64_t{query} * search.capacity;
    const int n = min(search.counts[query], search.capacity);
    const int n_known = search.kept[query];
    for (int i = n_known + static_cast<int>(threadIdx.x); i < n; i += THREADS)
        candidates[i] = interval<Coding>(search, query, candidates[i].row, candidates[i].lower);
    Hit threshold = search.thresholds[query];
    __syncthreads();
    if (n >= search.k) {
        const Hit kth = kth_best(candidates, n, search.k, shared);
        if (!is_worse(kth.score, kth.row, threshold)) threshold = kth;
    }
    // A slab that overflowed a buffer is scanned again. What it appended may raise thresholds, but does not stay.
    const int n_staying = search.progress->has_overflowed ? n_known : n;
    const int n_kept = compact(candidates, n_staying, threshold, shared);
    if (threadIdx.x > 0) return;
    atomicMax(&search.progress->found, search.counts[query]);
    search.counts[query] = search.kept[query] = n_kept;
    search.thresholds[query] = threshold;
    atomicMax(&search.progress->kept, n_kept);
}

// A warp a candidate, RESCORE_BLOCKS blocks a query. The sum is that of topk.h, lane by lane. All rows of a buffer are
// scored: to go by upper bound and stop at the k-th score, as the CPU does, they would have to be sorted first, and
// each score would wait for the one before it.
__global__ void __launch_bounds__(THREADS) rescore(Search search) {
    const int query = blockIdx.x / RESCORE_BLOCKS;
    const int first = static_cast<int>(blockIdx.x % RESCORE_BLOCKS) * WARPS + warp_index();
    const float* query_row = search.query_rows + query * search.dim;
    for (int i = first; i < search.counts[query]; i += RESCORE_BLOCKS * WARPS) {
        Candidate& candidate = search.candidates[std::int64_t{query} * search.capacity + i];
        if (candidate.lower == candidate.upper) continue;
        const float* gallery_row = search.gallery_rows + candidate.row * search.dim;
        double sum = 0;
        for (std::int64_t d = lane_index(); d < search.dim; d += WARP)
            sum += static_cast<double>(query_row[d]) * gallery_row[d];
        sum = warp_sum(sum);
        if (lane_index() == 0) candidate.lower = candidate.upper = sum;
    }
}

// Sorts the at most k candidates that are left, all of them scored: a bitonic network over a power of two of places.
__global__ void __launch_bounds__(THREADS) sort(Search search, Hit* hits) {
    Hit* places = &shared_memory<Hit>();
    const int query = blockIdx.x;
    const int n = search.counts[query];
    int size = 1;
    while (size < n) size *= 2;
    for (int i = threadIdx.x; i < size; i += THREADS) {
        const Candidate* candidate = search.candidates + std::int64_t{query} * search.capacity + i;
        places[i] = i < n ? Hit{candidate->lower, candidate->row} : Hit{-INFINITY, INT64_MAX};
    }
    for (int width = 2; width <= size; width *= 2)
        for (int distance = width / 2; distance; distance /= 2) {
            __syncthreads();
            for (int pair = threadIdx.x; pair < size / 2; pair += THREADS) {
                const int i = 2 * pair - pair % distance;
                Hit& one = places[i];
                Hit& other = places[i + distance];
                if (is_worse(one.score, one.row, other) == ((i & width) == 0)) {
                    const Hit moved = one;
                    one = other;
                    other = moved;
                }
            }
        }
    __syncthreads();
    for (int i = threadIdx.x; i < search.k; i += THREADS)
        hits[std::int64_t{query} * search.k + i] = i < n ? places[i] : Hit{-INFINITY, -1};
}

}  // namespace xmr
