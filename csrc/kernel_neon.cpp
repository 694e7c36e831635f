// NEON with the dot product instructions of Armv8.2: 16 products of bytes, added in fours to 4 lanes.
#if defined(__aarch64__) && defined(__linux__)
#include <arm_neon.h>
#include <sys/auxv.h>

#include "portable.h"

#define XMR_DOTPROD [[gnu::target("arch=armv8.2-a+dotprod")]]

namespace xmr {
namespace {

bool is_usable() {
    constexpr unsigned long ASIMDDP = 1UL << 20;  // HWCAP_ASIMDDP
    return (getauxval(AT_HWCAP) & ASIMDDP) != 0;
}

// One query against one block. Codes are stored as code + 128; with the high bit flipped they are signed, and what
// `offset` takes off is put back.
XMR_DOTPROD void multiply_one(const std::int8_t* query, const std::uint8_t* block, std::int64_t dim,
                              std::int32_t* dots) {
    int32x4_t sums[4] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
    int32x4_t query_sum = vdupq_n_s32(0);
    const std::int64_t n_dim_groups = (dim + GROUP_DIMS - 1) / GROUP_DIMS;
    for (std::int64_t g = 0; g < n_dim_groups; ++g) {
        std::int32_t group;
        std::memcpy(&group, query + g / 16 * TILE_BYTES + g % 16 * GROUP_DIMS, sizeof group);
        const int8x16_t codes = vreinterpretq_s8_s32(vdupq_n_s32(group));
        query_sum = vdotq_s32(query_sum, codes, vdupq_n_s8(1));
        for (int part = 0; part < 4; ++part) {
            const uint8x16_t bytes = veorq_u8(vld1q_u8(block + g * 64 + part * 16), vdupq_n_u8(128));
            sums[part] = vdotq_s32(sums[part], vreinterpretq_s8_u8(bytes), codes);
        }
    }
    for (int part = 0; part < 4; ++part) vst1q_s32(dots + part * 4, vaddq_s32(sums[part], vshlq_n_s32(query_sum, 7)));
}

void multiply(const Product& p) {
    for (std::int64_t group = 0; group < p.n_groups; ++group)
        for (std::int64_t block = 0; block < p.n_blocks; ++block)
            for (std::int64_t q = 0; q < std::min(GROUP_QUERIES, p.n_queries - group * GROUP_QUERIES); ++q)
                multiply_one(group_codes(p, group) + q * TILE_DIMS, p.blocks[block], p.dim,
                             p.dots + (group * p.n_blocks + block) * TILE_DOTS + q * BLOCK_ROWS);
}

bool select(const std::int32_t* dots, const QueryBounds& queries, const BlockBound& block, std::uint16_t* hits) {
    return select_loop(dots, queries, block, hits);
}

double score(const double* query, const float* row, std::int64_t dim) { return score_loop(query, row, dim); }

void encode_blocks(const EncodeArguments& arguments, std::int64_t first_block, std::int64_t last_block) {
    encode_blocks_loop(arguments, first_block, last_block);
}

}  // namespace

const Kernel NEON{"neon", is_usable, nullptr, nullptr, multiply, select, score, encode_blocks};

}  // namespace xmr
#endif
