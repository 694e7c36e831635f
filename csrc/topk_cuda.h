// A gallery on the GPUs that are visible, and the search in it: exact, as topk.h says.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace xmr {

constexpr std::int64_t CUDA_MAX_K = 2048;

// The GPUs that can be used: 0 without a driver.
int cuda_device_count();

struct RowSpan {
    const float* rows;  // (n_rows, dim), row-major, in the memory of the host
    std::int64_t n_rows;
};

enum class CudaCoding { int8, float16 };

class CudaShard;

// The rows of all segments, numbered through, in contiguous parts over the GPUs: float32 and codes. What goes wrong on
// a GPU is a std::runtime_error. One search at a time: a second one waits.
class CudaGallery {
public:
    // n_candidates: places that the queries of a batch share, 96 MiB of each GPU. Fewer in tests, so that they run out.
    CudaGallery(const std::vector<RowSpan>& segments, std::int64_t dim, CudaCoding coding,
                std::int64_t n_candidates = 1 << 22);
    ~CudaGallery();

    std::int64_t n_rows() const { return n_rows_; }
    std::int64_t dim() const { return dim_; }

    // scores and rows (n_queries, k) are written, 1 <= k <= CUDA_MAX_K and n_rows(). allowed: n_rows() times 0 or 1, or
    // null.
    void top_k(const float* queries, std::int64_t n_queries, std::int64_t k, const std::uint8_t* allowed, float* scores,
               std::int64_t* rows);

private:
    std::vector<std::unique_ptr<CudaShard>> shards_;
    std::int64_t n_rows_;
    std::int64_t dim_;
    std::mutex searching_;
};

}  // namespace xmr
