#include "edge_runtime/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace edge {
namespace {

// The definition, on the values themselves.
std::int64_t exact(std::vector<std::int64_t> values, double percent) {
  std::sort(values.begin(), values.end());
  const double rank = std::ceil(percent / 100 * static_cast<double>(values.size()));
  return values[static_cast<std::size_t>(std::max(rank, 1.0)) - 1];
}

TEST(Histogram, IsEmptyAtFirst) {
  const Histogram histogram;
  EXPECT_EQ(histogram.count(), 0U);
  EXPECT_EQ(histogram.max(), 0);
  EXPECT_EQ(histogram.percentile(99), 0);
}

TEST(Histogram, SmallValuesAreExact) {
  Histogram histogram;
  for (std::int64_t value = 0; value < 64; ++value) histogram.record(value);
  for (int percent = 0; percent <= 100; percent += 5) {
    EXPECT_EQ(histogram.percentile(percent), std::max(0, static_cast<int>(std::ceil(0.64 * percent)) - 1));
  }
}

TEST(Histogram, EveryValueIsToldWithinTheErrorBound) {
  std::vector<std::int64_t> values;
  for (unsigned bit = 0; bit < 63; ++bit) {
    const std::int64_t power = std::int64_t{1} << bit;
    for (const std::int64_t value : {power - 1, power, power + 1, power + power / 3}) values.push_back(value);
  }
  values.push_back(std::numeric_limits<std::int64_t>::max());
  for (const std::int64_t value : values) {
    Histogram histogram;
    histogram.record(value);
    histogram.record(std::numeric_limits<std::int64_t>::max());  // so that the maximum does not correct it
    const double error = std::abs(static_cast<double>(histogram.percentile(50) - value));
    EXPECT_LE(error, Histogram::kRelativeError * static_cast<double>(value)) << value;
  }
}

TEST(Histogram, PercentilesOfManyValuesKeepTheBound) {
  std::mt19937_64 random(3);
  std::lognormal_distribution<double> latency(13, 2);  // around 0.4 ms in nanoseconds, with a long tail
  std::vector<std::int64_t> values;
  Histogram histogram;
  for (int i = 0; i < 20'000; ++i) {
    values.push_back(static_cast<std::int64_t>(latency(random)));
    histogram.record(values.back());
  }
  const LatencySummary summary = histogram.summary();
  EXPECT_EQ(summary.count, values.size());
  EXPECT_EQ(summary.max, exact(values, 100));
  for (const auto& [percent, told] :
       {std::pair(50.0, summary.p50), {90.0, summary.p90}, {99.0, summary.p99}, {99.9, summary.p999}}) {
    const auto want = static_cast<double>(exact(values, percent));
    EXPECT_LE(std::abs(static_cast<double>(told) - want), Histogram::kRelativeError * want) << percent;
  }
}

TEST(Histogram, NegativeValuesCountAsZero) {
  Histogram histogram;
  histogram.record(-5);
  EXPECT_EQ(histogram.count(), 1U);
  EXPECT_EQ(histogram.percentile(100), 0);
}

}  // namespace
}  // namespace edge
