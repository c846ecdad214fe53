#include "edge_runtime/manifest.h"

#include <algorithm>
#include <initializer_list>
#include <set>
#include <span>

#include "durable.h"
#include "strict_json.h"

namespace edge {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kLargestManifest = 16U << 20U;
constexpr int kDeepestManifest = 32;

// Walks the manifest and keeps the first thing that is wrong with it.
class Checker {
 public:
  bool ok() const { return message_.empty(); }
  const std::string& message() const { return message_; }

  void fail_at(const std::string& key, const std::string& what) {
    if (ok()) {
      message_ = "'" + key + "' " + what;
    }
  }

  // The member, or null after recording that it is missing.
  const Json& member(const Json& object, const std::string& where, const char* key) {
    static const Json null;
    if (!object.is_object() || !object.contains(key)) {
      fail_at(where + key, "is missing");
      return null;
    }
    return object[key];
  }

  std::string text(const Json& object, const std::string& where, const char* key,
                   std::initializer_list<const char*> allowed = {}) {
    const Json& value = member(object, where, key);
    if (!value.is_string()) {
      fail_at(where + key, "is not a text");
      return {};
    }
    auto result = value.get<std::string>();
    if (allowed.size() != 0 && std::find(allowed.begin(), allowed.end(), result) == allowed.end()) {
      fail_at(where + key, "is '" + printable(result) + "', which this build does not know");
    }
    return result;
  }

  std::uint64_t number(const Json& object, const std::string& where, const char* key, std::uint64_t low,
                       std::uint64_t high) {
    const Json& value = member(object, where, key);
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() < low || value.get<std::uint64_t>() > high) {
      fail_at(where + key, "is not an integer from " + std::to_string(low) + " to " + std::to_string(high));
      return low;
    }
    return value.get<std::uint64_t>();
  }

  void real(const Json& object, const std::string& where, const char* key) {
    const Json& value = member(object, where, key);
    if (!value.is_number() || value.get<double>() < 0) {
      fail_at(where + key, "is not a number of 0 or more");
    }
  }

  void boolean(const Json& object, const std::string& where, const char* key) {
    if (!member(object, where, key).is_boolean()) {
      fail_at(where + key, "is not true or false");
    }
  }

  const Json& list(const Json& object, const std::string& where, const char* key) {
    static const Json empty = Json::array();
    const Json& value = member(object, where, key);
    if (!value.is_array()) {
      fail_at(where + key, "is not a list");
      return empty;
    }
    return value;
  }

  void path(const Json& object, const std::string& where, const char* key, const Json& files) {
    const std::string value = text(object, where, key);
    check_path(where + key, value, files);
  }

  void check_path(const std::string& key, const std::string& value, const Json& files) {
    if (!is_safe_path(value)) {
      fail_at(key, "is not a safe relative path: '" + printable(value) + "'");
    } else if (!files.contains(value)) {
      fail_at(key, "names '" + printable(value) + "', which 'files' does not list");
    }
  }

 private:
  std::string message_;
};

void check_files(Checker& check, const Json& files) {
  if (!files.is_object()) {
    check.fail_at("files", "is not a map");
    return;
  }
  for (const auto& [path, entry] : files.items()) {
    const std::string where = "files[" + printable(path) + "].";
    if (!is_safe_path(path) || path == "manifest.json") {
      check.fail_at("files", "has the unsafe path '" + printable(path) + "'");
    }
    check.number(entry, where, "bytes", 0, 1ULL << 50U);
    const std::string sha = check.text(entry, where, "sha256");
    if (sha.size() != 64 || sha.find_first_not_of("0123456789abcdef") != std::string::npos) {
      check.fail_at(where + "sha256", "is not 64 lower-case hexadecimal digits");
    }
    check.text(entry, where, "covers", {"file", "tables"});
  }
}

void check_anchor(Checker& check, const Json& anchor) {
  const std::string at = "anchor.";
  check.text(anchor, at, "architecture", {"openlm", "decoder"});
  check.number(anchor, at, "parameters", 1, 1ULL << 50U);
  check.number(anchor, at, "layers", 1, 4096);
  check.number(anchor, at, "d_model", 1, 1U << 20U);
  const auto heads = check.number(anchor, at, "heads", 1, 1U << 16U);
  const auto kv_heads = check.number(anchor, at, "kv_heads", 1, 1U << 16U);
  if (heads % kv_heads != 0) {
    check.fail_at("anchor.kv_heads", "does not divide 'anchor.heads'");
  }
  check.number(anchor, at, "head_dim", 1, 1U << 16U);
  check.number(anchor, at, "ffn_dim", 1, 1U << 24U);
  check.number(anchor, at, "vocab_size", 1, 1U << 24U);
  check.number(anchor, at, "context_length", 1, 1U << 24U);
  check.real(anchor, at, "rope_theta");
  check.text(anchor, at, "norm", {"layernorm", "rmsnorm"});
  check.real(anchor, at, "norm_eps");
  check.text(anchor, at, "activation", {"silu", "gelu_tanh"});
  check.boolean(anchor, at, "qk_norm");
  check.boolean(anchor, at, "tied_embeddings");
}

void check_memory(Checker& check, const Json& memory, const Json& files, std::uint64_t anchor_layers) {
  const std::string at = "memory.";
  check.text(memory, at, "kind", {"ffn", "lora_qk", "lora_vo", "lora_ffn", "kv"});
  const auto fanout = check.number(memory, at, "fanout", 2, 256);
  const Json& layers = check.list(memory, at, "layers");
  std::int64_t previous = -1;
  for (const Json& layer : layers) {
    if (!layer.is_number_unsigned() || layer.get<std::uint64_t>() >= anchor_layers ||
        layer.get<std::int64_t>() <= previous) {
      check.fail_at("memory.layers", "is not an ascending list of the anchor's layers");
      return;
    }
    previous = layer.get<std::int64_t>();
  }
  std::set<std::uint64_t> seen;
  const Json& levels = check.list(memory, at, "levels");
  for (std::size_t i = 0; i < levels.size(); ++i) {
    const std::string where = "memory.levels[" + std::to_string(i) + "].";
    const auto level = check.number(levels[i], where, "level", 0, 8);
    if (!seen.insert(level).second) {
      check.fail_at(where + "level", "stands twice");
    }
    check.number(levels[i], where, "rows", 1, 1U << 20U);
    check.text(levels[i], where, "dtype", {"f32", "f16", "bf16", "i8", "i4"});
    std::uint64_t expected = 1;
    for (std::uint64_t l = 0; l < level && expected <= (1ULL << 31U); ++l) {
      expected *= fanout;
    }
    if (check.number(levels[i], where, "nodes", 1, 1ULL << 31U) != expected) {
      check.fail_at(where + "nodes", "is not fanout^level");
    }
    check.number(levels[i], where, "block_bytes", 1, 1ULL << 40U);
    const Json& paths = check.list(levels[i], where, "files");
    if (paths.empty()) {
      check.fail_at(where + "files", "is empty");
    }
    for (const Json& path : paths) {
      check.check_path(where + "files", path.is_string() ? path.get<std::string>() : "", files);
    }
  }
}

void check_router(Checker& check, const Json& router, const Json& files) {
  const std::string at = "router.";
  check.path(router, at, "tree", files);
  check.number(router, at, "depth", 1, 8);
  check.number(router, at, "dim", 1, 1U << 16U);
  const std::string chosen = check.text(router, at, "default");
  bool found = false;
  const Json& embedders = check.list(router, at, "embedders");
  for (std::size_t i = 0; i < embedders.size(); ++i) {
    const std::string where = "router.embedders[" + std::to_string(i) + "].";
    found = check.text(embedders[i], where, "name") == chosen || found;
    const bool tables = check.text(embedders[i], where, "engine") == "static";
    check.path(embedders[i], where, "path", files);
    check.path(embedders[i], where, "tokenizer", files);
    if (tables) {
      continue;  // the rest says how a program is called
    }
    check.number(embedders[i], where, "max_tokens", 1, 1U << 20U);
    check.text(embedders[i], where, "pooling", {"mean"});
    check.boolean(embedders[i], where, "normalize");
  }
  if (!found) {
    check.fail_at("router.default", "names no embedder of the list");
  }
}

// Whether `path` is a folder of listed files, as a Core ML package is.
bool lists_below(const Json& files, const std::string& path) {
  const std::string below = path + "/";
  for (const auto& [name, entry] : files.items()) {
    if (name.starts_with(below)) {
      return true;
    }
  }
  return false;
}

void check_programs(Checker& check, const Json& manifest, const Json& files) {
  const Json& programs = check.list(manifest, "", "programs");
  for (std::size_t i = 0; i < programs.size(); ++i) {
    const std::string where = "programs[" + std::to_string(i) + "].";
    check.text(programs[i], where, "engine");
    check.text(programs[i], where, "flavour");
    const std::string path = check.text(programs[i], where, "path");
    if (!is_safe_path(path) || !lists_below(files, path)) {
      check.check_path(where + "path", path, files);
    }
    check.text(programs[i], where, "method");
    check.number(programs[i], where, "max_prefill", 1, 1U << 24U);
    check.text(programs[i], where, "dtype");
    for (const Json& dtype : check.list(programs[i], where, "bank_dtypes")) {
      if (!dtype.is_string()) {
        check.fail_at(where + "bank_dtypes", "is not a list of texts");
      }
    }
  }
}

void check_generation(Checker& check, const Json& manifest) {
  const Json& tokens = check.member(manifest, "", "tokens");
  const Json& bos = check.member(tokens, "tokens.", "bos");
  if (!bos.is_null() && !bos.is_number_unsigned()) {
    check.fail_at("tokens.bos", "is neither a token id nor null");
  }
  for (const Json& eos : check.list(tokens, "tokens.", "eos")) {
    if (!eos.is_number_unsigned()) {
      check.fail_at("tokens.eos", "is not a list of token ids");
    }
  }
  check.boolean(tokens, "tokens.", "add_bos");
  const Json& chat = check.member(manifest, "", "chat_template");
  if (!chat.is_null() && !chat.is_string()) {
    check.fail_at("chat_template", "is neither a text nor null");
  }
  const Json& generation = check.member(manifest, "", "generation");
  check.number(generation, "generation.", "max_tokens", 1, 1U << 24U);
  check.real(generation, "generation.", "temperature");
  for (const Json& stop : check.list(generation, "generation.", "stop")) {
    if (!stop.is_string()) {
      check.fail_at("generation.stop", "is not a list of texts");
    }
  }
}

}  // namespace

bool is_safe_path(std::string_view path) {
  if (path.empty() || path.find('\\') != std::string_view::npos || path.find('\0') != std::string_view::npos) {
    return false;
  }
  while (true) {
    const std::size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    if (part.empty() || part == "." || part == "..") {
      return false;
    }
    if (slash == std::string_view::npos) {
      return true;
    }
    path.remove_prefix(slash + 1);
  }
}

Status validate_manifest(std::string_view text) {
  if (text.size() > kLargestManifest) {
    return fail(ErrorCode::kBadFormat, "manifest.json: larger than 16 MiB");
  }
  const Json manifest = parse_strict(text, kDeepestManifest);
  if (!manifest.is_object()) {
    return fail(ErrorCode::kBadFormat, "manifest.json: not a JSON object with distinct keys");
  }
  Checker check;
  if (check.text(manifest, "", "format") != "edge-runtime.bundle") {
    check.fail_at("format", "is not edge-runtime.bundle");
  }
  const auto schema = check.number(manifest, "", "schema", 1, 1U << 30U);
  if (check.ok() && schema > kManifestSchema) {
    return fail(ErrorCode::kUnsupported, "manifest.json: schema " + std::to_string(schema) +
                                             "; this build reads up to " + std::to_string(kManifestSchema) +
                                             ": update edge-runtime");
  }
  check.number(manifest, "", "revision", 1, 1ULL << 53U);
  check.text(manifest, "", "name");
  const Json& files = check.member(manifest, "", "files");
  check_files(check, files);
  if (check.ok()) {
    const Json& anchor = check.member(manifest, "", "anchor");
    check_anchor(check, anchor);
    check_generation(check, manifest);
    const Json& tokenizer = check.member(manifest, "", "tokenizer");
    check.path(tokenizer, "tokenizer.", "path", files);
    check.number(tokenizer, "tokenizer.", "vocab_size", 1, 1U << 24U);
    const Json& memory = check.member(manifest, "", "memory");
    if (!memory.is_null() && check.ok()) {
      check_memory(check, memory, files, anchor["layers"].get<std::uint64_t>());
    }
    const Json& router = check.member(manifest, "", "router");
    if (!router.is_null()) {
      check_router(check, router, files);
    }
    check_programs(check, manifest, files);
    check.path(manifest, "", "state", files);
    if (manifest.contains("reference")) check.path(manifest, "", "reference", files);
    check.member(manifest, "", "provenance");
  }
  if (!check.ok()) {
    return fail(ErrorCode::kBadFormat, "manifest.json: " + check.message());
  }
  return {};
}

Status commit_manifest(const std::string& directory, std::string_view text) {
  if (auto status = validate_manifest(text); !status) {
    return status;
  }
  return write_file(directory + "/manifest.json", text);
}

Status write_file(const std::string& path, std::string_view text) { return write_durably(path, std::span(&text, 1)); }

}  // namespace edge
