#include "edge_runtime/storage_simulated.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "storage_fixture.h"

namespace edge {
namespace {

using testing::random_bytes;

TEST(SimulatedStorage, RequestsWaitOutLatencyTogetherAndShareTheBandwidth) {
  ManualClock clock;
  // A byte a nanosecond; two requests at once.
  const auto device = std::make_shared<SimulatedDevice>(
      clock, SimulatedDevice::Profile{.latency_ns = 1000, .bytes_per_second = 1e9, .lanes = 2});
  SimulatedStorage storage("file", random_bytes(3 * kPage, 1), device);
  const Buffer buffer = *storage.acquire(0, 3 * kPage);
  for (std::uint64_t page = 0; page < 3; ++page) {
    storage.submit({.offset = page * kPage, .length = kPage, .destination = buffer.get() + page * kPage, .tag = page});
  }
  const auto transfer = static_cast<std::int64_t>(kPage);
  // The third has the first's lane: it waits out its latency while the second is transferred, or beyond that.
  const std::int64_t third = std::max(1000 + 2 * transfer, 1000 + transfer + 1000) + transfer;
  std::vector<Completion> completions;
  for (const std::int64_t due : {1000 + transfer, 1000 + 2 * transfer, third}) {
    const std::size_t before = completions.size();
    EXPECT_EQ(storage.next_completion_ns(), due);
    clock.advance(due - clock.now_ns() - 1);
    storage.poll(completions);
    EXPECT_EQ(completions.size(), before);
    clock.advance(1);
    storage.poll(completions);
    EXPECT_EQ(completions.size(), before + 1);
  }
  EXPECT_EQ(storage.next_completion_ns(), std::nullopt);
}

TEST(SimulatedStorage, AReadBeyondTheFileIsTruncated) {
  ManualClock clock;
  const auto device = std::make_shared<SimulatedDevice>(clock, SimulatedDevice::Profile{});
  SimulatedStorage storage("file", random_bytes(100, 1), device);
  const Buffer buffer = *storage.acquire(0, kPage);
  storage.submit({.offset = 0, .length = kPage, .destination = buffer.get(), .tag = 3});
  clock.advance(*storage.next_completion_ns());
  std::vector<Completion> completions;
  storage.poll(completions);
  ASSERT_EQ(completions.size(), 1U);
  EXPECT_EQ(completions[0].status.error().code, ErrorCode::kTruncated);
}

}  // namespace
}  // namespace edge
