// A bundle that holds everything: a random anchor, a bank of two levels, a router and a byte-level tokenizer.
#pragma once

#include <array>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "edge_runtime/manifest.h"
#include "edge_runtime/static_embedder.h"
#include "edge_runtime/tree.h"
#include "native_fixture.h"

namespace edge::testing {

inline constexpr std::uint32_t kSmallVocabulary = 260;

// The characters of the byte-level alphabet, merges to " t" and " th", and an end-of-text token.
inline nlohmann::json small_tokenizer() {
  nlohmann::json vocabulary = nlohmann::json::object();
  int next = 0x100;
  std::array<std::string, 256> spelled;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    const int character = printable ? byte : next++;
    std::string& text = spelled[static_cast<std::size_t>(byte)];
    if (character < 0x80) {
      text = static_cast<char>(character);
    } else {
      text = {static_cast<char>(0xC0 | character >> 6), static_cast<char>(0x80 | (character & 0x3F))};
    }
    vocabulary[text] = byte;
  }
  const std::string space = spelled[' '];
  vocabulary[space + "t"] = 256;
  vocabulary[space + "th"] = 257;
  vocabulary["on"] = 258;
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens",
           {{{"id", 259},
             {"content", "<|end|>"},
             {"single_word", false},
             {"lstrip", false},
             {"rstrip", false},
             {"normalized", false},
             {"special", true}}}},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model",
           {{"type", "BPE"},
            {"vocab", vocabulary},
            {"merges",
             nlohmann::json::array({nlohmann::json::array({space, "t"}), nlohmann::json::array({space + "t", "h"}),
                                    nlohmann::json::array({"o", "n"})})}}}};
}

inline NativeConfig small_config() {
  NativeConfig config = {5,    kWidth,       2,  2, 32, 96, kSmallVocabulary, 200, true, 1e-5F, QkNorm::kWidth,
                         true, {1, 2, 3, 4}, {}, {}};
  config.set_layers(1e5F);
  return config;
}

inline void write_text(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

inline void write_small_router(const std::string& directory) {
  constexpr std::uint32_t kDim = 8;
  std::mt19937 random(5);
  const auto centroids = random_values(std::size_t{kFanout} * kDim, 1, random);
  const std::vector<std::int32_t> documents(kFanout, 1);
  const std::array<std::span<const float>, 1> c = {centroids};
  const std::array<std::span<const std::int32_t>, 1> n = {documents};
  EXPECT_TRUE(write_tree(directory + "/router/tree.safetensors", kFanout, kDim, c, n));
  StaticTables tables{.vocab_size = kSmallVocabulary, .width = kDim, .dim = kDim};
  tables.token_scales.assign(kSmallVocabulary, 0.01F);
  tables.map = random_values(std::size_t{kDim} * kDim, 1, random);
  tables.bias.assign(kDim, 0);
  for (std::uint32_t i = 0; i < kSmallVocabulary * kDim; ++i) {
    tables.tokens.push_back(static_cast<std::int8_t>(random() % 255 - 127));
  }
  EXPECT_TRUE(write_static_embedder(directory + "/router/static.safetensors", tables));
}

// Writes the bundle into a directory that is empty or holds an older one.
inline void write_small_bundle(const std::string& directory) {
  namespace fs = std::filesystem;
  fs::create_directories(directory + "/memory");
  fs::create_directories(directory + "/router");
  {
    const TempDir scratch;
    const NativeAnchor anchor(scratch, small_config(), DType::kF32);
    fs::copy_file(anchor.path, directory + "/anchor.native.safetensors", fs::copy_options::overwrite_existing);
  }
  write_level(directory + "/memory/level0.safetensors", {.level = 0});
  write_level(directory + "/memory/level1.safetensors", {.level = 1});
  write_small_router(directory);
  write_text(directory + "/tokenizer.json", small_tokenizer().dump());
  write_text(directory + "/memory/state-1.json",
             R"({"format": "edge-runtime.state", "schema": 1, "revision": 1, "blocked": [], "removed": []})");
  auto manifest = nlohmann::json::parse(R"({
    "format": "edge-runtime.bundle", "schema": 1, "revision": 1, "name": "small",
    "anchor": {"architecture": "openlm", "parameters": 1000, "layers": 5, "d_model": 64, "heads": 2, "kv_heads": 2,
      "head_dim": 32, "ffn_dim": 96, "vocab_size": 260, "context_length": 200, "rope_theta": 100000.0,
      "norm": "layernorm", "norm_eps": 1e-5, "activation": "silu", "qk_norm": true, "tied_embeddings": true},
    "tokens": {"bos": null, "eos": [259], "add_bos": false}, "chat_template": null,
    "generation": {"max_tokens": 12, "temperature": 0.0, "stop": []},
    "tokenizer": {"path": "tokenizer.json", "vocab_size": 260},
    "memory": {"kind": "ffn", "fanout": 4, "layers": [1, 2, 3, 4], "levels": [
      {"level": 0, "rows": 16, "dtype": "f32", "nodes": 1, "files": ["memory/level0.safetensors"]},
      {"level": 1, "rows": 16, "dtype": "f32", "nodes": 4, "files": ["memory/level1.safetensors"]}]},
    "router": {"tree": "router/tree.safetensors", "depth": 1, "dim": 8, "default": "static", "embedders": [
      {"name": "static", "engine": "static", "path": "router/static.safetensors", "tokenizer": "tokenizer.json"}]},
    "programs": [{"engine": "native", "flavour": "paged", "path": "anchor.native.safetensors", "method": "forward",
      "max_prefill": 200, "dtype": "f32", "bank_dtypes": ["f32"]}],
    "state": "memory/state-1.json", "provenance": {}, "files": {}})");
  for (auto& level : manifest["memory"]["levels"]) {
    const auto opened = BankLevel::open(directory + "/" + level["files"][0].get<std::string>());
    ASSERT_TRUE(opened);
    level["block_bytes"] = opened->spec().stride();
  }
  for (const char* name :
       {"anchor.native.safetensors", "tokenizer.json", "memory/level0.safetensors", "memory/level1.safetensors",
        "memory/state-1.json", "router/tree.safetensors", "router/static.safetensors"}) {
    manifest["files"][name] = {
        {"bytes", fs::file_size(directory + "/" + name)}, {"sha256", std::string(64, '0')}, {"covers", "file"}};
  }
  const auto committed = commit_manifest(directory, manifest.dump());
  ASSERT_TRUE(committed) << committed.error().message;
}

}  // namespace edge::testing
