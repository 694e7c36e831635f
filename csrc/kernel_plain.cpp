#include "portable.h"

namespace xmr {
namespace {

bool is_usable() { return true; }

double score(const double* query, const float* row, std::int64_t dim) { return score_loop(query, row, dim); }

void encode_blocks(const EncodeArguments& arguments, std::int64_t first_block, std::int64_t last_block) {
    encode_blocks_loop(arguments, first_block, last_block);
}

}  // namespace

const Kernel PLAIN{"plain", is_usable, nullptr, nullptr, nullptr, nullptr, score, encode_blocks};

void rotate(double* values, std::int64_t dim) { rotate_loop(values, dim); }

}  // namespace xmr
