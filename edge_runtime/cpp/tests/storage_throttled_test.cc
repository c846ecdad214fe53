// A throttled storage is never faster than its device. How much slower it is, the machine decides.
#include "edge_runtime/storage_throttled.h"

#include <cstring>
#include <memory>
#include <vector>

#include "bank_fixture.h"
#include "storage_fixture.h"

namespace edge {
namespace {

using testing::kFileBytes;
using testing::kPages;
using testing::random_bytes;
using testing::Reader;
using testing::TempDir;
using testing::write_bytes;

constexpr std::int64_t kMillisecond = 1'000'000;

class ThrottledStorageTest : public ::testing::Test {
 protected:
  void SetUp() override { write_bytes(path_, bytes_); }
  std::unique_ptr<ThrottledStorage> open(const std::shared_ptr<ThrottledDevice>& throttle) {
    return std::make_unique<ThrottledStorage>(*open_direct(path_, device_), throttle);
  }

  TempDir dir_;
  std::string path_ = dir_.file("file");
  std::vector<std::byte> bytes_ = random_bytes(kFileBytes, 5);
  std::shared_ptr<Device> device_ = make_device();
};

TEST_F(ThrottledStorageTest, FilesOfOneDeviceShareItsBandwidth) {
  // 40 pages of 16 KiB in 20 ms.
  const double bandwidth = static_cast<double>(kPages * kPage) * 50;
  const auto throttle = std::make_shared<ThrottledDevice>(
      SimulatedDevice::Profile{.latency_ns = 0, .bytes_per_second = bandwidth, .lanes = 4});
  const auto first = open(throttle);
  const auto second = open(throttle);
  EXPECT_NE(first->report().reason.find("throttled"), std::string::npos);
  EXPECT_EQ(first->depth(), 8U);
  Reader first_reader(*first);
  Reader second_reader(*second);
  const Buffer buffer = *first->acquire(0, kPages * kPage);
  const std::int64_t begin = system_clock().now_ns();
  for (std::uint64_t page = 0; page < kPages; ++page) {
    Storage& storage = page % 2 == 0 ? *first : *second;
    storage.submit({.offset = page * kPage, .length = kPage, .destination = buffer.get() + page * kPage, .tag = page});
  }
  EXPECT_EQ(first_reader.completions(kPages / 2).size(), kPages / 2);
  EXPECT_EQ(second_reader.completions(kPages / 2).size(), kPages / 2);
  EXPECT_GE(system_clock().now_ns() - begin, 20 * kMillisecond - kMillisecond / 10);
  EXPECT_EQ(std::memcmp(buffer.get(), bytes_.data(), kPages * kPage), 0);
}

TEST_F(ThrottledStorageTest, RequestsBeyondItsLanesWaitForOne) {
  const auto throttle = std::make_shared<ThrottledDevice>(
      SimulatedDevice::Profile{.latency_ns = 5 * kMillisecond, .bytes_per_second = 1e12, .lanes = 2});
  const auto storage = open(throttle);
  Reader reader(*storage);
  const Buffer buffer = *storage->acquire(0, kPages * kPage);
  const std::int64_t begin = system_clock().now_ns();
  for (std::uint64_t page = 0; page < 6; ++page) {
    storage->submit({.offset = page * kPage, .length = kPage, .destination = buffer.get() + page * kPage, .tag = page});
  }
  EXPECT_EQ(reader.completions(6).size(), 6U);
  EXPECT_GE(system_clock().now_ns() - begin, 15 * kMillisecond);
}

TEST_F(ThrottledStorageTest, DrainForgetsWhatIsUnderWay) {
  const auto storage = open(std::make_shared<ThrottledDevice>(
      SimulatedDevice::Profile{.latency_ns = 3'600'000 * kMillisecond, .bytes_per_second = 1e9, .lanes = 1}));
  const Buffer buffer = *storage->acquire(0, kPage);
  storage->submit({.offset = 0, .length = kPage, .destination = buffer.get(), .tag = 1});
  storage->drain();
  std::vector<Completion> completions;
  storage->poll(completions);
  EXPECT_TRUE(completions.empty());
}

}  // namespace
}  // namespace edge
