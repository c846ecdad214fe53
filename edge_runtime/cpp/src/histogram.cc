#include "edge_runtime/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace edge {

namespace {

// How many low bits of a value its bucket does not tell apart.
unsigned coarseness(std::uint64_t value) {
  const auto width = static_cast<unsigned>(std::bit_width(value / (2 * Histogram::kBucketsPerOctave)));
  return width;
}

std::size_t bucket_of(std::uint64_t value) {
  const unsigned shift = coarseness(value);
  return shift * Histogram::kBucketsPerOctave + (value >> shift);
}

// The middle of a bucket.
std::uint64_t value_of(std::size_t bucket) {
  if (bucket < 2 * Histogram::kBucketsPerOctave) return bucket;
  const std::uint64_t shift = bucket / Histogram::kBucketsPerOctave - 1;
  const std::uint64_t low = (bucket - shift * Histogram::kBucketsPerOctave) << shift;
  return low + ((std::uint64_t{1} << shift) - 1) / 2;
}

}  // namespace

void Histogram::record(std::int64_t value) {
  const std::int64_t known = std::max<std::int64_t>(value, 0);
  ++counts_[bucket_of(static_cast<std::uint64_t>(known))];
  ++count_;
  max_ = std::max(max_, known);
}

std::int64_t Histogram::percentile(double percent) const {
  if (count_ == 0) return 0;
  const auto rank =
      std::max<std::uint64_t>(1, static_cast<std::uint64_t>(std::ceil(percent / 100 * static_cast<double>(count_))));
  std::uint64_t seen = 0;
  std::size_t bucket = 0;
  while (bucket < kBuckets && (seen += counts_[bucket]) < rank) ++bucket;
  return std::min(static_cast<std::int64_t>(value_of(bucket)), max_);
}

LatencySummary Histogram::summary() const {
  return {count_, percentile(50), percentile(90), percentile(99), percentile(99.9), max_};
}

}  // namespace edge
