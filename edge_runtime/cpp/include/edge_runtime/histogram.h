// Latencies as a log-linear histogram, as HdrHistogram does it: percentiles of any number of values in a fixed 15 KB,
// each within 1.6% of the exact one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace edge {

// What is reported of a histogram; zeros where nothing was recorded.
struct LatencySummary {
  std::uint64_t count = 0;
  std::int64_t p50 = 0;
  std::int64_t p90 = 0;
  std::int64_t p99 = 0;
  std::int64_t p999 = 0;
  std::int64_t max = 0;  // exact
};

// Not thread-safe.
class Histogram {
 public:
  // Each power of two is cut into this many buckets: half a bucket is at most 1 / 64 of the values in it.
  static constexpr std::uint64_t kBucketsPerOctave = 32;
  static constexpr double kRelativeError = 1.0 / 64;

  // Negative values count as 0.
  void record(std::int64_t value);

  std::uint64_t count() const { return count_; }
  std::int64_t max() const { return max_; }
  // The smallest value that is not exceeded by `percent` of the values, within kRelativeError; 0 where there are none.
  // REQUIRES 0 <= percent <= 100.
  std::int64_t percentile(double percent) const;
  LatencySummary summary() const;

 private:
  // Values below 64 have buckets of their own; each of the 57 octaves above has 32.
  static constexpr std::size_t kBuckets = 64 + 57 * kBucketsPerOctave;

  std::array<std::uint64_t, kBuckets> counts_{};
  std::uint64_t count_ = 0;
  std::int64_t max_ = 0;
};

}  // namespace edge
