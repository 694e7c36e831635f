// AMX: 16 queries x 16 rows x 64 dimensions of bytes an instruction, in tile registers.
#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "kernel.h"
#include "x86.h"

#define XMR_AMX [[gnu::target("amx-tile,amx-int8,xsave")]]

namespace xmr {
namespace {

// The intrinsics of gcc want the registers as digits. 0 to 3 hold the dots, in the order of Product; 4 the queries of
// the first group; 6 and 7 rows; 5 the queries of the second group, or rows. Past the last dimension of a block stands
// the next one: zeros of the queries meet it.
constexpr std::int64_t STRIDE = 64;  // bytes between the rows of every tile, in memory as in the register

struct alignas(64) TileShapes {  // the operand of LDTILECFG: Intel SDM, volume 1, chapter 18
    std::uint8_t palette = 1;
    std::uint8_t start_row = 0;
    std::uint8_t reserved[14] = {};
    std::uint16_t row_bytes[16] = {};
    std::uint8_t n_rows[16] = {};
};

XMR_AMX void begin(std::int64_t n_queries) {
    TileShapes shapes;
    for (int tile = 0; tile < 8; ++tile) {
        shapes.row_bytes[tile] = STRIDE;
        // fewer queries than a tile holds take less time; then there is no second group either
        const bool holds_rows = tile >= 6 || (tile == 5 && n_queries <= GROUP_QUERIES);
        shapes.n_rows[tile] = static_cast<std::uint8_t>(holds_rows ? 16 : std::min<std::int64_t>(n_queries, 16));
    }
    asm volatile("" : : "r"(&shapes) : "memory");  // gcc 12 takes the stores above for dead
    _tile_loadconfig(&shapes);
}

XMR_AMX void end() { _tile_release(); }

template <bool TWO_BLOCKS>
XMR_AMX void multiply_two_groups(const Product& p) {
    const std::int64_t tiles = n_tiles(p.dim);
    _tile_zero(0);
    _tile_zero(2);
    if constexpr (TWO_BLOCKS) _tile_zero(1);
    if constexpr (TWO_BLOCKS) _tile_zero(3);
    for (std::int64_t tile = 0; tile < tiles; ++tile) {
        const std::int64_t at = tile * TILE_BYTES;
        _tile_loadd(6, p.blocks[0] + at, STRIDE);
        _tile_loadd(4, group_codes(p, 0) + at, STRIDE);
        _tile_dpbsud(0, 4, 6);
        _tile_loadd(5, group_codes(p, 1) + at, STRIDE);
        _tile_dpbsud(2, 5, 6);
        if constexpr (TWO_BLOCKS) {
            _tile_loadd(7, p.blocks[1] + at, STRIDE);
            _tile_dpbsud(1, 4, 7);
            _tile_dpbsud(3, 5, 7);
        }
        fetch_ahead(p, tile);
    }
    _tile_stored(0, p.dots, STRIDE);
    if constexpr (TWO_BLOCKS) _tile_stored(1, p.dots + TILE_DOTS, STRIDE);
    _tile_stored(2, p.dots + p.n_blocks * TILE_DOTS, STRIDE);
    if constexpr (TWO_BLOCKS) _tile_stored(3, p.dots + 3 * TILE_DOTS, STRIDE);
}

template <int BLOCKS>
XMR_AMX void multiply_one_group(const Product& p) {
    const std::int64_t tiles = n_tiles(p.dim);
    _tile_zero(0);
    if constexpr (BLOCKS > 1) _tile_zero(1);
    if constexpr (BLOCKS > 2) _tile_zero(2);
    if constexpr (BLOCKS > 2) _tile_zero(3);
    for (std::int64_t tile = 0; tile < tiles; ++tile) {
        const std::int64_t at = tile * TILE_BYTES;
        _tile_loadd(4, group_codes(p, 0) + at, STRIDE);
        _tile_loadd(6, p.blocks[0] + at, STRIDE);
        _tile_dpbsud(0, 4, 6);
        if constexpr (BLOCKS > 1) {
            _tile_loadd(7, p.blocks[1] + at, STRIDE);
            _tile_dpbsud(1, 4, 7);
        }
        if constexpr (BLOCKS > 2) {
            _tile_loadd(5, p.blocks[2] + at, STRIDE);
            _tile_dpbsud(2, 4, 5);
            _tile_loadd(6, p.blocks[3] + at, STRIDE);
            _tile_dpbsud(3, 4, 6);
        }
    }
    _tile_stored(0, p.dots, STRIDE);
    if constexpr (BLOCKS > 1) _tile_stored(1, p.dots + TILE_DOTS, STRIDE);
    if constexpr (BLOCKS > 2) _tile_stored(2, p.dots + 2 * TILE_DOTS, STRIDE);
    if constexpr (BLOCKS > 2) _tile_stored(3, p.dots + 3 * TILE_DOTS, STRIDE);
}

void multiply(const Product& p) {
    constexpr std::int64_t FEW = 4;  // memory is the limit, and plain loads reach it sooner than those of tiles
    if (p.n_queries <= FEW) return AVX512_VNNI.multiply(p);
    if (p.n_groups == 2) return p.n_blocks == 2 ? multiply_two_groups<true>(p) : multiply_two_groups<false>(p);
    if (p.n_blocks == 4) return multiply_one_group<4>(p);
    return p.n_blocks == 2 ? multiply_one_group<2>(p) : multiply_one_group<1>(p);
}

// The processor has it, the system saves the registers, and lets this process use them.
[[gnu::target("xsave")]] bool is_usable() {
    constexpr unsigned AMX_TILE = 1U << 24, AMX_INT8 = 1U << 25, OSXSAVE = 1U << 27;
    constexpr std::uint64_t TILE_STATES = 3U << 17;
    constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!has_avx512_vnni() || !__get_cpuid(1, &a, &b, &c, &d) || !(c & OSXSAVE)) return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & AMX_TILE) || !(d & AMX_INT8)) return false;
    if ((_xgetbv(0) & TILE_STATES) != TILE_STATES) return false;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

double score(const double* query, const float* row, std::int64_t dim) { return AVX512_VNNI.score(query, row, dim); }

void encode_blocks(const EncodeArguments& arguments, std::int64_t first_block, std::int64_t last_block) {
    AVX512_VNNI.encode_blocks(arguments, first_block, last_block);
}

}  // namespace

const Kernel AMX{"amx", is_usable, begin, end, multiply, select_avx512, score, encode_blocks};

}  // namespace xmr
#endif
