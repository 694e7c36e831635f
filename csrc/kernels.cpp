#include <algorithm>
#include <iterator>

#include "kernel.h"

namespace xmr {

const std::vector<const Kernel*>& kernels() {
    static const std::vector<const Kernel*> usable = [] {
#if defined(__x86_64__) && defined(__linux__)
        const Kernel* all[] = {&PLAIN, &AVX2, &AVX512_VNNI, &AMX};
#elif defined(__x86_64__)
        const Kernel* all[] = {&PLAIN, &AVX2, &AVX512_VNNI};
#elif defined(__aarch64__) && defined(__linux__)
        const Kernel* all[] = {&PLAIN, &NEON};
#else
        const Kernel* all[] = {&PLAIN};
#endif
        std::vector<const Kernel*> found;
        std::copy_if(std::begin(all), std::end(all), std::back_inserter(found),
                     [](const Kernel* k) { return k->is_usable(); });
        return found;
    }();
    return usable;
}

}  // namespace xmr
