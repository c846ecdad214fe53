// XXH3 of a layer: in each instruction set's own file, because xxhash chooses its vectors by the flags that it is
// compiled with. Its 512 bits read what no cache holds a third faster than SSE2's 128.
#pragma once

#if defined(__x86_64__)
// How far ahead it asks for what it reads. xxhash's own 384 or 512 bytes are too few where memory answers slowly.
#define XXH_PREFETCH_DIST 4096
#endif
#define XXH_INLINE_ALL  // no library to link, and each file its own copy
#include <xxhash.h>

#include <cstddef>
#include <cstdint>

namespace edge::kernels {

static inline std::uint64_t checksum(const std::byte* scales, std::size_t scale_bytes, const std::byte* data,
                                     std::size_t bytes) {
  XXH3_state_t state;
  XXH3_INITSTATE(&state);
  XXH3_64bits_reset(&state);
  XXH3_64bits_update(&state, scales, scale_bytes);
  XXH3_64bits_update(&state, data, bytes);
  return XXH3_64bits_digest(&state);
}

}  // namespace edge::kernels
