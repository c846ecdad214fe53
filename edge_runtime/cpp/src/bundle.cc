#include "edge_runtime/bundle.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "byte_source.h"
#include "edge_runtime/manifest.h"
#include "strict_json.h"

namespace edge {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t kLargestManifest = 16U << 20U;
constexpr std::uint64_t kLargestState = 256U << 20U;
constexpr int kDeepestManifest = 32;
constexpr int kDeepestState = 4;

Result<std::string> read_text(const std::string& path, std::uint64_t largest) {
  const auto file = open_file(path);
  if (!file) return tl::make_unexpected(file.error());
  if ((*file)->size() > largest) return fail(ErrorCode::kBadFormat, path + ": larger than any of its kind");
  std::string text((*file)->size(), '\0');
  if (auto read = (*file)->read(0, std::as_writable_bytes(std::span(text))); !read) {
    return tl::make_unexpected(read.error());
  }
  return text;
}

Status check_files(const std::string& directory, const Json& files) {
  for (const auto& [name, entry] : files.items()) {
    const std::string path = directory + "/" + name;
    const auto stated = entry["bytes"].get<std::uint64_t>();
    std::error_code error;
    if (!std::filesystem::is_regular_file(path, error)) {
      return fail(ErrorCode::kNotFound, path + ": missing; the manifest names it: copy the bundle again");
    }
    const auto size = std::filesystem::file_size(path, error);
    if (error || size != stated) {
      return fail(size < stated ? ErrorCode::kTruncated : ErrorCode::kBadFormat,
                  path + ": " + std::to_string(size) + " bytes, the manifest says " + std::to_string(stated) +
                      ": copy the bundle again");
    }
  }
  return {};
}

Result<std::vector<Node>> read_nodes(const std::string& path, const Json& state, const char* key) {
  const auto list = state.find(key);
  const auto is_node = [](const Json& entry) {
    return entry.is_array() && entry.size() == 2 && entry[0].is_number_unsigned() &&
           entry[0].get<std::uint64_t>() <= UINT32_MAX && entry[1].is_number_unsigned();
  };
  if (list == state.end() || !list->is_array() || !std::all_of(list->begin(), list->end(), is_node)) {
    return fail(ErrorCode::kBadFormat, path + ": '" + key + "' is not a list of [level, node]: copy the bundle again");
  }
  std::vector<Node> nodes;
  for (const Json& entry : *list) nodes.push_back({entry[0].get<std::uint32_t>(), entry[1].get<std::uint64_t>()});
  return nodes;
}

Status read_state(const std::string& path, Bundle& bundle) {
  const auto text = read_text(path, kLargestState);
  if (!text) return tl::make_unexpected(text.error());
  const Json state = parse_strict(*text, kDeepestState);
  if (!state.is_object() || state.value("format", Json()) != "edge-runtime.state") {
    return fail(ErrorCode::kBadFormat, path + ": not a state file: copy the bundle again");
  }
  if (state.value("schema", Json()) != 1) {
    return fail(ErrorCode::kUnsupported, path + ": not a state file of schema 1: update edge-runtime");
  }
  for (const char* key : {"blocked", "removed"}) {
    auto nodes = read_nodes(path, state, key);
    if (!nodes) return tl::make_unexpected(nodes.error());
    (*key == 'b' ? bundle.blocked : bundle.removed) = std::move(*nodes);
  }
  return {};
}

// The manifest's validation keeps token ids from 0 to 2^64; the engine's are those of the vocabulary.
Status read_tokens(const Json& tokens, Bundle& bundle) {
  const auto id_of = [&](const Json& id) -> std::optional<std::uint32_t> {
    const auto value = id.get<std::uint64_t>();
    return value < bundle.anchor.vocab_size ? std::optional(static_cast<std::uint32_t>(value)) : std::nullopt;
  };
  const auto refused = [&] {
    return fail(ErrorCode::kBadFormat,
                bundle.directory + ": manifest.json: 'tokens' names an id beyond the vocabulary");
  };
  if (!tokens["bos"].is_null()) {
    bundle.bos = id_of(tokens["bos"]);
    if (!bundle.bos) return refused();
  }
  for (const Json& id : tokens["eos"]) {
    const auto eos = id_of(id);
    if (!eos) return refused();
    bundle.eos.push_back(*eos);
  }
  bundle.add_bos = tokens["add_bos"].get<bool>();
  return {};
}

void read_memory(const Json& memory, const Json& files, Bundle& bundle) {
  for (const Json& level : memory["levels"]) {
    BundleLevel read{.level = level["level"].get<std::uint32_t>(),
                     .block_bytes = level["block_bytes"].get<std::uint64_t>(),
                     .paths = {}};
    for (const Json& path : level["files"]) {
      const auto name = path.get<std::string>();
      read.paths.push_back(bundle.directory + "/" + name);
      bundle.bank_bytes += files[name]["bytes"].get<std::uint64_t>();
    }
    bundle.levels.push_back(std::move(read));
  }
}

BundleRouter read_router(const Json& router, const std::string& directory) {
  BundleRouter read{.tree = directory + "/" + router["tree"].get<std::string>(),
                    .dim = router["dim"].get<std::uint32_t>(),
                    .embedders = {},
                    .fallback = router["default"].get<std::string>()};
  for (const Json& embedder : router["embedders"]) {
    if (embedder["engine"] != "static") continue;
    read.embedders.push_back({embedder["name"].get<std::string>(),
                              directory + "/" + embedder["path"].get<std::string>(),
                              directory + "/" + embedder["tokenizer"].get<std::string>()});
  }
  return read;
}

Result<Bundle> read_bundle(const std::string& directory, const std::string& text) {
  if (auto valid = validate_manifest(text); !valid) {
    return fail(valid.error().code, directory + ": " + valid.error().message);
  }
  const Json manifest = parse_strict(text, kDeepestManifest);
  const Json& files = manifest["files"];
  if (auto complete = check_files(directory, files); !complete) return tl::make_unexpected(complete.error());
  Bundle bundle;
  bundle.directory = directory;
  bundle.name = manifest["name"].get<std::string>();
  bundle.revision = manifest["revision"].get<std::uint64_t>();
  const Json& programs = manifest["programs"];
  const auto native = std::find_if(programs.begin(), programs.end(), [](const Json& program) {
    return program["engine"] == "native" && program["flavour"] == "paged";
  });
  if (native == programs.end()) {
    return fail(ErrorCode::kUnsupported,
                directory + ": it has no native/paged program: export it with --engine native");
  }
  const auto weights = (*native)["path"].get<std::string>();
  bundle.weights = directory + "/" + weights;
  bundle.weights_bytes = files[weights]["bytes"].get<std::uint64_t>();
  const Json& memory = manifest["memory"];
  std::vector<std::uint32_t> memory_layers;
  if (!memory.is_null()) {
    memory_layers = memory["layers"].get<std::vector<std::uint32_t>>();
    if (const auto kind = memory["kind"].get<std::string>(); kind != "ffn") {
      return fail(ErrorCode::kUnsupported, directory + ": its memory is of the kind " + kind +
                                               "; native/paged reads ffn, and executorch/portable and onnx/portable "
                                               "read that kind");
    }
  }
  auto anchor = parse_native_config(manifest["anchor"].dump(), std::move(memory_layers));
  if (!anchor) return fail(anchor.error().code, directory + ": " + anchor.error().message);
  bundle.anchor = std::move(*anchor);
  if (auto tokens = read_tokens(manifest["tokens"], bundle); !tokens) return tl::make_unexpected(tokens.error());
  bundle.tokenizer = directory + "/" + manifest["tokenizer"]["path"].get<std::string>();
  bundle.tokenizer_vocab_size = manifest["tokenizer"]["vocab_size"].get<std::uint64_t>();
  const Json& generation = manifest["generation"];
  bundle.max_tokens = generation["max_tokens"].get<std::uint32_t>();
  bundle.temperature = generation["temperature"].get<float>();
  bundle.stop = generation["stop"].get<std::vector<std::string>>();
  if (std::find(bundle.stop.begin(), bundle.stop.end(), "") != bundle.stop.end()) {
    return fail(ErrorCode::kBadFormat, directory + ": manifest.json: 'generation.stop' has an empty text");
  }
  if (!memory.is_null()) read_memory(memory, files, bundle);
  if (!manifest["router"].is_null()) bundle.router = read_router(manifest["router"], directory);
  if (auto state = read_state(directory + "/" + manifest["state"].get<std::string>(), bundle); !state) {
    return tl::make_unexpected(state.error());
  }
  return bundle;
}

}  // namespace

Result<Bundle> Bundle::open(const std::string& directory) {
  const std::string path = directory + "/manifest.json";
  auto text = read_text(path, kLargestManifest);
  while (true) {
    if (!text) {
      std::error_code error;
      if (text.error().code != ErrorCode::kNotFound) return tl::make_unexpected(text.error());
      const bool there = std::filesystem::is_directory(directory, error);
      return fail(ErrorCode::kNotFound,
                  directory + (there ? ": not a bundle: it has no manifest.json" : ": no such directory"));
    }
    auto bundle = read_bundle(directory, *text);
    if (bundle) return bundle;
    // A command that changed the bundle meanwhile has unlinked what its old revision named.
    auto again = read_text(path, kLargestManifest);
    if (!again || *again == *text) return bundle;
    text = std::move(again);
  }
}

const BundleLevel* Bundle::level(std::uint32_t number) const {
  const auto found = std::find_if(levels.begin(), levels.end(), [&](const auto& l) { return l.level == number; });
  return found == levels.end() ? nullptr : &*found;
}

std::uint64_t Bundle::default_budget() const {
  std::uint64_t path = 0;
  std::uint64_t generic = 0;
  for (const BundleLevel& each : levels) (each.level == 0 ? generic : path) += each.block_bytes;
  return 2 * std::max(path, generic);
}

}  // namespace edge
