// The native engine's parts by themselves: its configuration, its writer, its threads, its exponentials.
#include <gtest/gtest.h>

#include <algorithm>
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
  EXPECT_EQ(config->qk_norm, QkNorm::kWidth);
  EXPECT_EQ(config->memory_layers.size(), 2U);
  EXPECT_EQ(config->options.size(), 3U);
  EXPECT_EQ(config->ropes, std::vector{NativeRope{1e5F}});
}

nlohmann::json decoder_object() {
  auto anchor = anchor_object();
  anchor["architecture"] = "decoder";
  anchor["activation"] = "gelu_tanh";
  anchor["rope_theta"] = 0.0;
  const nlohmann::json linear = {{"theta", 1e6}, {"scaling", "linear"}, {"factor", 8.0},
                                 {"low", 1.0},   {"high", 4.0},         {"original_context", 0}};
  anchor["options"] = {{"layers",
                        {{{"rope", linear}, {"window", 7}},
                         {{"rope", nullptr}, {"window", nullptr}},
                         {{"rope", linear}, {"window", 9}}}},
                       {"qk_norm", "head"},
                       {"attention_scale", 0.25},
                       {"pre_norm", true},
                       {"post_norm", true},
                       {"qkv_bias", true},
                       {"output_bias", false},
                       {"ffn_bias", false},
                       {"embedding_scale", 8.0},
                       {"logit_softcap", 30.0}};
  return anchor;
}

TEST(NativeConfigTest, ReadsTheOptionsOfADecoder) {
  const auto config = parse_native_config(decoder_object().dump(), {});
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->ropes, (std::vector{NativeRope{1e6F, NativeRope::Scaling::kLinear, 8}}));
  ASSERT_EQ(config->options.size(), 3U);
  EXPECT_EQ(config->options[0].window, 7U);
  EXPECT_EQ(config->options[1].window, NativeLayerOptions::kAll);
  EXPECT_EQ(config->options[1].rope, NativeLayerOptions::kNoRope);
  EXPECT_EQ(config->options[2].rope, 0U);
  EXPECT_EQ(config->qk_norm, QkNorm::kHead);
  EXPECT_EQ(config->activation, Activation::kGeluTanh);
  EXPECT_TRUE(config->qkv_bias && config->pre_norm && config->post_norm);
  EXPECT_FALSE(config->output_bias || config->ffn_bias);
  EXPECT_EQ(config->embedding_scale, 8.0F);
  EXPECT_EQ(config->logit_softcap, 30.0F);
  EXPECT_EQ(config->attention_scale, 0.25F);
}

TEST(NativeConfigTest, NamesTheOptionThatIsWrongOrUnknown) {
  const std::vector<std::tuple<const char*, nlohmann::json, ErrorCode>> changes = {
      {"/options", nullptr, ErrorCode::kBadFormat},
      {"/options/attention_sinks", 4, ErrorCode::kUnsupported},
      {"/options/qk_norm", "both", ErrorCode::kUnsupported},
      {"/options/attention_scale", 0, ErrorCode::kBadFormat},
      {"/options/post_norm", nullptr, ErrorCode::kBadFormat},
      {"/options/logit_softcap", -1, ErrorCode::kBadFormat},
      {"/options/layers", nlohmann::json::array(), ErrorCode::kUnsupported},
      {"/options/layers/2/chunk", 8, ErrorCode::kUnsupported},
      {"/options/layers/2/window", 0, ErrorCode::kBadFormat},
      {"/options/layers/1/rope", 1, ErrorCode::kBadFormat},
      {"/options/layers/0/rope/scaling", "yarn", ErrorCode::kUnsupported},
      {"/options/layers/0/rope/beta", 1, ErrorCode::kUnsupported},
      {"/options/layers/0/rope/theta", 0, ErrorCode::kBadFormat},
  };
  for (const auto& [key, value, code] : changes) {
    auto anchor = decoder_object();
    anchor[nlohmann::json::json_pointer(key)] = value;
    const auto config = parse_native_config(anchor.dump(), {});
    ASSERT_FALSE(config) << key;
    EXPECT_EQ(config.error().code, code) << key;
    std::string named = std::string("anchor") + key;
    std::replace(named.begin(), named.end(), '/', '.');
    for (const char* index : {"0", "1", "2"}) {
      if (const auto at = named.find(std::string("layers.") + index); at != std::string::npos) {
        named.replace(at, 8, std::string("layers[") + index + "]");
      }
    }
    EXPECT_NE(config.error().message.find("'" + named + "'"), std::string::npos) << config.error().message;
  }
  auto steep = decoder_object();
  steep["options"]["layers"][0]["rope"]["scaling"] = "llama3";
  steep["options"]["layers"][0]["rope"]["high"] = 1.0;
  EXPECT_FALSE(parse_native_config(steep.dump(), {}));
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

}  // namespace
}  // namespace edge::testing
