// Enough of CUDA for g++ to compile topk_cuda.cuh and topk_cuda.cu and to find there what a GPU would hide.
//
// The threads of a block are fibers of one thread. Which of them goes on at a barrier or an exchange is drawn from a
// seed, so that a missing barrier shows as a wrong answer. A block starts with its shared memory poisoned, and device
// memory is malloc'ed, so that AddressSanitizer sees its ends. A barrier that not all threads of a block reach, and a
// warp whose lanes part, end the program. With XMR_EMULATED_THREADS the fibers are threads, for ThreadSanitizer.
#pragma once

#define XMR_EMULATED

#include <pthread.h>
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__ static
#define __host__
#define __device__
#define __shared__
#define __launch_bounds__(...)

struct __attribute__((may_alias)) uint4 {
    unsigned x, y, z, w;
};
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

constexpr int WARP = 32;
constexpr std::size_t SHARED_BYTES = 48 << 10;
constexpr std::size_t GUARD_BYTES = 4 << 10;
constexpr unsigned char POISON = 0xff;  // a NaN of any width
constexpr std::size_t WORD_BYTES = 32;  // the most that a lane can hand to the others

inline unsigned seed = 0;
inline int skipped_line = 0;  // the barrier there is left out by the threads from skipped_from on: a planted mistake
inline unsigned skipped_from = 0;
inline int n_devices = 1;
inline std::size_t free_bytes = std::size_t{1} << 40;  // of all GPUs together
inline thread_local int device = 0;
inline std::mutex one_kernel_at_a_time;  // there is one shared memory

}  // namespace emulation

namespace xmr {
alignas(16) inline uint4 dynamic_shared[(emulation::SHARED_BYTES + emulation::GUARD_BYTES) / sizeof(uint4)];
}

namespace emulation {

[[noreturn]] inline void fail(const char* what, int thread, int line) {
    std::fprintf(stderr, "%s: block %u, thread %d, line %d\n", what, blockIdx.x, thread, line);
    std::_Exit(3);
}

using Word = std::array<unsigned char, WORD_BYTES>;

// What the lanes of a warp hand each other. An exchange may begin while a slow lane still reads the last one.
struct Warp {
    std::array<std::array<Word, WARP>, 2> words;
};

// What every lane gave; to be read before the next exchange.
template <typename Value>
struct Exchanged {
    const std::array<Word, WARP>& words;
    Value operator[](int lane) const {
        Value value;
        std::memcpy(&value, words[lane].data(), sizeof(Value));
        return value;
    }
};

inline unsigned char* shared_bytes() { return reinterpret_cast<unsigned char*>(xmr::dynamic_shared); }

inline void poison_shared([[maybe_unused]] std::size_t n_bytes) {
#ifdef __SANITIZE_ADDRESS__
    ASAN_UNPOISON_MEMORY_REGION(shared_bytes(), SHARED_BYTES + GUARD_BYTES);
#endif
    std::memset(shared_bytes(), POISON, SHARED_BYTES + GUARD_BYTES);
#ifdef __SANITIZE_ADDRESS__
    ASAN_POISON_MEMORY_REGION(shared_bytes() + n_bytes, SHARED_BYTES + GUARD_BYTES - n_bytes);
#endif
}

inline void check_guard(std::size_t n_bytes) {
#ifdef __SANITIZE_ADDRESS__
    return;  // it has looked at every access
#endif
    for (std::size_t i = n_bytes; i < SHARED_BYTES + GUARD_BYTES; ++i)
        if (shared_bytes()[i] != POISON) fail("write beyond the shared memory", -1, static_cast<int>(i));
}

#ifndef XMR_EMULATED_THREADS

enum class State { ready, at_barrier, at_exchange, done };

struct Fiber {
    ucontext_t context;  // where it starts
    jmp_buf place;       // where it stopped; swapcontext would ask the kernel each time
    bool is_started = false;
    std::unique_ptr<unsigned char[]> stack;
    void* fake_stack = nullptr;  // AddressSanitizer's
    State state = State::ready;
    int line = 0;
    int n_exchanges = 0;
};

// Runs the threads of one block after another; there is one for each thread of the host.
class Block {
public:
    void run(int n_threads, const std::function<void()>& body) {
        body_ = &body;
        while (static_cast<int>(fibers_.size()) < n_threads) fibers_.emplace_back();
        warps_.resize((n_threads + WARP - 1) / WARP);
        for (int i = 0; i < n_threads; ++i) start(fibers_[i]);
        n_threads_ = n_threads;
        ready_.resize(n_threads);
        for (int i = 0; i < n_threads; ++i) ready_[i] = i;
        std::minstd_rand random(seed * 7919U + blockIdx.x + 1);
        while (!ready_.empty()) {
            std::swap(ready_[random() % ready_.size()], ready_.back());
            const int thread = ready_.back();
            ready_.pop_back();
            resume(thread);
            release(thread);
        }
    }

    void wait(State state, int line) {
        Fiber& fiber = fibers_[current_];
        fiber.state = state;
        fiber.line = line;
        to_scheduler(fiber, false);
    }

    template <typename Value>
    Exchanged<Value> exchange(const Value& value, int line) {
        static_assert(sizeof(Value) <= WORD_BYTES);
        auto& words = warps_[current_ / WARP].words[fibers_[current_].n_exchanges++ % 2];
        std::memcpy(words[current_ % WARP].data(), &value, sizeof(Value));
        wait(State::at_exchange, line);
        return {words};
    }

private:
    static constexpr std::size_t STACK_BYTES = 128 << 10;

    static void enter(unsigned low, unsigned high) {
        auto* block = reinterpret_cast<Block*>(std::uintptr_t{high} << 32 | low);
#ifdef __SANITIZE_ADDRESS__
        __sanitizer_finish_switch_fiber(nullptr, &block->stack_, &block->stack_bytes_);
#endif
        (*block->body_)();
        Fiber& fiber = block->fibers_[block->current_];
        fiber.state = State::done;
        block->to_scheduler(fiber, true);
    }

    void start(Fiber& fiber) {
        if (!fiber.stack) fiber.stack = std::make_unique<unsigned char[]>(STACK_BYTES);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = STACK_BYTES;
        fiber.context.uc_link = nullptr;
        const auto self = reinterpret_cast<std::uintptr_t>(this);
        makecontext(&fiber.context, reinterpret_cast<void (*)()>(enter), 2, static_cast<unsigned>(self),
                    static_cast<unsigned>(self >> 32));
        fiber.is_started = false;
        fiber.state = State::ready;
        fiber.n_exchanges = 0;
    }

    void resume(int thread) {
        current_ = thread;
        threadIdx.x = static_cast<unsigned>(thread);
#ifdef __SANITIZE_ADDRESS__
        void* fake_stack;
        __sanitizer_start_switch_fiber(&fake_stack, fibers_[thread].stack.get(), STACK_BYTES);
#endif
        Fiber& fiber = fibers_[thread];
        if (!_setjmp(scheduler_)) {
            if (fiber.is_started) _longjmp(fiber.place, 1);
            fiber.is_started = true;
            setcontext(&fiber.context);
        }
#ifdef __SANITIZE_ADDRESS__
        __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
    }

    void to_scheduler(Fiber& fiber, [[maybe_unused]] bool is_last) {
#ifdef __SANITIZE_ADDRESS__
        __sanitizer_start_switch_fiber(is_last ? nullptr : &fiber.fake_stack, stack_, stack_bytes_);
#endif
        if (!_setjmp(fiber.place)) _longjmp(scheduler_, 1);
#ifdef __SANITIZE_ADDRESS__
        __sanitizer_finish_switch_fiber(fiber.fake_stack, &stack_, &stack_bytes_);
#endif
    }

    // Lets go on whoever waited for this thread: its warp, or when nobody is ready the whole block.
    void release(int thread) {
        if (fibers_[thread].state == State::at_exchange) {
            const int first = thread / WARP * WARP;
            const bool is_complete = std::all_of(&fibers_[first], &fibers_[first] + WARP,
                                                 [](const Fiber& f) { return f.state == State::at_exchange; });
            if (is_complete) make_ready(first, first + WARP, "lanes of a warp part");
        }
        if (!ready_.empty()) return;
        for (int i = 0; i < n_threads_; ++i)
            if (fibers_[i].state != fibers_[0].state)
                fail("barrier divergence: others wait elsewhere or have left", i, fibers_[i].line);
        if (fibers_[0].state != State::done) make_ready(0, n_threads_, "barrier divergence: others wait elsewhere");
    }

    void make_ready(int first, int last, const char* otherwise) {
        for (int i = first; i < last; ++i) {
            if (fibers_[i].line != fibers_[first].line) fail(otherwise, i, fibers_[i].line);
            fibers_[i].state = State::ready;
            ready_.push_back(i);
        }
    }

    const std::function<void()>* body_ = nullptr;
    std::vector<Fiber> fibers_;
    std::vector<Warp> warps_;
    std::vector<int> ready_;
    jmp_buf scheduler_{};
    int current_ = 0;
    int n_threads_ = 0;
    const void* stack_ = nullptr;
    std::size_t stack_bytes_ = 0;
};

inline thread_local Block block;

inline void run_blocks(unsigned n_blocks, unsigned n_threads, std::size_t shared, const std::function<void()>& body) {
    blockDim = {n_threads};
    gridDim = {n_blocks};
    for (unsigned i = 0; i < n_blocks; ++i) {
        blockIdx = {i};
        poison_shared(shared);
        block.run(static_cast<int>(n_threads), body);
        check_guard(shared);
    }
}

inline void barrier(int line) { block.wait(State::at_barrier, line); }
template <typename Value>
Exchanged<Value> exchange(const Value& value, int line = __builtin_LINE()) {
    return block.exchange(value, line);
}

#else

class Meeting {  // std::barrier spins first, which is slow with more threads than cores
public:
    explicit Meeting(unsigned n_threads) { pthread_barrier_init(&barrier_, nullptr, n_threads); }
    ~Meeting() { pthread_barrier_destroy(&barrier_); }
    void arrive_and_wait() { pthread_barrier_wait(&barrier_); }

private:
    pthread_barrier_t barrier_;
};

struct ThreadedWarp : Warp {
    Meeting meeting{WARP};
};

struct ThreadedBlock {
    explicit ThreadedBlock(unsigned n_threads) : meeting(n_threads), warps(n_threads / WARP) {}
    Meeting meeting;
    std::vector<ThreadedWarp> warps;
};

inline ThreadedBlock* block = nullptr;
inline thread_local int n_exchanges = 0;

// The threads go from block to block together.
inline void run_blocks(unsigned n_blocks, unsigned n_threads, std::size_t shared, const std::function<void()>& body) {
    ThreadedBlock threaded(n_threads);
    block = &threaded;
    std::vector<std::jthread> threads;
    for (unsigned thread = 0; thread < n_threads; ++thread)
        threads.emplace_back([&, thread] {
            threadIdx = {thread};
            blockDim = {n_threads};
            gridDim = {n_blocks};
            for (unsigned i = 0; i < n_blocks; ++i) {
                blockIdx = {i};
                block->meeting.arrive_and_wait();
                if (thread == 0) poison_shared(shared);
                block->meeting.arrive_and_wait();
                body();
            }
        });
}

inline void barrier(int) { block->meeting.arrive_and_wait(); }

template <typename Value>
Exchanged<Value> exchange(const Value& value, int = 0) {
    ThreadedWarp& warp = block->warps[threadIdx.x / WARP];
    auto& words = warp.words[n_exchanges++ % 2];
    std::memcpy(words[threadIdx.x % WARP].data(), &value, sizeof(Value));
    warp.meeting.arrive_and_wait();
    return {words};
}

#endif

}  // namespace emulation

// What a kernel calls.

inline void __syncthreads(int line = __builtin_LINE()) {
    if (line == emulation::skipped_line && threadIdx.x >= emulation::skipped_from) return;
    emulation::barrier(line);
}

inline int emulated_lane() { return static_cast<int>(threadIdx.x % emulation::WARP); }
template <typename Value>
Value __shfl_sync(unsigned, Value value, int from, int line = __builtin_LINE()) {
    return emulation::exchange(value, line)[from];
}
template <typename Value>
Value __shfl_xor_sync(unsigned, Value value, int offset, int line = __builtin_LINE()) {
    return emulation::exchange(value, line)[emulated_lane() ^ offset];
}
template <typename Value>
Value __shfl_up_sync(unsigned, Value value, int offset, int line = __builtin_LINE()) {
    return emulation::exchange(value, line)[std::max(emulated_lane() - offset, emulated_lane() % offset)];
}
inline unsigned __ballot_sync(unsigned, bool value, int line = __builtin_LINE()) {
    const auto values = emulation::exchange(value, line);
    unsigned bits = 0;
    for (int lane = 0; lane < emulation::WARP; ++lane) bits |= unsigned{values[lane]} << lane;
    return bits;
}
inline bool __any_sync(unsigned mask, bool value, int line = __builtin_LINE()) {
    return __ballot_sync(mask, value, line) != 0;
}
inline unsigned __match_any_sync(unsigned, int value, int line = __builtin_LINE()) {
    const auto values = emulation::exchange(value, line);
    unsigned same = 0;
    for (int lane = 0; lane < emulation::WARP; ++lane) same |= unsigned{values[lane] == value} << lane;
    return same;
}

inline int atomicAdd(int* address, int value) { return __atomic_fetch_add(address, value, __ATOMIC_RELAXED); }
inline int atomicMax(int* address, int value) {
    constexpr int RELAXED = __ATOMIC_RELAXED;
    int seen = __atomic_load_n(address, RELAXED);
    while (seen < value && !__atomic_compare_exchange_n(address, &seen, value, true, RELAXED, RELAXED)) continue;
    return seen;
}

inline int __ffs(unsigned bits) { return __builtin_ffs(static_cast<int>(bits)); }
inline int __popc(unsigned bits) { return std::popcount(bits); }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline long long __double_as_longlong(double value) { return std::bit_cast<long long>(value); }
inline float __double2float_ru(double value) {
    const auto nearest = static_cast<float>(value);
    return nearest < value ? std::nextafter(nearest, INFINITY) : nearest;
}
inline float __double2float_rd(double value) { return -__double2float_ru(-value); }
inline _Float16 __float2half_rn(float value) { return static_cast<_Float16>(value); }
inline float __half2float(_Float16 value) { return value; }
inline unsigned short __half_as_ushort(_Float16 value) { return std::bit_cast<unsigned short>(value); }
inline _Float16 __ushort_as_half(unsigned short bits) { return std::bit_cast<_Float16>(bits); }
using std::min;

// What the host calls.

enum cudaError_t {
    cudaSuccess,
    cudaErrorInvalidValue,
    cudaErrorMemoryAllocation,
    cudaErrorInvalidConfiguration,
    cudaErrorNoDevice
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };
enum cudaStream_t { cudaStreamPerThread };
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    std::size_t dynamicSmemBytes = 0;
    cudaStream_t stream{};
};

namespace emulation {

inline thread_local cudaError_t last_error = cudaSuccess;

inline cudaError_t failure(cudaError_t error) { return last_error = error; }

inline std::mutex one_allocation_at_a_time;
inline std::map<void*, std::size_t> allocations;

}  // namespace emulation

inline const char* cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaErrorInvalidValue:
            return "invalid argument";
        case cudaErrorMemoryAllocation:
            return "out of memory";
        case cudaErrorInvalidConfiguration:
            return "invalid configuration argument";
        case cudaErrorNoDevice:
            return "no CUDA-capable device is detected";
        default:
            return "no error";
    }
}
inline cudaError_t cudaGetLastError() { return std::exchange(emulation::last_error, cudaSuccess); }
inline cudaError_t cudaGetDeviceCount(int* count) {
    *count = emulation::n_devices;
    return emulation::n_devices ? cudaSuccess : emulation::failure(cudaErrorNoDevice);
}
inline cudaError_t cudaGetDevice(int* device) {
    *device = emulation::device;
    return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
    emulation::device = device;
    return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
    *value = 1;
    return cudaSuccess;
}
inline cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total_bytes) {
    *free_bytes = *total_bytes = emulation::free_bytes;
    return cudaSuccess;
}
inline cudaError_t cudaMalloc(void** memory, std::size_t n_bytes) {
    const std::lock_guard lock(emulation::one_allocation_at_a_time);
    *memory = n_bytes <= emulation::free_bytes ? std::malloc(n_bytes) : nullptr;
    if (!*memory) return emulation::failure(cudaErrorMemoryAllocation);
    std::memset(*memory, emulation::POISON, n_bytes);
    emulation::allocations[*memory] = n_bytes;
    emulation::free_bytes -= n_bytes;
    return cudaSuccess;
}
inline cudaError_t cudaFree(void* memory) {
    if (!memory) return cudaSuccess;
    const std::lock_guard lock(emulation::one_allocation_at_a_time);
    const auto allocated = emulation::allocations.extract(memory);
    if (!allocated) return emulation::failure(cudaErrorInvalidValue);
    emulation::free_bytes += allocated.mapped();
    std::free(memory);
    return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t n_bytes, cudaMemcpyKind, cudaStream_t) {
    std::memcpy(to, from, n_bytes);
    return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t n_bytes, cudaStream_t) {
    std::memset(memory, value, n_bytes);
    return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
    const std::int64_t n_blocks = config->gridDim.x;
    if (n_blocks < 1 || n_blocks > INT32_MAX) return emulation::failure(cudaErrorInvalidConfiguration);
    if (config->dynamicSmemBytes > emulation::SHARED_BYTES) return emulation::failure(cudaErrorInvalidValue);
    const std::tuple<Parameters...> copies(arguments...);
    const std::lock_guard lock(emulation::one_kernel_at_a_time);
    emulation::run_blocks(config->gridDim.x, config->blockDim.x, config->dynamicSmemBytes,
                          [&] { std::apply(kernel, copies); });
    return cudaSuccess;
}
