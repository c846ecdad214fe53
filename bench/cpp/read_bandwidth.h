// How fast this machine's memory can be read: what a kernel that streams weights is held against.
#pragma once

#include <cstddef>
#include <vector>

namespace edge::bench {

// Seconds of each of `rounds` passes in which `threads` threads together read `bytes` bytes once; each has its share.
// REQUIRES bytes >= threads * 64 and threads >= 1; far more bytes than the caches hold, to measure memory.
std::vector<double> read_passes(std::size_t bytes, unsigned threads, unsigned rounds);

}  // namespace edge::bench
