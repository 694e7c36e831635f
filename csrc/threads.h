#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <thread>
#include <vector>

namespace xmr {

// Runs work(thread) on every thread, this one included, and throws again what one of them threw.
inline void on_threads(std::int64_t n_threads, const std::function<void(std::int64_t)>& work) {
    std::vector<std::exception_ptr> failures(n_threads);
    const auto guarded = [&](std::int64_t t) {
        try {
            work(t);
        } catch (...) {  // thrown again below
            failures[t] = std::current_exception();
        }
    };
    {
        std::vector<std::jthread> threads;
        for (std::int64_t t = 1; t < n_threads; ++t) threads.emplace_back(guarded, t);
        guarded(0);
    }
    for (const auto& failure : failures)
        if (failure) std::rethrow_exception(failure);
}

}  // namespace xmr
