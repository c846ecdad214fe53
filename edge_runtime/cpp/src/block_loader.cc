#include "block_loader.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

namespace edge {

namespace {

bool overlap(std::uint64_t a, std::uint64_t a_length, std::uint64_t b, std::uint64_t b_length) {
  return a < b + b_length && b < a + a_length;
}

// Whether [begin, begin + length) of a block holds a part of the layer: of its scales or of its tensors.
bool touches(const BankLevelSpec& spec, std::uint64_t layer, std::uint64_t begin, std::uint64_t length) {
  return overlap(begin, length, spec.scale_offset(layer), spec.layer_scale_bytes()) ||
         overlap(begin, length, spec.layer_offset(layer), spec.layer_bytes());
}

std::uint64_t pages(std::uint64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

std::string where(const Block& block) {
  return " (level " + std::to_string(block.node.level) + ", node " + std::to_string(block.node.index) + ", row " +
         std::to_string(block.row) + ", block at offset " + std::to_string(block.file->bank.block_offset(block.row)) +
         ")";
}

}  // namespace

BlockLoader::BlockLoader(std::vector<Storage*> storages, bool verify, std::uint64_t chunk_bytes)
    : storages_(std::move(storages)), verify_(verify), chunk_bytes_(chunk_bytes) {}

void BlockLoader::begin(std::span<Block* const> blocks, Urgency urgency) {
  std::vector<std::pair<std::uint64_t, Read>> reads;  // with the first layer that each brings
  for (Block* const block : blocks) {
    const BankLevelSpec& spec = block->file->bank.spec();
    // A request's first layer waits for the first reads of all blocks: they end with it. Those that follow grow.
    std::uint64_t chunk = std::min(pages(spec.layer_offset(0) + spec.layer_bytes()), chunk_bytes_);
    for (std::uint64_t begin = 0, length = 0; begin < block->bytes; begin += length) {
      length = std::min(chunk, block->bytes - begin);
      chunk = std::min(2 * chunk, chunk_bytes_);
      std::uint64_t first = spec.layers();
      for (std::uint64_t layer = 0; layer < spec.layers(); ++layer) {
        if (!touches(spec, layer, begin, length)) continue;
        first = std::min(first, layer);
        ++block->layers[layer].missing;
      }
      reads.emplace_back(first, Read{block, begin, length, std::nullopt});
    }
  }
  std::stable_sort(reads.begin(), reads.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::deque<Read>& queue = urgency == Urgency::kFetch ? queue_ : hints_;
  for (auto& [first, read] : reads) queue.push_back(read);
}

void BlockLoader::promote(const Block& block) {
  const auto of_block = [&](const Read& read) { return read.block == &block; };
  std::copy_if(hints_.begin(), hints_.end(), std::back_inserter(queue_), of_block);
  std::erase_if(hints_, of_block);
}

void BlockLoader::abandon(const Block& block) {
  const auto of_block = [&](const auto& work) { return work.block == &block; };
  std::erase_if(queue_, of_block);
  std::erase_if(hints_, of_block);
  std::erase_if(unverified_, of_block);
}

void BlockLoader::submit() {
  for (auto read = queue_.begin(); read != queue_.end();) {
    const Storage* const storage = read->block->file->storage.get();
    if (outstanding_[storage] >= storage->depth()) {
      ++read;
      continue;
    }
    start(*read);
    read = queue_.erase(read);
  }
  if (!hints_.empty() && under_way_.empty()) {
    start(hints_.front());
    hints_.pop_front();
  }
}

void BlockLoader::start(const Read& read) {
  Block& block = *read.block;
  Storage* const storage = block.file->storage.get();
  ++outstanding_[storage];
  ++block.busy;
  ++requests_;
  const std::uint64_t tag = next_tag_++;
  under_way_.emplace(tag, read);
  storage->submit({.offset = block.file->bank.block_offset(block.row) + read.begin,
                   .length = read.length,
                   .destination = block.buffer.get() + read.begin,
                   .tag = tag,
                   .again = read.again.has_value()});
}

void BlockLoader::collect(const std::function<void(Block&)>& changed) {
  if (under_way_.empty()) return;
  std::vector<Completion> completions;
  for (Storage* const storage : storages_) {
    completions.clear();
    storage->poll(completions);
    outstanding_[storage] -= completions.size();
    for (Completion& completion : completions) {
      const Read read = under_way_.extract(completion.tag).mapped();
      Block& block = *read.block;
      --block.busy;
      if (completion.status) block.counters->bytes_read += read.length;
      if (block.attached && !block.error) {
        if (completion.status) {
          arrived(read);
        } else {
          fail_block(block, std::move(completion.status.error()));
        }
      }
      changed(block);
    }
  }
}

void BlockLoader::arrived(const Read& read) {
  if (read.again) return count_down(*read.block, *read.again);
  const BankLevelSpec& spec = read.block->file->bank.spec();
  for (std::uint64_t layer = 0; layer < spec.layers(); ++layer) {
    if (touches(spec, layer, read.begin, read.length)) count_down(*read.block, layer);
  }
}

void BlockLoader::count_down(Block& block, std::uint64_t layer) {
  if (--block.layers[layer].missing > 0) return;
  if (verify_) {
    unverified_.push_back({&block, &block.file->bank, block.row, {block.buffer.get(), block.bytes}, layer});
  } else {
    block.layers[layer].ready = true;
    ++block.layers_ready;
  }
}

LayerVerdict LayerCheck::run() const {
  if (layer_checksum(bank->spec(), bytes, layer) != bank->checksum(row, layer)) return LayerVerdict::kMismatch;
  return scales_are_valid(bank->spec(), bytes, layer) ? LayerVerdict::kGood : LayerVerdict::kBadScale;
}

std::optional<LayerCheck> BlockLoader::take_check() {
  if (unverified_.empty()) return std::nullopt;
  const LayerCheck check = unverified_.front();
  unverified_.pop_front();
  ++check.block->busy;
  return check;
}

void BlockLoader::finish_check(const LayerCheck& check, LayerVerdict verdict) {
  Block& block = *check.block;
  --block.busy;
  if (!block.attached || block.error) return;
  const std::string what = check.bank->path() + ": layer " + std::to_string(check.layer);
  if (verdict == LayerVerdict::kGood) {
    block.layers[check.layer].ready = true;
    ++block.layers_ready;
  } else if (verdict == LayerVerdict::kBadScale) {
    fail_block(block,
               {ErrorCode::kBadFormat, what + " has a scale that is negative or not finite; write the file again"});
  } else if (!block.layers[check.layer].again) {
    read_again(block, check.layer);
  } else {
    fail_block(block, {ErrorCode::kChecksum,
                       what + " differs from its checksum after one re-read; the file is damaged: restore it"});
  }
}

void BlockLoader::read_again(Block& block, std::uint64_t layer) {
  // Exactly the layer's bytes: its neighbours may be verified and in use, and are not written again.
  const BankLevelSpec& spec = block.file->bank.spec();
  Block::Layer& state = block.layers[layer];
  state.again = true;
  ++rereads_;
  const auto queue = [&](std::uint64_t begin, std::uint64_t length) {
    if (length == 0) return;
    ++state.missing;
    queue_.push_front({&block, begin, length, layer});
  };
  queue(spec.layer_offset(layer), spec.layer_bytes());
  queue(spec.scale_offset(layer), spec.layer_scale_bytes());
}

void BlockLoader::fail_block(Block& block, Error error) {
  error.message += where(block);
  block.error = std::move(error);
  abandon(block);
}

void BlockLoader::drain() {
  for (Storage* const storage : storages_) storage->drain();
}

}  // namespace edge
