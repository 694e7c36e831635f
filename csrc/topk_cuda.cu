#include "topk_cuda.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "topk_cuda.cuh"

namespace xmr {
namespace {

static_assert(MAX_K == CUDA_MAX_K);
constexpr std::int64_t QUERY_BATCH = 1024;      // queries that are searched together; each has its buffer of candidates
constexpr std::int64_t MAX_CAPACITY = 1 << 16;  // `tighten` has one block for a buffer: more rows take it longer
constexpr std::int64_t FIRST_ROWS = 1024;       // scanned without a threshold
constexpr std::int64_t MAX_SLAB_ROWS = 1 << 30;  // they are counted in int
constexpr std::int64_t SPARE_BYTES = 32 << 20;   // for the kernels, and because cudaMalloc rounds up to 2 MiB
constexpr int SCAN_BLOCKS = 4;                   // of every multiprocessor

// The runtime remembers an error until it is asked for, and `launch` would take it for one of its own.
cudaError_t forgotten(cudaError_t error) {
    if (error != cudaSuccess) cudaGetLastError();
    return error;
}

void check(cudaError_t error) {
    if (forgotten(error) != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

std::string readable(std::int64_t n_bytes) {
    const bool is_large = n_bytes >= 1 << 30;
    char text[32];
    std::snprintf(text, sizeof(text), is_large ? "%.1f GiB" : "%.1f MiB",
                  static_cast<double>(n_bytes) / (is_large ? 1 << 30 : 1 << 20));
    return text;
}

// Makes a device the current one of this thread, and afterwards the one that it was.
class CurrentDevice {
public:
    explicit CurrentDevice(int device) {
        check(cudaGetDevice(&before_));
        check(cudaSetDevice(device));
    }
    ~CurrentDevice() { forgotten(cudaSetDevice(before_)); }  // cannot throw here; who uses that device will hear of it
    CurrentDevice(const CurrentDevice&) = delete;

private:
    int before_ = 0;
};

// Memory of the device that is the current one when it grows.
template <typename Value>
class DeviceArray {
public:
    DeviceArray() = default;
    DeviceArray(const DeviceArray&) = delete;
    ~DeviceArray() { forgotten(cudaFree(values_)); }  // cannot throw here; what fails was reported by an earlier call

    // Room for n values; those that were there are gone.
    Value* grow(std::int64_t n) {
        if (n <= size_) return values_;
        size_ = 0;
        check(cudaFree(std::exchange(values_, nullptr)));
        void* memory = nullptr;
        check(cudaMalloc(&memory, n * sizeof(Value)));
        size_ = n;
        return values_ = static_cast<Value*>(memory);
    }

    Value* get() const { return values_; }

private:
    Value* values_ = nullptr;
    std::int64_t size_ = 0;
};

template <typename Value>
void copy_to_device(Value* to, const Value* from, std::int64_t n) {
    if (n == 0) return;  // rows without columns have no memory
    check(cudaMemcpyAsync(to, from, n * sizeof(Value), cudaMemcpyHostToDevice, cudaStreamPerThread));
}

template <typename Value>
void copy_to_host(Value* to, const Value* from, std::int64_t n) {
    check(cudaMemcpyAsync(to, from, n * sizeof(Value), cudaMemcpyDeviceToHost, cudaStreamPerThread));
    check(cudaStreamSynchronize(cudaStreamPerThread));
}

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), std::int64_t n_blocks, std::size_t shared_bytes,
            const Arguments&... arguments) {
    cudaLaunchConfig_t config{};
    config.gridDim.x = static_cast<unsigned>(n_blocks);
    config.blockDim.x = THREADS;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = cudaStreamPerThread;
    check(cudaLaunchKernelEx(&config, kernel, arguments...));
    check(cudaGetLastError());
}

// The kernels of one coding.
struct Kernels {
    void (*encode)(const float*, std::int64_t, std::int64_t, DeviceCodes);
    void (*scan_one)(Search, Slab);
    void (*scan)(Search, Slab);
    void (*multiply_tile)(Search, Slab);
    void (*tighten)(Search);
    std::int64_t code_bytes;
};

template <typename Coding>
Kernels kernels_of() {
    return {encode<Coding>,        scan<Coding, 1>, scan<Coding, SCAN_QUERIES>,
            multiply_tile<Coding>, tighten<Coding>, sizeof(typename Coding::Code)};
}

}  // namespace

// A shard: the rows of one GPU, parts of one segment or of several (a segment is a file). Beside them the memory of its
// searches, which stays for the next.
class CudaShard {
public:
    CudaShard(int device, std::int64_t first_row, std::int64_t n_rows, std::int64_t dim, CudaCoding coding,
              std::int64_t n_candidates)
        : device_(device),
          first_row_(first_row),
          n_rows_(n_rows),
          dim_(dim),
          n_candidates_(n_candidates),
          kernels_(coding == CudaCoding::int8 ? kernels_of<Int8>() : kernels_of<Float16>()),
          stride_(std::max<std::int64_t>(1, ceil_div(dim * kernels_.code_bytes, sizeof(uint4)))) {}

    void upload(const std::vector<RowSpan>& segments) {
        const CurrentDevice current(device_);
        check(cudaDeviceGetAttribute(&n_multiprocessors_, cudaDevAttrMultiProcessorCount, device_));
        check_memory();
        rows_.grow(n_rows_ * dim_);
        std::int64_t segment_first = 0;
        for (const RowSpan& segment : segments) {
            const std::int64_t first = std::max(first_row_, segment_first);
            const std::int64_t last = std::min(first_row_ + n_rows_, segment_first + segment.n_rows);
            if (first < last)
                copy_to_device(rows_.get() + (first - first_row_) * dim_, segment.rows + (first - segment_first) * dim_,
                               (last - first) * dim_);
            segment_first += segment.n_rows;
        }
        encode_rows(rows_.get(), n_rows_, coded_rows(codes_, bounds_, n_rows_));
        check(cudaStreamSynchronize(cudaStreamPerThread));
    }

    // The k best of these rows for each query, numbered over all shards; -inf and -1 where there are fewer.
    std::vector<Hit> top_k(const float* queries, std::int64_t n_queries, std::int64_t k, const std::uint8_t* allowed) {
        const CurrentDevice current(device_);
        std::vector<Hit> hits(n_queries * k);
        const std::uint32_t* allowed_bits = allowed ? pack_allowed(allowed + first_row_) : nullptr;
        for (std::int64_t first = 0; first < n_queries; first += QUERY_BATCH) {
            const std::int64_t n_batch = std::min(QUERY_BATCH, n_queries - first);
            find(begin_search(queries + first * dim_, n_batch, k, allowed_bits), &hits[first * k]);
        }
        for (Hit& hit : hits)
            if (hit.row >= 0) hit.row += first_row_;
        return hits;
    }

private:
    void check_memory() const {
        const std::int64_t gallery_bytes = n_rows_ * row_bytes();
        const std::int64_t needed = gallery_bytes + search_bytes(QUERY_BATCH, std::min<std::int64_t>(MAX_K, n_rows_));
        std::size_t free_bytes = 0, total_bytes = 0;
        check(cudaMemGetInfo(&free_bytes, &total_bytes));
        if (needed > static_cast<std::int64_t>(free_bytes))
            throw std::runtime_error("the gallery needs " + readable(gallery_bytes) + ", with its searches " +
                                     readable(needed) + ", GPU " + std::to_string(device_) + " has " +
                                     readable(static_cast<std::int64_t>(free_bytes)) + " free");
    }

    // Of a row or a query: its values and its codes.
    std::int64_t row_bytes() const {
        return static_cast<std::int64_t>(dim_ * sizeof(float) + stride_ * sizeof(uint4) + sizeof(CodeBound));
    }

    // What `pack_allowed` and `begin_search` allocate.
    std::int64_t search_bytes(std::int64_t n_queries, std::int64_t k) const {
        const auto of_query = static_cast<std::int64_t>(capacity_of(n_queries, k) * sizeof(Candidate) +
                                                        2 * sizeof(int) + (k + 1) * sizeof(Hit));
        return n_queries * (row_bytes() + of_query) + n_rows_ + ceil_div(n_rows_, 8) + SPARE_BYTES;
    }

    // At least a quarter of a buffer is room for the k best, and a quarter is a whole number of tiles.
    std::int64_t capacity_of(std::int64_t n_queries, std::int64_t k) const {
        const std::int64_t n_tiles = std::min(n_candidates_ / n_queries, MAX_CAPACITY) / (4 * TILE);
        return std::max(n_tiles, ceil_div(k, TILE)) * 4 * TILE;
    }

    DeviceCodes coded_rows(DeviceArray<uint4>& codes, DeviceArray<CodeBound>& bounds, std::int64_t n) const {
        return {codes.grow(n * stride_), bounds.grow(n), stride_};
    }

    void encode_rows(const float* rows, std::int64_t n, const DeviceCodes& codes) const {
        launch(kernels_.encode, ceil_div(n, WARPS), 0, rows, n, dim_, codes);
    }

    const std::uint32_t* pack_allowed(const std::uint8_t* flags) {
        copy_to_device(flags_.grow(n_rows_), flags, n_rows_);
        std::uint32_t* bits = allowed_.grow(ceil_div(n_rows_, 32));
        launch(pack, ceil_div(n_rows_, THREADS), 0, flags_.get(), n_rows_, bits);
        return bits;
    }

    Search begin_search(const float* queries, std::int64_t n_queries, std::int64_t k, const std::uint32_t* allowed) {
        const std::int64_t capacity = capacity_of(n_queries, k);
        Search search{};
        search.gallery_rows = rows_.get();
        search.query_rows = query_rows_.grow(n_queries * dim_);
        search.gallery = {codes_.get(), bounds_.get(), stride_};
        search.queries = coded_rows(query_codes_, query_bounds_, n_queries);
        search.allowed = allowed;
        search.candidates = candidates_.grow(n_queries * capacity);
        search.counts = counts_.grow(n_queries);
        search.kept = kept_.grow(n_queries);
        search.thresholds = thresholds_.grow(n_queries);
        hits_.grow(n_queries * k);
        search.progress = progress_.grow(1);
        search.dim = dim_;
        search.n_queries = static_cast<int>(n_queries);
        search.capacity = static_cast<int>(capacity);
        search.k = static_cast<int>(k);
        copy_to_device(query_rows_.get(), queries, n_queries * dim_);
        encode_rows(search.query_rows, n_queries, search.queries);
        launch(begin, ceil_div(n_queries, THREADS), 0, search);
        return search;
    }

    void find(const Search& search, Hit* hits) const {
        scan_rows(search);
        score(search);
        launch(sort, search.n_queries, MAX_K * sizeof(Hit), search, hits_.get());
        copy_to_host(hits, hits_.get(), std::int64_t{search.n_queries} * search.k);
    }

    // Slab by slab, each as long as the rows before it promise about FIRST_ROWS candidates, or as many as there are
    // already, if half of the free places hold them. A slab that fills more than all of them is scanned again in parts,
    // and from then on what the last slab held counts too. Half a capacity of rows always fits: what is kept beyond it
    // is scored, which leaves k, at most a quarter. So this ends, whatever the rows.
    //
    // Where the intervals of a query do not tell rows apart (a tight cone, thousands of ties, a query under MIN_SCALE)
    // the slabs come down to half a capacity, 2,048 rows in a full batch and 32,768 for up to 64 queries. All rows of
    // such a slab are scored for that query, and the others of its batch wait.
    void scan_rows(const Search& search) const {
        const std::int64_t capacity = search.capacity;
        const std::int64_t first_rows = std::min(capacity / 4, std::max(FIRST_ROWS, ceil_div(search.k, TILE) * TILE));
        bool has_overflowed = false;
        Slab slab{0, std::min(n_rows_, first_rows)};
        while (slab.first < n_rows_) {
            const Progress progress = scan_slab(search, slab);
            std::int64_t kept = std::max(progress.kept, 1);
            if (kept > capacity / 2) {
                score(search);
                kept = search.k;
            }
            const std::int64_t half_free = (capacity - kept) / 2;
            const std::int64_t measured = (slab.last - slab.first) * half_free / std::max(progress.found, 1);
            if (progress.has_overflowed)
                has_overflowed = true;
            else
                slab.first = slab.last;
            const std::int64_t promised = slab.first * std::min(half_free, std::max(2 * first_rows, kept)) / kept;
            const std::int64_t length = has_overflowed ? std::min(promised, measured) : promised;
            slab.last = slab.first + std::clamp(length / TILE * TILE, capacity / 2, MAX_SLAB_ROWS);
            slab.last = std::min(n_rows_, slab.last);
        }
    }

    Progress scan_slab(const Search& search, const Slab& slab) const {
        check(cudaMemsetAsync(search.progress, 0, sizeof(Progress), cudaStreamPerThread));
        const std::int64_t n_rows = slab.last - slab.first;
        const int n_scanned = search.n_queries == 1 ? 1 : SCAN_QUERIES;
        const std::size_t query_bytes = n_scanned * stride_ * sizeof(uint4);
        if (search.n_queries <= SCAN_QUERIES && query_bytes <= SHARED_BYTES) {
            const std::int64_t n_blocks = std::min<std::int64_t>(ceil_div(n_rows, WARPS * rows_of_warp(n_scanned)),
                                                                 std::int64_t{SCAN_BLOCKS} * n_multiprocessors_);
            launch(n_scanned == 1 ? kernels_.scan_one : kernels_.scan, n_blocks, query_bytes, search, slab);
        } else {
            launch(kernels_.multiply_tile, ceil_div(n_rows, TILE) * ceil_div(search.n_queries, TILE),
                   sizeof(TileShared), search, slab);
        }
        launch(kernels_.tighten, search.n_queries, sizeof(TightenShared), search);
        Progress progress{};
        copy_to_host(&progress, search.progress, 1);
        return progress;
    }

    // Leaves of every buffer the k best, scored.
    void score(const Search& search) const {
        launch(rescore, std::int64_t{search.n_queries} * RESCORE_BLOCKS, 0, search);
        launch(kernels_.tighten, search.n_queries, sizeof(TightenShared), search);
    }

    int device_;
    std::int64_t first_row_;
    std::int64_t n_rows_;
    std::int64_t dim_;
    std::int64_t n_candidates_;
    Kernels kernels_;
    std::int64_t stride_;
    int n_multiprocessors_ = 0;
    DeviceArray<float> rows_, query_rows_;
    DeviceArray<uint4> codes_, query_codes_;
    DeviceArray<CodeBound> bounds_, query_bounds_;
    DeviceArray<std::uint8_t> flags_;
    DeviceArray<std::uint32_t> allowed_;
    DeviceArray<Candidate> candidates_;
    DeviceArray<int> counts_, kept_;
    DeviceArray<Hit> thresholds_, hits_;
    DeviceArray<Progress> progress_;
};

namespace {

// Calls work(i) for every i below n, each in a thread of its own but the first; raises what one of them raised.
template <typename Work>
void in_threads(std::size_t n, const Work& work) {
    std::vector<std::exception_ptr> failures(n);
    const auto guarded = [&](std::size_t i) {
        try {
            work(i);
        } catch (...) {  // raised again by the caller's thread
            failures[i] = std::current_exception();
        }
    };
    {
        std::vector<std::jthread> threads;
        for (std::size_t i = 1; i < n; ++i) threads.emplace_back(guarded, i);
        guarded(0);
    }
    for (const auto& failure : failures)
        if (failure) std::rethrow_exception(failure);
}

// Of a query of zeros, to which all rows score 0.
void take_first_rows(std::int64_t n_rows, std::int64_t k, const std::uint8_t* allowed, float* scores,
                     std::int64_t* rows) {
    std::int64_t place = 0;
    for (std::int64_t row = 0; row < n_rows && place < k; ++row)
        if (!allowed || allowed[row]) {
            scores[place] = 0;
            rows[place++] = row;
        }
    std::fill(scores + place, scores + k, -INFINITY);
    std::fill(rows + place, rows + k, -1);
}

// The k best hits of one query from the lists of the shards, each of k and sorted.
void merge(const std::vector<std::vector<Hit>>& hits, std::int64_t query, std::int64_t k, float* scores,
           std::int64_t* rows) {
    std::vector<std::int64_t> taken(hits.size());
    for (std::int64_t place = 0; place < k; ++place) {
        std::size_t best = 0;
        for (std::size_t shard = 1; shard < hits.size(); ++shard) {
            const Hit& one = hits[best][query * k + taken[best]];
            if (is_worse(one.score, one.row, hits[shard][query * k + taken[shard]])) best = shard;
        }
        const Hit& hit = hits[best][query * k + taken[best]++];
        scores[place] = static_cast<float>(hit.score);
        rows[place] = hit.row;
    }
}

}  // namespace

int cuda_device_count() {
    int n_devices = 0;
    return forgotten(cudaGetDeviceCount(&n_devices)) == cudaSuccess ? n_devices : 0;
}

CudaGallery::CudaGallery(const std::vector<RowSpan>& segments, std::int64_t dim, CudaCoding coding,
                         std::int64_t n_candidates)
    : n_rows_(0), dim_(dim) {
    int n_devices = 0;
    const cudaError_t error = forgotten(cudaGetDeviceCount(&n_devices));
    if (error != cudaSuccess)
        throw std::runtime_error(std::string("no usable NVIDIA GPU found: ") + cudaGetErrorString(error));
    for (const RowSpan& segment : segments) n_rows_ += segment.n_rows;
    const std::int64_t n_shards = std::min<std::int64_t>(n_devices, n_rows_);
    for (int device = 0; device < n_shards; ++device) {
        const std::int64_t first = n_rows_ * device / n_shards, last = n_rows_ * (device + 1) / n_shards;
        shards_.push_back(std::make_unique<CudaShard>(device, first, last - first, dim, coding, n_candidates));
    }
    in_threads(shards_.size(), [&](std::size_t i) { shards_[i]->upload(segments); });
}

CudaGallery::~CudaGallery() = default;

void CudaGallery::top_k(const float* queries, std::int64_t n_queries, std::int64_t k, const std::uint8_t* allowed,
                        float* scores, std::int64_t* rows) {
    const std::lock_guard lock(searching_);
    // A query of zeros would keep every row, and those beside it would wait.
    std::vector<std::int64_t> asked;
    std::vector<float> asked_queries;
    for (std::int64_t query = 0; query < n_queries; ++query) {
        const float *first = queries + query * dim_, *last = first + dim_;
        if (std::all_of(first, last, [](float value) { return value == 0; })) {
            take_first_rows(n_rows_, k, allowed, scores + query * k, rows + query * k);
        } else {
            asked.push_back(query);
            asked_queries.insert(asked_queries.end(), first, last);
        }
    }
    const auto n_asked = static_cast<std::int64_t>(asked.size());
    std::vector<std::vector<Hit>> hits(shards_.size());
    in_threads(shards_.size(),
               [&](std::size_t i) { hits[i] = shards_[i]->top_k(asked_queries.data(), n_asked, k, allowed); });
    for (std::int64_t i = 0; i < n_asked; ++i) merge(hits, i, k, scores + asked[i] * k, rows + asked[i] * k);
}

}  // namespace xmr
