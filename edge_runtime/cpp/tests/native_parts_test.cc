// The native engine's parts by themselves: its configuration, its writer, its threads, its exponentials.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <nlohmann/json.hpp>

#include "edge_runtime/isa.h"
#include "kernels/kernels.h"
#include "native/thread_team.h"
#include "native_fixture.h"

namespace edge::testing {
namespace {

nlohmann::json anchor_object() {
  return {{"architecture", "openlm"},
          {"layers", 3},
          {"d_model", 64},
          {"heads", 2},
          {"kv_heads", 2},
          {"head_dim", 32},
          {"ffn_dim", 96},
          {"vocab_size", 50},
          {"qk_norm", true},
          {"context_length", 200},
          {"rope_theta", 1e5},
          {"norm_eps", 1e-5},
          {"norm", "layernorm"},
          {"activation", "silu"},
          {"tied_embeddings", true},
          {"parameters", 1}};
}

TEST(NativeConfigTest, ReadsTheManifestsAnchor) {
  const auto config = parse_native_config(anchor_object().dump(), {0, 2});
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->query_width(), 64U);
  EXPECT_TRUE(config->centred_norm);
  EXPECT_TRUE(config->qk_norm);
  EXPECT_EQ(config->memory_layers.size(), 2U);
}

TEST(NativeConfigTest, NamesTheKeyThatIsWrong) {
  const std::vector<std::tuple<const char*, nlohmann::json, ErrorCode>> changes = {
      {"layers", 0, ErrorCode::kBadFormat},
      {"d_model", "64", ErrorCode::kBadFormat},
      {"head_dim", 31, ErrorCode::kUnsupported},
      {"head_dim", 512, ErrorCode::kBadFormat},
      {"kv_heads", 3, ErrorCode::kUnsupported},
      {"norm_eps", -1, ErrorCode::kBadFormat},
      {"qk_norm", 1, ErrorCode::kBadFormat},
      {"norm", "batchnorm", ErrorCode::kUnsupported},
      {"activation", "gelu", ErrorCode::kUnsupported},
      {"architecture", "mamba", ErrorCode::kUnsupported},
  };
  for (const auto& [key, value, code] : changes) {
    auto anchor = anchor_object();
    anchor[key] = value;
    const auto config = parse_native_config(anchor.dump(), {});
    ASSERT_FALSE(config) << key;
    EXPECT_EQ(config.error().code, code) << key;
    EXPECT_NE(config.error().message.find(std::string("anchor.") + key), std::string::npos) << config.error().message;
  }
  EXPECT_FALSE(parse_native_config(anchor_object().dump(), {3}));
  EXPECT_FALSE(parse_native_config(anchor_object().dump(), {1, 1}));
  EXPECT_FALSE(parse_native_config("[]", {}));
}

TEST(NativeWriterTest, TakesWholeRowsInOrderAndAllOfThem) {
  const TempDir directory;
  const std::string path = directory.file("anchor");
  auto writer = NativeWriter::create(path, openlm_like(), DType::kI8);
  ASSERT_TRUE(writer);
  EXPECT_FALSE(writer->append(std::vector<float>(65)));
  EXPECT_FALSE(writer->append(std::vector<float>(51 * 64)));
  EXPECT_FALSE(writer->append(std::vector<float>(64, std::nanf(""))));
  EXPECT_TRUE(writer->append(std::vector<float>(std::size_t{30} * 64)));
  EXPECT_TRUE(writer->append(std::vector<float>(std::size_t{20} * 64)));
  EXPECT_FALSE(writer->finish());
  EXPECT_FALSE(NativeWriter::create(path, llama_like(), DType::kI4)) << "40 columns are no groups of 32";
}

TEST(ThreadTeamTest, RunsEveryTaskOnceWhateverTheNumberOfThreads) {
  for (const std::size_t threads : {1, 2, 5}) {
    native::ThreadTeam team(threads);
    EXPECT_EQ(team.threads(), threads);
    // Many short rounds, as in a token; one that is longer than a round can be.
    for (std::size_t round = 0; round < 3000; ++round) {
      const std::size_t count = round == 1000 ? 70000 : round % 9;
      std::vector<std::atomic<int>> runs(count);
      team.run(count, [&](std::size_t i) { ++runs[i]; });
      for (const auto& run : runs) ASSERT_EQ(run.load(), 1);
    }
  }
}

TEST(ThreadTeamTest, WakesThreadsThatHaveGoneToSleep) {
  native::ThreadTeam team(3);
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    std::atomic<int> runs = 0;
    team.run(50, [&](std::size_t) { ++runs; });
    EXPECT_EQ(runs.load(), 50);
  }
}

TEST(ExpTest, IsNearTheLibrarysWithEveryInstructionSet) {
  std::vector<float> powers = {-INFINITY, -1e9F, -200, -103, -90, -0.0F, 0, 88};
  for (float power = -87; power < 88; power += 0.137F) powers.push_back(power);
  for (const Isa isa : supported_isas()) {
    std::vector<float> values = powers;
    kernels::kernels_of(isa)->exp(values.data(), values.size());
    for (std::size_t i = 0; i < powers.size(); ++i) {
      const double wanted = std::exp(static_cast<double>(powers[i]));
      ASSERT_NEAR(static_cast<double>(values[i]), wanted, 2.4e-7 * wanted + 1e-38) << name(isa) << " " << powers[i];
    }
  }
}

}  // namespace
}  // namespace edge::testing
