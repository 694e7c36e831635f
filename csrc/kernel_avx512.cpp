// AVX-512 with VNNI: 64 products of bytes an instruction, added in fours to 16 lanes, which are the 16 rows of a block.
#if defined(__x86_64__)
#include <immintrin.h>

#include "portable.h"
#include "x86.h"

#define XMR_AVX512 [[gnu::target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,prefer-vector-width=512")]]

namespace xmr {
namespace {

// Queries against blocks, both few enough for their sums to stay in registers.
template <int QUERIES, int BLOCKS>
XMR_AVX512 void multiply_some(const std::int8_t* queries, const std::uint8_t* const* blocks, std::int64_t dim,
                              std::int32_t* dots) {
    __m512i sums[QUERIES][BLOCKS];
#pragma GCC unroll 16
    for (int q = 0; q < QUERIES; ++q)
#pragma GCC unroll 4
        for (int b = 0; b < BLOCKS; ++b) sums[q][b] = _mm512_setzero_si512();
    const std::int64_t n_dim_groups = (dim + GROUP_DIMS - 1) / GROUP_DIMS;
    for (std::int64_t g = 0; g < n_dim_groups; ++g) {
        const std::int8_t* at = queries + g / 16 * TILE_BYTES + g % 16 * GROUP_DIMS;
        __m512i rows[BLOCKS];
#pragma GCC unroll 4
        for (int b = 0; b < BLOCKS; ++b) rows[b] = _mm512_loadu_si512(blocks[b] + g * 64);
#pragma GCC unroll 16
        for (int q = 0; q < QUERIES; ++q) {
            const __m512i query = _mm512_set1_epi32(load_group(at + q * TILE_DIMS));
#pragma GCC unroll 4
            for (int b = 0; b < BLOCKS; ++b) sums[q][b] = _mm512_dpbusd_epi32(sums[q][b], rows[b], query);
        }
    }
#pragma GCC unroll 16
    for (int q = 0; q < QUERIES; ++q)
#pragma GCC unroll 4
        for (int b = 0; b < BLOCKS; ++b) _mm512_store_si512(dots + b * TILE_DOTS + q * BLOCK_ROWS, sums[q][b]);
}

using MultiplySome = void (*)(const std::int8_t*, const std::uint8_t* const*, std::int64_t, std::int32_t*);
constexpr MultiplySome ONE_BLOCK[] = {multiply_some<1, 1>, multiply_some<2, 1>, multiply_some<3, 1>,
                                      multiply_some<4, 1>, multiply_some<5, 1>, multiply_some<6, 1>,
                                      multiply_some<7, 1>, multiply_some<8, 1>};
constexpr MultiplySome TWO_BLOCKS[] = {multiply_some<1, 2>, multiply_some<2, 2>, multiply_some<3, 2>,
                                       multiply_some<4, 2>, multiply_some<5, 2>, multiply_some<6, 2>,
                                       multiply_some<7, 2>, multiply_some<8, 2>};
constexpr MultiplySome FOUR_BLOCKS[] = {multiply_some<1, 4>, multiply_some<2, 4>, multiply_some<3, 4>,
                                        multiply_some<4, 4>};

void multiply(const Product& p) {
    const MultiplySome* some = p.n_blocks == 4 ? FOUR_BLOCKS : p.n_blocks == 2 ? TWO_BLOCKS : ONE_BLOCK;
    const std::int64_t at_once = p.n_blocks == 4 ? 4 : 8;
    for (std::int64_t group = 0; group < p.n_groups; ++group) {
        const std::int64_t n = std::min(GROUP_QUERIES, p.n_queries - group * GROUP_QUERIES);
        std::int32_t* dots = p.dots + group * p.n_blocks * TILE_DOTS;
        for (std::int64_t q = 0; q < n; q += at_once)
            some[std::min(at_once, n - q) - 1](group_codes(p, group) + q * TILE_DIMS, p.blocks, p.dim,
                                               dots + q * BLOCK_ROWS);
    }
}

XMR_AVX512 double score(const double* query, const float* row, std::int64_t dim) {
    __m512d sums[4] = {_mm512_setzero_pd(), _mm512_setzero_pd(), _mm512_setzero_pd(), _mm512_setzero_pd()};
    std::int64_t d = 0;
    for (; d + LANES <= dim; d += LANES)
#pragma GCC unroll 4
        for (int part = 0; part < 4; ++part)
            sums[part] = _mm512_fmadd_pd(_mm512_loadu_pd(query + d + part * 8),
                                         _mm512_cvtps_pd(_mm256_loadu_ps(row + d + part * 8)), sums[part]);
    alignas(64) double lanes[LANES];
    for (int part = 0; part < 4; ++part) _mm512_store_pd(lanes + part * 8, sums[part]);
    for (std::int64_t lane = 0; d + lane < dim; ++lane)
        lanes[lane] += query[d + lane] * static_cast<double>(row[d + lane]);
    return halved(lanes);
}

XMR_AVX512 void encode_blocks(const EncodeArguments& arguments, std::int64_t first_block, std::int64_t last_block) {
    encode_blocks_loop(arguments, first_block, last_block);
}

// The smallest dots that pass, lane by query; a limit that is no number lets every row pass.
XMR_AVX512 __m256i limits_of_half(const QueryBounds& q, const BlockBound& block, int first) {
    const __m512d norm = _mm512_set1_pd(block.norm), residual = _mm512_set1_pd(block.residual);
    const __m512d inverse_scale = _mm512_set1_pd(1 / static_cast<double>(block.scale));
    __m512d limit = _mm512_load_pd(q.needed + first);
    limit = _mm512_sub_pd(limit, _mm512_mul_pd(_mm512_load_pd(q.code_norm + first), residual));
    limit = _mm512_sub_pd(limit, _mm512_mul_pd(_mm512_load_pd(q.residual + first), norm));
    limit = _mm512_mul_pd(_mm512_mul_pd(limit, _mm512_load_pd(q.inverse_scale + first)), inverse_scale);
    limit = _mm512_add_pd(limit, _mm512_load_pd(q.offset + first));
    // towards zero is upwards for negative numbers: hence 2 less instead of 1; what is under the range of int32, or no
    // number, becomes its smallest
    limit = _mm512_min_pd(_mm512_set1_pd(std::numeric_limits<std::int32_t>::max()),
                          _mm512_sub_pd(limit, _mm512_set1_pd(2)));
    return _mm512_cvttpd_epi32(limit);
}

XMR_AVX512 inline __mmask16 passing(const std::int32_t* dots, const std::int32_t* limits, int q) {
    return _mm512_cmpge_epi32_mask(_mm512_load_si512(dots + q * BLOCK_ROWS), _mm512_set1_epi32(limits[q]));
}

}  // namespace

XMR_AVX512 bool select_avx512(const std::int32_t* dots, const QueryBounds& queries, const BlockBound& block,
                              std::uint16_t* hits) {
    alignas(32) std::int32_t limits[GROUP_QUERIES];
    _mm256_store_si256(reinterpret_cast<__m256i*>(limits), limits_of_half(queries, block, 0));
    _mm256_store_si256(reinterpret_cast<__m256i*>(limits + 8), limits_of_half(queries, block, 8));
    __mmask16 any = 0;
#pragma GCC unroll 16
    for (int q = 0; q < GROUP_QUERIES; ++q) any = _kor_mask16(any, passing(dots, limits, q));
    if (_kortestz_mask16_u8(any, any)) return false;
    for (int q = 0; q < GROUP_QUERIES; ++q) hits[q] = passing(dots, limits, q);
    return true;
}

bool has_avx512_vnni() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

const Kernel AVX512_VNNI{"avx512vnni", has_avx512_vnni, nullptr, nullptr,
                         multiply,     select_avx512,   score,   encode_blocks};

}  // namespace xmr
#endif
