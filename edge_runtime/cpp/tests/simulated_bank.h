// A pager over files in memory, on a clock that the test moves.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bank_fixture.h"
#include "edge_runtime/clock.h"
#include "edge_runtime/dtype.h"
#include "edge_runtime/pager.h"
#include "edge_runtime/storage_faulty.h"
#include "edge_runtime/storage_simulated.h"

namespace edge::testing {

class SimulatedBank {
 public:
  // Levels 0, 1 and 2; blocks of 5, 3 and 2 pages in f32. `leaves`: the nodes of level 2 that have one, all where
  // empty.
  explicit SimulatedBank(DType dtype = DType::kF32, const std::vector<std::uint64_t>& leaves = {}) {
    add({.level = 0, .dtype = dtype, .rows_per_block = 24});
    add({.level = 1, .dtype = dtype, .rows_per_block = 16});
    add({.level = 2, .dtype = dtype, .rows_per_block = 8, .nodes = leaves});
  }

  // One more file: an overlay where the level exists.
  void add(const LevelShape& shape) {
    const std::string path = dir_.file("file" + std::to_string(files_.size()) + ".safetensors");
    write_level(path, shape);
    files_.push_back({shape.level, path, read_file(path)});
  }

  // Of whole reads, before the pager is opened; a page otherwise.
  void read_at_once(std::uint64_t bytes) { chunk_bytes_ = bytes; }

  // Opens the pager. Budget in bytes.
  Status try_open(PagerOptions options) {
    options.chunk_bytes = chunk_bytes_;
    std::vector<PagedLevel> levels;
    for (const File& file : files_) {
      auto bank = BankLevel::open(file.path);
      if (!bank) return tl::make_unexpected(bank.error());
      levels.resize(std::max<std::size_t>(levels.size(), file.level + 1));
      auto simulated = std::make_unique<SimulatedStorage>(file.path, file.bytes, device_);
      simulated_.push_back(simulated.get());
      auto faulty = std::make_unique<FaultyStorage>(std::move(simulated), std::vector<Fault>{});
      faulty_.push_back(faulty.get());
      levels[file.level].push_back({std::move(*bank), std::move(faulty)});
    }
    auto opened = Pager::open(std::move(levels), options, clock_);
    if (!opened) return tl::make_unexpected(opened.error());
    pager_ = std::move(*opened);
    return {};
  }
  void open(const PagerOptions& options) {
    const Status opened = try_open(options);
    ASSERT_TRUE(opened) << opened.error().message;
  }
  void open(std::uint64_t budget) { open(PagerOptions{.budget = budget}); }

  Pager& pager() { return *pager_; }
  ManualClock& clock() { return clock_; }
  FaultyStorage& storage(std::size_t file) { return *faulty_[file]; }
  const std::string& path(std::size_t file) const { return files_[file].path; }

  // Moves the clock to the next completion and handles it; false when nothing is under way.
  bool step() {
    std::optional<std::int64_t> next;
    for (const SimulatedStorage* storage : simulated_) {
      const auto due = storage->next_completion_ns();
      if (due && (!next || *due < *next)) next = due;
    }
    if (next) clock_.advance(std::max<std::int64_t>(0, *next - clock_.now_ns()));
    while (pager_->poll()) {
    }
    return next.has_value();
  }
  void run() {
    while (step()) {
    }
  }

  // A lease whose blocks have all arrived.
  LeaseId fetched(const std::vector<Node>& nodes, std::optional<LeaseId> replacing = std::nullopt) {
    const auto lease = pager_->fetch(nodes, replacing);
    EXPECT_TRUE(lease) << lease.error().message;
    run();
    const auto ready = pager_->ready(lease.value_or(0));
    EXPECT_TRUE(ready && *ready) << (ready ? "not ready" : ready.error().message);
    return lease.value_or(0);
  }

  // Whether the lease's blocks are those of `nodes`, byte for byte.
  void expect_contents(LeaseId lease, const std::vector<Node>& nodes) const {
    const auto blocks = pager_->blocks(lease);
    ASSERT_TRUE(blocks);
    ASSERT_EQ(blocks->size(), nodes.size());
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      const auto want = expected(nodes[i]);
      EXPECT_EQ((*blocks)[i].node, nodes[i]);
      EXPECT_EQ(std::memcmp((*blocks)[i].data, want.data(), want.size()), 0);
    }
  }

  // The bytes of a node's block as its file has them: of the last file of the level that has the node.
  std::span<const std::byte> expected(Node node) const {
    for (auto file = files_.rbegin(); file != files_.rend(); ++file) {
      if (file->level != node.level) continue;
      const auto bank = BankLevel::open(file->path);
      const std::int32_t row = bank->row_of(node.index);
      if (row < 0) continue;
      return {file->bytes.data() + bank->block_offset(static_cast<std::uint64_t>(row)), bank->spec().stride()};
    }
    return {};
  }

  std::uint64_t stride(std::uint32_t level) const { return BankLevel::open(files_[level].path)->spec().stride(); }

 private:
  struct File {
    std::uint32_t level;
    std::string path;
    std::vector<std::byte> bytes;
  };

  TempDir dir_;
  std::vector<File> files_;
  std::uint64_t chunk_bytes_ = kPage;
  ManualClock clock_;
  std::shared_ptr<SimulatedDevice> device_ = std::make_shared<SimulatedDevice>(clock_, SimulatedDevice::Profile{});
  std::vector<SimulatedStorage*> simulated_;
  std::vector<FaultyStorage*> faulty_;
  std::unique_ptr<Pager> pager_;
};

}  // namespace edge::testing
