// AVX2: bytes widened to 16 bits, because its own product of bytes saturates.
#if defined(__x86_64__)
#include <immintrin.h>

#include "portable.h"
#include "x86.h"

#define XMR_AVX2 [[gnu::target("avx2,fma")]]

namespace xmr {
namespace {

bool is_usable() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

// Queries against one block, 8 rows in each half. A group of four codes becomes the two even and the two odd ones.
template <int QUERIES>
XMR_AVX2 void multiply_some(const std::int8_t* queries, const std::uint8_t* block, std::int64_t dim,
                            std::int32_t* dots) {
    __m256i sums[QUERIES][2];
#pragma GCC unroll 4
    for (int q = 0; q < QUERIES; ++q) sums[q][0] = sums[q][1] = _mm256_setzero_si256();
    const std::int64_t n_dim_groups = (dim + GROUP_DIMS - 1) / GROUP_DIMS;
    for (std::int64_t g = 0; g < n_dim_groups; ++g) {
        const std::int8_t* at = queries + g / 16 * TILE_BYTES + g % 16 * GROUP_DIMS;
        const auto* rows = reinterpret_cast<const __m256i*>(block + g * 64);
        const __m256i low_bytes = _mm256_set1_epi16(0xff);
        const __m256i even[2] = {_mm256_and_si256(_mm256_loadu_si256(rows), low_bytes),
                                 _mm256_and_si256(_mm256_loadu_si256(rows + 1), low_bytes)};
        const __m256i odd[2] = {_mm256_srli_epi16(_mm256_loadu_si256(rows), 8),
                                _mm256_srli_epi16(_mm256_loadu_si256(rows + 1), 8)};
#pragma GCC unroll 4
        for (int q = 0; q < QUERIES; ++q) {
            const __m256i query = _mm256_set1_epi32(load_group(at + q * TILE_DIMS));
            const __m256i even_codes = _mm256_srai_epi16(_mm256_slli_epi16(query, 8), 8);
            const __m256i odd_codes = _mm256_srai_epi16(query, 8);
#pragma GCC unroll 2
            for (int half = 0; half < 2; ++half) {
                sums[q][half] = _mm256_add_epi32(sums[q][half], _mm256_madd_epi16(even[half], even_codes));
                sums[q][half] = _mm256_add_epi32(sums[q][half], _mm256_madd_epi16(odd[half], odd_codes));
            }
        }
    }
#pragma GCC unroll 4
    for (int q = 0; q < QUERIES; ++q)
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half)
            _mm256_store_si256(reinterpret_cast<__m256i*>(dots + q * BLOCK_ROWS + half * 8), sums[q][half]);
}

using MultiplySome = void (*)(const std::int8_t*, const std::uint8_t*, std::int64_t, std::int32_t*);
constexpr std::int64_t QUERIES_AT_ONCE = 4;
constexpr MultiplySome MULTIPLY[QUERIES_AT_ONCE] = {multiply_some<1>, multiply_some<2>, multiply_some<3>,
                                                    multiply_some<4>};

void multiply(const Product& p) {
    for (std::int64_t group = 0; group < p.n_groups; ++group)
        for (std::int64_t block = 0; block < p.n_blocks; ++block) {
            const std::int64_t n = std::min(GROUP_QUERIES, p.n_queries - group * GROUP_QUERIES);
            std::int32_t* dots = p.dots + (group * p.n_blocks + block) * TILE_DOTS;
            for (std::int64_t q = 0; q < n; q += QUERIES_AT_ONCE)
                MULTIPLY[std::min(QUERIES_AT_ONCE, n - q) - 1](group_codes(p, group) + q * TILE_DIMS, p.blocks[block],
                                                               p.dim, dots + q * BLOCK_ROWS);
        }
}

XMR_AVX2 bool select(const std::int32_t* dots, const QueryBounds& queries, const BlockBound& block,
                     std::uint16_t* hits) {
    return select_loop(dots, queries, block, hits);
}

XMR_AVX2 double score(const double* query, const float* row, std::int64_t dim) {
    __m256d sums[8];
    for (auto& sum : sums) sum = _mm256_setzero_pd();
    std::int64_t d = 0;
    for (; d + LANES <= dim; d += LANES)
#pragma GCC unroll 8
        for (int part = 0; part < 8; ++part)
            sums[part] = _mm256_fmadd_pd(_mm256_loadu_pd(query + d + part * 4),
                                         _mm256_cvtps_pd(_mm_loadu_ps(row + d + part * 4)), sums[part]);
    alignas(32) double lanes[LANES];
    for (int part = 0; part < 8; ++part) _mm256_store_pd(lanes + part * 4, sums[part]);
    for (std::int64_t lane = 0; d + lane < dim; ++lane)
        lanes[lane] += query[d + lane] * static_cast<double>(row[d + lane]);
    return halved(lanes);
}

XMR_AVX2 void encode_blocks(const EncodeArguments& arguments, std::int64_t first_block, std::int64_t last_block) {
    encode_blocks_loop(arguments, first_block, last_block);
}

}  // namespace

const Kernel AVX2{"avx2", is_usable, nullptr, nullptr, multiply, select, score, encode_blocks};

}  // namespace xmr
#endif
