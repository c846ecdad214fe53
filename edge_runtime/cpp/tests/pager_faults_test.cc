// Damage and failing reads: an error or the right bytes, never wrong ones.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "edge_runtime/pager.h"
#include "simulated_bank.h"

namespace edge {
namespace {

using testing::kLayers;
using testing::SimulatedBank;

constexpr std::uint64_t kPlenty = 1U << 22U;
constexpr std::size_t kFile = 1;  // of level 1
constexpr Node kNode = {1, 2};

// A place in the block of kNode: its scales, a byte within a layer, and bytes at layers' and reads' edges.
std::vector<std::uint64_t> places(const BankLevel& bank) {
  const BankLevelSpec& spec = bank.spec();
  std::vector<std::uint64_t> offsets = {kPage, kPage - 1, 2 * kPage};
  for (std::uint64_t layer = 0; layer < kLayers; ++layer) {
    offsets.push_back(spec.layer_offset(layer));
    offsets.push_back(spec.layer_offset(layer) + spec.layer_bytes() / 2);
    offsets.push_back(spec.layer_offset(layer) + spec.layer_bytes() - 1);
    if (spec.layer_scale_bytes() > 0) offsets.push_back(spec.scale_offset(layer));
  }
  const std::uint64_t end = spec.layer_offset(kLayers);
  std::erase_if(offsets, [&](std::uint64_t offset) { return offset >= end; });
  for (std::uint64_t& offset : offsets)
    offset += bank.block_offset(static_cast<std::uint64_t>(bank.row_of(kNode.index)));
  return offsets;
}

class PagerFaults : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(All, PagerFaults, ::testing::Values(DType::kF32, DType::kI8),
                         [](const auto& instance) { return std::string(name(instance.param)); });

TEST_P(PagerFaults, OneFlippedBitIsReadAgainAndServedRight) {
  SimulatedBank bank(GetParam());
  bank.open(kPlenty);
  for (const std::uint64_t place : places(*BankLevel::open(bank.path(kFile)))) {
    bank.storage(kFile).add({place, FaultKind::kBitFlip, 1});
    const std::uint64_t before = bank.pager().stats().rereads;
    const LeaseId lease = bank.fetched({kNode});
    EXPECT_EQ(bank.pager().stats().rereads, before + 1) << place;
    const auto expected = bank.expected(kNode);
    EXPECT_EQ(std::memcmp(bank.pager().blocks(lease)->at(0).data, expected.data(), expected.size()), 0) << place;
    bank.pager().release(lease);
    bank.pager().shrink(kPlenty);
  }
}

TEST_P(PagerFaults, LastingDamageIsAnErrorThatNamesThePlace) {
  SimulatedBank bank(GetParam());
  bank.open(kPlenty);
  const auto file = *BankLevel::open(bank.path(kFile));
  for (const std::uint64_t place : places(file)) {
    bank.storage(kFile).add({place, FaultKind::kBitFlip, 2});
    const LeaseId lease = *bank.pager().fetch(std::vector<Node>{kNode, {2, 1}});
    bank.run();
    const auto ready = bank.pager().ready(lease);
    ASSERT_FALSE(ready) << place;
    EXPECT_EQ(ready.error().code, ErrorCode::kChecksum);
    for (const std::string& part : {bank.path(kFile), std::string("level 1"), std::string("node 2"),
                                    std::string("row 2"), std::to_string(file.block_offset(2))}) {
      EXPECT_NE(ready.error().message.find(part), std::string::npos) << ready.error().message;
    }
    bank.pager().release(lease);
    // The damage is spent: a new fetch reads the block anew.
    const LeaseId again = bank.fetched({kNode});
    const auto expected = bank.expected(kNode);
    EXPECT_EQ(std::memcmp(bank.pager().blocks(again)->at(0).data, expected.data(), expected.size()), 0);
    bank.pager().release(again);
    bank.pager().shrink(kPlenty);
  }
}

TEST_P(PagerFaults, LayersBeforeTheDamageStayAsTheyWereServed) {
  SimulatedBank bank(GetParam());
  bank.open(kPlenty);
  const auto file = *BankLevel::open(bank.path(kFile));
  const BankLevelSpec& spec = file.spec();
  // The last layer is damaged once; its re-read also brings a flip in the page that it shares with layer 2.
  const std::uint64_t block = file.block_offset(2);
  bank.storage(kFile).add({block + spec.layer_offset(3) + 100, FaultKind::kBitFlip, 1});
  bank.storage(kFile).add({block + spec.layer_offset(3) + 5, FaultKind::kBitFlip, 2});
  const LeaseId lease = *bank.pager().fetch(std::vector<Node>{kNode});
  const auto expected = bank.expected(kNode);
  do {
    for (std::uint64_t layer = 0; layer < kLayers; ++layer) {
      const auto ready = bank.pager().ready(lease, layer);
      if (!ready || !*ready) continue;
      const std::byte* const data = bank.pager().blocks(lease)->at(0).data;
      EXPECT_EQ(
          std::memcmp(data + spec.layer_offset(layer), expected.data() + spec.layer_offset(layer), spec.layer_bytes()),
          0);
      EXPECT_EQ(std::memcmp(data + spec.scale_offset(layer), expected.data() + spec.scale_offset(layer),
                            spec.layer_scale_bytes()),
                0);
    }
  } while (bank.step());
  EXPECT_EQ(bank.pager().ready(lease).error().code, ErrorCode::kChecksum);
  EXPECT_EQ(bank.pager().stats().failures, 1U);
}

// A block's last bytes belong to no layer: damage there is nobody's error.
TEST(Pager, DamageInThePaddingIsNotServed) {
  SimulatedBank bank(DType::kI8);
  bank.open(kPlenty);
  const auto file = *BankLevel::open(bank.path(kFile));
  const BankLevelSpec& spec = file.spec();
  ASSERT_LT(spec.layer_offset(kLayers), spec.stride());
  bank.storage(kFile).add({file.block_offset(2) + spec.layer_offset(kLayers), FaultKind::kBitFlip, 1});
  const LeaseId lease = bank.fetched({kNode});
  EXPECT_EQ(bank.pager().stats().rereads, 0U);
  EXPECT_EQ(
      std::memcmp(bank.pager().blocks(lease)->at(0).data, bank.expected(kNode).data(), spec.layer_offset(kLayers)), 0);
}

TEST_P(PagerFaults, FailingReadsAreErrorsAndDoNotLeakBudget) {
  for (const auto& [kind, code] :
       {std::pair(FaultKind::kIoError, ErrorCode::kIo), std::pair(FaultKind::kShortRead, ErrorCode::kTruncated)}) {
    SimulatedBank bank(GetParam());
    bank.open(bank.stride(1));  // not a byte to spare
    for (const std::uint64_t place : places(*BankLevel::open(bank.path(kFile)))) {
      bank.storage(kFile).add({place, kind, 1});
      const LeaseId lease = *bank.pager().fetch(std::vector<Node>{kNode});
      const LeaseId shared = *bank.pager().fetch(std::vector<Node>{kNode});
      bank.run();
      EXPECT_EQ(bank.pager().ready(lease).error().code, code);
      EXPECT_EQ(bank.pager().ready(shared, 0).error().code, code);
      bank.pager().release(lease);
      bank.pager().release(shared);
      EXPECT_EQ(bank.pager().stats().in_flight_bytes, 0U);
      bank.pager().release(bank.fetched({kNode}));
      bank.pager().shrink(bank.stride(1));  // so that the next place is read again
    }
  }
}

TEST_P(PagerFaults, AnErrorInOneBlockLeavesOtherLeasesAlone) {
  SimulatedBank bank(GetParam());
  bank.open(kPlenty);
  bank.storage(kFile).add({BankLevel::open(bank.path(kFile))->block_offset(2), FaultKind::kIoError, 1});
  const LeaseId good = *bank.pager().fetch(std::vector<Node>{{1, 1}, {2, 4}});
  const LeaseId bad = *bank.pager().fetch(std::vector<Node>{kNode, {2, 4}});
  bank.run();
  EXPECT_TRUE(*bank.pager().ready(good));
  EXPECT_FALSE(bank.pager().ready(bad));
  // A retry while the failed lease is still open.
  const LeaseId retry = bank.fetched({kNode});
  EXPECT_EQ(std::memcmp(bank.pager().blocks(retry)->at(0).data, bank.expected(kNode).data(), bank.stride(1)), 0);
}

TEST(Pager, WithoutVerificationDamageGoesUnseen) {
  SimulatedBank bank;
  bank.open(PagerOptions{.budget = kPlenty, .verify = false});
  bank.storage(kFile).add({BankLevel::open(bank.path(kFile))->block_offset(2), FaultKind::kBitFlip, 1});
  const LeaseId lease = bank.fetched({kNode});
  EXPECT_NE(std::memcmp(bank.pager().blocks(lease)->at(0).data, bank.expected(kNode).data(), bank.stride(1)), 0);
  EXPECT_EQ(bank.pager().stats().rereads, 0U);
}

}  // namespace
}  // namespace edge
