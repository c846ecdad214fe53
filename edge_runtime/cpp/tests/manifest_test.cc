#include "edge_runtime/manifest.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "bank_fixture.h"

namespace edge {
namespace {

using Json = nlohmann::json;
using testing::TempDir;

Json valid() {
  const Json file = {{"bytes", 10}, {"sha256", std::string(64, 'a')}, {"covers", "file"}};
  return Json::parse(R"({
    "format": "edge-runtime.bundle", "schema": 1, "revision": 1, "name": "test",
    "anchor": {"architecture": "openlm", "parameters": 1000, "layers": 2, "d_model": 32, "heads": 2, "kv_heads": 2, "head_dim": 16,
      "ffn_dim": 64, "vocab_size": 100, "context_length": 64, "rope_theta": 100000.0, "norm": "layernorm", "norm_eps": 1e-5,
      "activation": "silu", "qk_norm": true, "tied_embeddings": true},
    "tokens": {"bos": null, "eos": [0], "add_bos": false}, "chat_template": null,
    "generation": {"max_tokens": 16, "temperature": 0.0, "stop": []},
    "tokenizer": {"path": "tokenizer.json", "vocab_size": 100},
    "memory": {"kind": "ffn", "fanout": 4, "layers": [0, 1], "levels": [
      {"level": 0, "rows": 6, "dtype": "f16", "nodes": 1, "block_bytes": 16384, "files": ["memory/level0.safetensors"]},
      {"level": 1, "rows": 6, "dtype": "f16", "nodes": 4, "block_bytes": 16384, "files": ["memory/level1.safetensors"]}]},
    "router": {"tree": "router/tree.safetensors", "depth": 1, "dim": 8, "default": "minilm", "embedders": [
      {"name": "minilm", "engine": "executorch", "path": "router/minilm.pte", "tokenizer": "router/minilm.tokenizer.json",
       "max_tokens": 256, "pooling": "mean", "normalize": true}]},
    "programs": [{"engine": "executorch", "flavour": "paged", "path": "anchor.paged.pte", "method": "forward", "max_prefill": 64,
      "dtype": "f32", "bank_dtypes": ["f16"]}],
    "state": "memory/state-1.json", "provenance": {}})")
      .patch(Json::array({{{"op", "add"},
                           {"path", "/files"},
                           {"value",
                            {{"tokenizer.json", file},
                             {"memory/level0.safetensors", file},
                             {"memory/level1.safetensors", file},
                             {"router/tree.safetensors", file},
                             {"router/minilm.pte", file},
                             {"router/minilm.tokenizer.json", file},
                             {"anchor.paged.pte", file},
                             {"memory/state-1.json", file}}}}}));
}

TEST(Manifest, AcceptsTheDocumentedOneAndIgnoresUnknownKeys) {
  Json manifest = valid();
  EXPECT_TRUE(validate_manifest(manifest.dump()));
  manifest["later"] = {{"a", 1}};
  EXPECT_TRUE(validate_manifest(manifest.dump()));
  manifest["memory"] = nullptr;
  manifest["router"] = nullptr;
  EXPECT_TRUE(validate_manifest(manifest.dump()));
}

TEST(Manifest, AStaticEmbedderNeedsAPathAndATokenizerOnly) {
  Json manifest = valid();
  manifest["files"]["router/static.safetensors"] = manifest["files"]["tokenizer.json"];
  const Json embedder = {
      {"name", "static"}, {"engine", "static"}, {"path", "router/static.safetensors"}, {"tokenizer", "tokenizer.json"}};
  manifest["router"]["embedders"].push_back(embedder);
  manifest["router"]["default"] = "static";
  const auto status = validate_manifest(manifest.dump());
  EXPECT_TRUE(status) << status.error().message;
  for (const char* key : {"name", "path", "tokenizer"}) {
    Json without = manifest;
    without["router"]["embedders"][1].erase(key);
    EXPECT_FALSE(validate_manifest(without.dump())) << key;
  }
  manifest["router"]["embedders"][1]["engine"] = "executorch";
  EXPECT_NE(validate_manifest(manifest.dump()).error().message.find("max_tokens"), std::string::npos);
}

TEST(Manifest, NamesWhatIsWrong) {
  using Edit = std::function<void(Json&)>;
  const std::vector<std::pair<Edit, std::string>> attacks = {
      {[](Json& m) { m["format"] = "zip"; }, "format"},
      {[](Json& m) { m.erase("state"); }, "state"},
      {[](Json& m) { m["revision"] = 0; }, "revision"},
      {[](Json& m) { m["revision"] = -1; }, "revision"},
      {[](Json& m) { m["revision"] = "1"; }, "revision"},
      {[](Json& m) { m["anchor"].erase("head_dim"); }, "anchor.head_dim"},
      {[](Json& m) { m["anchor"]["layers"] = 1e99; }, "anchor.layers"},
      {[](Json& m) { m["anchor"]["kv_heads"] = 3; }, "anchor.kv_heads"},
      {[](Json& m) { m["anchor"]["activation"] = "tanh"; }, "anchor.activation"},
      {[](Json& m) { m["anchor"]["qk_norm"] = 1; }, "anchor.qk_norm"},
      {[](Json& m) { m["anchor"] = 3; }, "anchor"},
      {[](Json& m) { m["tokens"]["eos"] = {-1}; }, "tokens.eos"},
      {[](Json& m) { m["tokenizer"]["path"] = "../tokenizer.json"; }, "tokenizer.path"},
      {[](Json& m) { m["tokenizer"]["path"] = "/etc/passwd"; }, "tokenizer.path"},
      {[](Json& m) { m["tokenizer"]["path"] = "not-listed.json"; }, "not-listed.json"},
      {[](Json& m) { m["files"]["a/../b"] = m["files"]["tokenizer.json"]; }, "files"},
      {[](Json& m) { m["files"]["a\\b"] = m["files"]["tokenizer.json"]; }, "files"},
      {[](Json& m) { m["files"]["manifest.json"] = m["files"]["tokenizer.json"]; }, "files"},
      {[](Json& m) { m["files"]["tokenizer.json"]["sha256"] = "00"; }, "sha256"},
      {[](Json& m) { m["files"]["tokenizer.json"]["bytes"] = -5; }, "bytes"},
      {[](Json& m) { m["files"]["tokenizer.json"]["covers"] = "half"; }, "covers"},
      {[](Json& m) { m["memory"]["fanout"] = 1; }, "memory.fanout"},
      {[](Json& m) { m["memory"]["layers"] = {1, 0}; }, "memory.layers"},
      {[](Json& m) { m["memory"]["layers"] = {0, 2}; }, "memory.layers"},
      {[](Json& m) { m["memory"]["levels"][1]["level"] = 0; }, "level"},
      {[](Json& m) { m["memory"]["levels"][1]["nodes"] = 5; }, "nodes"},
      {[](Json& m) { m["memory"]["levels"][1]["files"] = Json::array(); }, "files"},
      {[](Json& m) { m["memory"]["levels"][1]["files"] = {7}; }, "files"},
      {[](Json& m) { m["router"]["default"] = "none"; }, "router.default"},
      {[](Json& m) { m["router"]["embedders"] = {}; }, "router.embedders"},
      {[](Json& m) { m["programs"] = Json::object(); }, "programs"},
      {[](Json& m) { m["programs"][0]["max_prefill"] = 0; }, "max_prefill"},
      {[](Json& m) { m["programs"][0]["path"] = "mem"; }, "programs[0].path"},
      {[](Json& m) { m["programs"][0]["path"] = "memory/"; }, "programs[0].path"},
  };
  for (const auto& [edit, expected] : attacks) {
    Json manifest = valid();
    edit(manifest);
    const auto status = validate_manifest(manifest.dump());
    ASSERT_FALSE(status) << expected;
    EXPECT_EQ(status.error().code, ErrorCode::kBadFormat);
    EXPECT_NE(status.error().message.find(expected), std::string::npos) << status.error().message;
  }
}

TEST(Manifest, AProgramMayBeAFolder) {
  Json manifest = valid();
  manifest["files"]["anchor.mlpackage/Data/weight.bin"] = manifest["files"]["tokenizer.json"];
  manifest["programs"][0]["path"] = "anchor.mlpackage";
  EXPECT_TRUE(validate_manifest(manifest.dump()));
}

TEST(Manifest, RefusesWhatIsNoManifest) {
  Json newer = valid();
  newer["schema"] = 2;
  EXPECT_EQ(validate_manifest(newer.dump()).error().code, ErrorCode::kUnsupported);
  for (const std::string& text : {std::string(), std::string("{"), std::string("[]"), std::string("null"),
                                  std::string(100000, '['), std::string("{\"a\":\"\xff\"}"),
                                  // What parsers take in different ways: a byte order mark, a NUL, a key twice.
                                  "\xEF\xBB\xBF" + valid().dump(), valid().dump() + std::string(1, '\0'),
                                  "{\"name\":\"other\"," + valid().dump().substr(1)}) {
    EXPECT_EQ(validate_manifest(text).error().code, ErrorCode::kBadFormat);
  }
}

TEST(Manifest, CommitReplacesTheOldOneOrLeavesIt) {
  const TempDir dir;
  const std::string path = dir.file("manifest.json");
  const std::string directory = std::filesystem::path(path).parent_path();
  ASSERT_TRUE(commit_manifest(directory, valid().dump()));
  Json next = valid();
  next["revision"] = 2;
  ASSERT_TRUE(commit_manifest(directory, next.dump()));
  EXPECT_EQ(Json::parse(std::ifstream(path))["revision"], 2);
  EXPECT_FALSE(commit_manifest(directory, "{}"));
  EXPECT_EQ(Json::parse(std::ifstream(path))["revision"], 2);
  EXPECT_FALSE(std::filesystem::exists(path + ".partial"));
  EXPECT_EQ(commit_manifest(dir.file("none"), valid().dump()).error().code, ErrorCode::kIo);
  // A rename that fails leaves nothing behind.
  std::filesystem::create_directories(dir.file("taken/manifest.json/x"));
  EXPECT_EQ(commit_manifest(dir.file("taken"), valid().dump()).error().code, ErrorCode::kIo);
  EXPECT_FALSE(std::filesystem::exists(dir.file("taken/manifest.json.partial")));
}

}  // namespace
}  // namespace edge
