#include "edge_runtime/native.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "edge_runtime/isa.h"
#include "native_fixture.h"

namespace edge::testing {
namespace {

// Further neurons in two blocks, which lie in f32; a layer can be made to fail.
class Neurons final : public MemorySource {
 public:
  explicit Neurons(const NativeConfig& config) : d_(config.d_model) {
    std::mt19937 random(5);
    for (std::size_t i = 0; i < config.memory_layers.size(); ++i) {
      first_.push_back(random_values(3 * kFirst * d_, 0.3F, random));
      second_.push_back(random_values(3 * kSecond * d_, 0.3F, random));
    }
  }
  Status layer(std::uint32_t layer, std::vector<MemoryRows>& rows) override {
    if (layer + 1 == fails_at) return fail(ErrorCode::kChecksum, "damaged");
    rows.clear();
    rows.push_back({DType::kF32, kFirst, reinterpret_cast<const std::byte*>(first_[layer].data()), nullptr});
    rows.push_back({DType::kF32, kSecond, reinterpret_cast<const std::byte*>(second_[layer].data()), nullptr});
    return {};
  }
  std::uint32_t layers() const override { return static_cast<std::uint32_t>(first_.size()); }
  std::uint32_t d_model() const override { return static_cast<std::uint32_t>(d_); }
  // As one matrix [3, rows, d] a layer.
  std::vector<std::vector<float>> joined() const {
    std::vector<std::vector<float>> all(first_.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
      for (std::size_t matrix = 0; matrix < 3; ++matrix) {
        for (const auto* const block : {&first_[i], &second_[i]}) {
          const auto third = static_cast<std::ptrdiff_t>(block->size() / 3);
          const auto begin = block->begin() + static_cast<std::ptrdiff_t>(matrix) * third;
          all[i].insert(all[i].end(), begin, begin + third);
        }
      }
    }
    return all;
  }

  std::uint32_t fails_at = 0;  // the layer, from 1

 private:
  static constexpr std::size_t kFirst = 9;
  static constexpr std::size_t kSecond = 20;
  std::size_t d_;
  std::vector<std::vector<float>> first_;
  std::vector<std::vector<float>> second_;
};

// Longer than what goes through the layers together, and than two chunks of keys.
std::vector<std::int64_t> some_tokens(const NativeConfig& config, std::size_t count = 150) {
  std::mt19937 random(7);
  std::uniform_int_distribution<std::int64_t> ids(0, config.vocab_size - 1);
  std::vector<std::int64_t> tokens(count);
  for (std::int64_t& token : tokens) token = ids(random);
  return tokens;
}

std::vector<float> forward(NativeContext& context, std::span<const std::int64_t> tokens, std::int64_t memory = 0) {
  const auto logits = context.forward(tokens, memory);
  EXPECT_TRUE(logits) << (logits ? "" : logits.error().message);
  return logits ? std::vector<float>(logits->begin(), logits->end()) : std::vector<float>();
}

void expect_near(const std::vector<float>& found, const std::vector<double>& wanted, double tolerance) {
  ASSERT_EQ(found.size(), wanted.size());
  for (std::size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(static_cast<double>(found[i]), wanted[i], tolerance) << i;
}

// Restores the best instruction set.
struct IsaScope {
  explicit IsaScope(Isa isa) { EXPECT_TRUE(set_isa(isa)); }
  ~IsaScope() { EXPECT_TRUE(set_isa(supported_isas().back())); }
  IsaScope(const IsaScope&) = delete;
  IsaScope& operator=(const IsaScope&) = delete;
};

TEST(NativeTest, LogitsAreWhatTheFormulaSaysWithEveryInstructionSet) {
  for (const NativeConfig& config : {openlm_like(), llama_like(), gemma_like(), olmo_like()}) {
    const TempDir directory;
    const NativeAnchor anchor(directory, config, DType::kF32);
    const auto memory = std::make_shared<Neurons>(config);
    const std::int64_t handle = register_source(memory);
    const auto tokens = some_tokens(config);
    const auto wanted = anchor.logits(tokens);
    const auto wanted_with_memory = anchor.logits(tokens, memory->joined());
    for (const Isa isa : supported_isas()) {
      SCOPED_TRACE(name(isa));
      const IsaScope scope(isa);
      NativeContext context(anchor.open());
      expect_near(forward(context, tokens), wanted, 2e-3);
      context.reset();
      expect_near(forward(context, tokens, handle), wanted_with_memory, 2e-3);
    }
    unregister_source(handle);
  }
}

TEST(NativeTest, AnchorsInTwoBytesSayWhatTheirValuesSay) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    SCOPED_TRACE(name(dtype));
    const TempDir directory;
    const NativeAnchor anchor(directory, openlm_like(), dtype);
    const auto tokens = some_tokens(openlm_like(), 70);
    NativeContext context(anchor.open());
    expect_near(forward(context, tokens), anchor.logits(tokens), 2e-3);
  }
}

// Beside packed rows activations are rounded to 8 bits, which small random anchors do not average out; with wrong rows
// or scales the error would be as large as the logits.
TEST(NativeTest, PackedAnchorsSayAboutWhatTheirValuesSay) {
  for (const DType dtype : {DType::kI8, DType::kI4}) {
    SCOPED_TRACE(name(dtype));
    const TempDir directory;
    const NativeAnchor anchor(directory, openlm_like(), dtype);
    const auto tokens = some_tokens(openlm_like(), 70);
    NativeContext context(anchor.open());
    const auto found = forward(context, tokens);
    const auto wanted = anchor.logits(tokens);
    double errors = 0;
    double squares = 0;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      errors += std::pow(static_cast<double>(found[i]) - wanted[i], 2);
      squares += wanted[i] * wanted[i];
    }
    EXPECT_LT(std::sqrt(errors / squares), 0.08);
  }
}

void expect_one_answer(const NativeConfig& config) {
  const auto tokens = some_tokens(config);
  const auto memory = std::make_shared<Neurons>(config);
  const std::int64_t handle = register_source(memory);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kI8, DType::kI4}) {
    const TempDir directory;
    const NativeAnchor anchor(directory, config, dtype);
    std::set<std::vector<float>> found;
    for (const std::size_t threads : {1, 3}) {
      const auto model = anchor.open(threads);
      for (const std::size_t call : {1, 5, 64, 150}) {
        NativeContext context(model);
        std::vector<float> logits;
        for (std::size_t first = 0; first < tokens.size(); first += call) {
          logits = forward(context, std::span(tokens).subspan(first, std::min(call, tokens.size() - first)), handle);
        }
        found.insert(logits);
      }
    }
    EXPECT_EQ(found.size(), 1U) << name(dtype);
  }
  unregister_source(handle);
}

TEST(NativeTest, BitsDependNeitherOnThreadsNorOnCalls) {
  expect_one_answer(openlm_like());
  expect_one_answer(gemma_like());
}

TEST(NativeTest, AFailedCallLeavesTheContextAsItWas) {
  const NativeConfig config = openlm_like();
  const TempDir directory;
  const NativeAnchor anchor(directory, config, DType::kF32);
  const auto memory = std::make_shared<Neurons>(config);
  const std::int64_t handle = register_source(memory);
  const auto tokens = some_tokens(config, 40);
  NativeContext context(anchor.open());
  NativeContext untouched(anchor.open());
  for (auto* const both : {&context, &untouched}) forward(*both, std::span(tokens).first(20));
  memory->fails_at = 2;
  const auto failed = context.forward(std::span(tokens).first(15), handle);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ErrorCode::kChecksum);
  EXPECT_EQ(context.position(), 20U);
  EXPECT_EQ(forward(context, std::span(tokens).subspan(20)), forward(untouched, std::span(tokens).subspan(20)));
  unregister_source(handle);
  const auto stale = context.forward(std::span(tokens).first(1), handle);
  ASSERT_FALSE(stale);
  EXPECT_EQ(stale.error().code, ErrorCode::kStaleHandle);
}

TEST(NativeTest, WhatDoesNotFitIsRefused) {
  const NativeConfig config = openlm_like();
  const TempDir directory;
  const NativeAnchor anchor(directory, config, DType::kF32);
  NativeContext context(anchor.open());
  const auto tokens = some_tokens(config, config.context_length);
  forward(context, std::span(tokens).first(199));
  const std::vector<std::int64_t> beyond = {50};
  const std::vector<std::int64_t> negative = {-1};
  for (const auto& refused : {std::span(tokens).first(2), std::span(tokens).first(0),
                              std::span<const std::int64_t>(beyond), std::span<const std::int64_t>(negative)}) {
    const auto logits = context.forward(refused, 0);
    ASSERT_FALSE(logits);
    EXPECT_EQ(logits.error().code, ErrorCode::kInvalidArgument);
  }
  const auto other = std::make_shared<Neurons>(llama_like());
  const std::int64_t handle = register_source(other);
  EXPECT_FALSE(context.forward(std::span(tokens).first(1), handle));
  unregister_source(handle);
  EXPECT_EQ(context.position(), 199U);
  forward(context, std::span(tokens).first(1));
  EXPECT_FALSE(NativeModel::open(anchor.path, config, 0));
}

TEST(NativeTest, AFileOfAnotherAnchorIsRefused) {
  const TempDir directory;
  const NativeAnchor anchor(directory, openlm_like(), DType::kI4);
  for (std::uint32_t NativeConfig::* const member :
       {&NativeConfig::layers, &NativeConfig::d_model, &NativeConfig::ffn_dim, &NativeConfig::vocab_size,
        &NativeConfig::heads}) {
    NativeConfig config = openlm_like();
    config.*member *= 2;
    const auto model = NativeModel::open(anchor.path, config, 1);
    ASSERT_FALSE(model);
    EXPECT_EQ(model.error().code, ErrorCode::kBadFormat);
    EXPECT_EQ(model.error().message.find(anchor.path), 0U);
  }
}

TEST(NativeTest, ACutFileIsRefusedWhereverItIsCut) {
  const TempDir directory;
  const NativeAnchor anchor(directory, openlm_like(), DType::kI8);
  const auto size = std::filesystem::file_size(anchor.path);
  for (std::uintmax_t cut = 1; cut <= size; cut += size / 50) {
    std::filesystem::resize_file(anchor.path, size - cut);
    const auto model = NativeModel::open(anchor.path, openlm_like(), 1);
    ASSERT_FALSE(model) << cut;
    EXPECT_EQ(model.error().code, ErrorCode::kTruncated) << cut;
  }
}

}  // namespace
}  // namespace edge::testing
