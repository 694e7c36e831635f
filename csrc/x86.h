// What the kernels for x86-64 share.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernel.h"

namespace xmr {

bool has_avx512_vnni();
bool select_avx512(const std::int32_t* dots, const QueryBounds& queries, const BlockBound& block, std::uint16_t* hits);

// GROUP_DIMS codes as one number.
inline std::int32_t load_group(const std::int8_t* codes) {
    std::int32_t group;
    std::memcpy(&group, codes, sizeof group);
    return group;
}

}  // namespace xmr
