// Loops in plain C++ that the compiler makes vectors of. A file of kernel_*.cpp wraps them in functions for its
// instruction set, so they are compiled once for each. All bits are the same: nothing here is fused or reordered.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "kernel.h"

namespace xmr {

[[gnu::always_inline]] inline double halved(double* sums) {
    for (std::int64_t width = LANES / 2; width > 0; width /= 2)
        for (std::int64_t lane = 0; lane < width; ++lane) sums[lane] += sums[lane + width];
    return sums[0];
}

[[gnu::always_inline]] inline double score_loop(const double* query, const float* row, std::int64_t dim) {
    double sums[LANES] = {};
    std::int64_t d = 0;
    for (; d + LANES <= dim; d += LANES)
        for (std::int64_t lane = 0; lane < LANES; ++lane)
            sums[lane] += query[d + lane] * static_cast<double>(row[d + lane]);
    for (std::int64_t lane = 0; d + lane < dim; ++lane)
        sums[lane] += query[d + lane] * static_cast<double>(row[d + lane]);
    return halved(sums);
}

template <typename Real>
[[gnu::always_inline]] inline double norm_of(const Real* values, std::int64_t dim) {
    double sums[LANES] = {};
    std::int64_t d = 0;
    for (; d + LANES <= dim; d += LANES)
        for (std::int64_t lane = 0; lane < LANES; ++lane) {
            const double value = values[d + lane];
            sums[lane] += value * value;
        }
    for (std::int64_t lane = 0; d + lane < dim; ++lane) {
        const double value = values[d + lane];
        sums[lane] += value * value;
    }
    return std::sqrt(halved(sums));
}

template <typename Real>
[[gnu::always_inline]] inline Real largest_magnitude(const Real* values, std::int64_t n) {
    Real largest[LANES] = {};
    std::int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (std::int64_t lane = 0; lane < LANES; ++lane) {
            const Real magnitude = std::fabs(values[i + lane]);
            largest[lane] = magnitude > largest[lane] ? magnitude : largest[lane];
        }
    for (; i < n; ++i) largest[0] = std::max(largest[0], std::fabs(values[i]));
    return *std::max_element(largest, largest + LANES);
}

// Rounded to the nearest whole number, |value| < 2^22: the sum leaves no place for a fraction.
[[gnu::always_inline]] inline float nearest(float value) { return (value + 0x1.8p23F) - 0x1.8p23F; }

// A norm as the bound wants it: not smaller than the true one, whatever the sum of squares lost.
[[gnu::always_inline]] inline float rounded_up(double norm) {
    return norm == 0
               ? 0
               : std::nextafterf(static_cast<float>(norm * (1 + 0x1p-20)), std::numeric_limits<float>::infinity());
}

// Unnormalised Walsh-Hadamard transform of n numbers in place, n a power of two.
[[gnu::always_inline]] inline void hadamard(double* values, std::int64_t n) {
    for (std::int64_t half = 1; half < n; half *= 2)
        for (std::int64_t start = 0; start < n; start += 2 * half)
            for (std::int64_t i = start; i < start + half; ++i) {
                const double a = values[i], b = values[i + half];
                values[i] = a + b;
                values[i + half] = a - b;
            }
}

// +1 or -1, fixed for ever: they are part of what a stored code means. (The finaliser of splitmix64, Steele et al.
// 2014.)
[[gnu::always_inline]] inline double sign_of(std::uint64_t place) {
    std::uint64_t bits = (place + 1) * 0x9e3779b97f4a7c15U;
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9U;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebU;
    return (bits ^ (bits >> 31)) & 1 ? 1.0 : -1.0;
}

// Signs, then a Hadamard transform of as many dimensions as a power of two allows: the first ones, then, with other
// signs, the last ones.
[[gnu::always_inline]] inline void rotate_loop(double* values, std::int64_t dim) {
    const auto n = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(dim)));
    const double scale = 1 / std::sqrt(static_cast<double>(n));
    for (std::int64_t first = 0, step = 0; step < (n == dim ? 1 : 2); ++step, first = dim - n) {
        for (std::int64_t d = 0; d < n; ++d) values[first + d] *= scale * sign_of(2 * d + step);
        hadamard(values + first, n);
    }
}

// The scale of int8 codes of values up to `largest`; 0 where it would leave the range in which a float has all its
// bits.
[[gnu::always_inline]] inline float scale_of(double largest) {
    const double scale = largest / 127;
    return scale >= 0x1p-100 && scale <= 0x1p100 ? static_cast<float>(scale) : 0.0F;
}

// STEP values coded as whole numbers in [-127, 127].
constexpr std::int64_t STEP = 64;
template <typename Real>
[[gnu::always_inline]] inline void code_step(const Real* values, std::int64_t n, float inverse_scale, float* codes) {
    float scaled[STEP] = {};
    for (std::int64_t i = 0; i < n; ++i) scaled[i] = static_cast<float>(values[i]) * inverse_scale;
    for (std::int64_t i = 0; i < STEP; ++i) {
        const float code = nearest(scaled[i]);
        codes[i] = code > 127.0F ? 127.0F : code < -127.0F ? -127.0F : code;
    }
}

// Codes of one row, in groups of GROUP_DIMS that stand BLOCK_ROWS groups apart. Returns the norm of what they miss.
template <typename Real>
[[gnu::always_inline]] inline double code_row(const Real* row, std::int64_t dim, float scale, std::uint8_t* codes) {
    double sums[LANES] = {};
    for (std::int64_t first = 0; first < dim; first += STEP) {
        const std::int64_t n = std::min(STEP, dim - first);
        float step[STEP];
        std::uint8_t stored[STEP];
        code_step(row + first, n, 1 / scale, step);
        for (std::int64_t i = 0; i < STEP; ++i)
            stored[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(step[i]) + 128);
        for (std::int64_t i = 0; i < n; i += GROUP_DIMS)
            std::memcpy(codes + (first + i) * BLOCK_ROWS, stored + i, GROUP_DIMS);
        double residuals[STEP] = {};
        for (std::int64_t i = 0; i < n; ++i)
            residuals[i] =
                static_cast<double>(row[first + i]) - static_cast<double>(scale) * static_cast<double>(step[i]);
        for (std::int64_t i = 0; i < STEP; i += LANES)
            for (std::int64_t lane = 0; lane < LANES; ++lane) sums[lane] += residuals[i + lane] * residuals[i + lane];
    }
    return std::sqrt(halved(sums));
}

// One block from its rows as they are coded, (n_rows <= BLOCK_ROWS, dim).
template <typename Real>
[[gnu::always_inline]] inline void code_block(const Real* rows, std::int64_t n_rows, std::int64_t dim,
                                              std::uint8_t* codes, BlockBound& block, RowBound* bounds) {
    const float scale = scale_of(static_cast<double>(largest_magnitude(rows, n_rows * dim)));
    std::memset(codes, 128, static_cast<std::size_t>(block_bytes(dim)));
    block = {scale, 0, 0, 0};
    for (std::int64_t i = 0; i < BLOCK_ROWS; ++i) {
        bounds[i] = {0, 0};
        if (i >= n_rows) continue;
        const double norm = norm_of(rows + i * dim, dim);
        const double residual = scale > 0 ? code_row(rows + i * dim, dim, scale, codes + i * GROUP_DIMS) : norm;
        bounds[i] = {rounded_up(residual), rounded_up(norm)};
        block.residual = std::max(block.residual, bounds[i].residual);
        block.norm = std::max(block.norm, bounds[i].norm);
    }
}

[[gnu::always_inline]] inline void encode_blocks_loop(const EncodeArguments& a, std::int64_t first, std::int64_t last) {
    std::vector<double> shifted(a.mean || a.is_rotated ? BLOCK_ROWS * a.dim : 0);
    for (std::int64_t b = first; b < last; ++b) {
        const float* rows = a.rows + b * BLOCK_ROWS * a.dim;
        const std::int64_t n = std::min(BLOCK_ROWS, a.n_rows - b * BLOCK_ROWS);
        std::uint8_t* codes = a.codes + b * block_bytes(a.dim);
        if (shifted.empty()) {
            code_block(rows, n, a.dim, codes, a.blocks[b], a.bounds + b * BLOCK_ROWS);
            continue;
        }
        for (std::int64_t i = 0; i < n; ++i) {
            double* row = shifted.data() + i * a.dim;
            for (std::int64_t d = 0; d < a.dim; ++d) row[d] = rows[i * a.dim + d] - (a.mean ? a.mean[d] : 0.0);
            if (a.is_rotated) rotate_loop(row, a.dim);
        }
        code_block(shifted.data(), n, a.dim, codes, a.blocks[b], a.bounds + b * BLOCK_ROWS);
    }
}

// Which rows of a tile of dots pass, query by query.
[[gnu::always_inline]] inline bool select_loop(const std::int32_t* dots, const QueryBounds& q, const BlockBound& block,
                                               std::uint16_t* hits) {
    const double inverse_scale = 1 / static_cast<double>(block.scale);
    std::uint32_t any = 0;
    for (std::int64_t i = 0; i < GROUP_QUERIES; ++i) {
        const double rest = q.needed[i] - q.code_norm[i] * block.residual - q.residual[i] * block.norm;
        const double limit = rest * q.inverse_scale[i] * inverse_scale + q.offset[i] - 1;
        std::uint32_t mask = 0;
        for (std::int64_t row = 0; row < BLOCK_ROWS; ++row)
            mask |= static_cast<std::uint32_t>(!(dots[i * BLOCK_ROWS + row] < limit))
                    << row;  // also where it is no number
        hits[i] = static_cast<std::uint16_t>(mask);
        any |= mask;
    }
    return any != 0;
}

}  // namespace xmr
